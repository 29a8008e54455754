"""Beliefs: when the kernel is fitted anew and to what, which trials count, and what running ones change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.surrogate import belief as module
from optuna_kd.samplers.surrogate.belief import Belief, Surrogate, inputs_of
from optuna_kd.samplers.surrogate.kernel import Kernel
from optuna_kd.samplers.tree import path_of
from optuna_kd.samplers.view import StudyView

RandomStudy = Callable[..., optuna.Study]
ViewOf = Callable[..., StudyView]


def widening(trial: optuna.Trial) -> float:
    """A range that grows in the middle of the study."""
    kind = trial.suggest_categorical("kind", [0, 1, 2])
    return kind + float(np.sin(3 * trial.suggest_float("x", 0.0, 1.0 if trial.number < 20 else 10.0)))


def assert_same(one: Kernel, other: Kernel) -> None:
    for field in dataclasses.fields(Kernel):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def believe(view: StudyView, surrogate: Surrogate | None = None) -> Belief:
    return (surrogate or Surrogate()).believe(view.log, view.evidence)


def test_the_kernel_is_fitted_at_the_first_trials_and_then_at_every_tenth_part_more() -> None:
    sizes = [module._fit_size(trials) for trials in range(300)]
    assert sizes[:5] == [0] * 5
    assert sorted(set(sizes))[:10] == [0, 5, 6, 7, 8, 9, 10, 12, 14, 16]
    assert all(size <= trials < size * 1.1 + 1 for trials, size in enumerate(sizes) if trials >= 5)
    assert sizes == sorted(sizes)


def test_a_long_lived_surrogate_has_the_kernel_of_a_fresh_one(random_study: RandomStudy, view_of: ViewOf) -> None:
    study = random_study(trials=30)
    trials, long_lived = study.trials, Surrogate()
    for count in range(1, 31):
        view = view_of(study, trials[:count])
        one, other = believe(view, long_lived), believe(view)
        assert_same(one.posterior.kernel, other.posterior.kernel)
        np.testing.assert_array_equal(one.expected, other.expected)


def test_a_long_lived_surrogate_has_the_kernel_of_a_fresh_one_though_a_range_grows(
    random_study: RandomStudy, view_of: ViewOf
) -> None:
    study = random_study(widening, trials=23)
    long_lived = Surrogate()
    view = view_of(study, ())
    for trial in study.trials:
        view.evidence.add(trial)
        view.log.add(trial.number, path_of(trial))
        assert_same(believe(view, long_lived).posterior.kernel, believe(view).posterior.kernel)


def test_the_order_of_arrival_changes_nothing(random_study: RandomStudy, view_of: ViewOf) -> None:
    study = random_study(trials=30)
    trials = study.trials
    expected = believe(view_of(study, trials))
    asked = view_of(study).log
    for order in (trials[::-1], [trials[i] for i in np.random.default_rng(0).permutation(30)]):
        found = believe(view_of(study, order))
        assert found.trials.tolist() == list(range(30))
        assert_same(found.posterior.kernel, expected.posterior.kernel)
        np.testing.assert_array_equal(found.expected, expected.expected)
        np.testing.assert_array_equal(found.seen.keys, asked.paths().keys)


def test_late_news_of_an_early_trial_are_heeded_by_all_alike(random_study: RandomStudy, view_of: ViewOf) -> None:
    study = random_study(trials=14)
    trials, long_lived = study.trials, Surrogate()
    arrived: list[FrozenTrial] = []
    for number in (5, 3, 8, 1, 0, 2, 9, 13, 4, 6, 12, 7, 11, 10):
        arrived.append(trials[number])
        one = believe(view_of(study, arrived), long_lived)
        assert_same(one.posterior.kernel, believe(view_of(study, arrived)).posterior.kernel)


def test_later_trials_do_not_change_the_kernel_before_the_next_fit(random_study: RandomStudy, view_of: ViewOf) -> None:
    study = random_study(trials=17)
    trials = study.trials
    at_16 = believe(view_of(study, trials[:16])).posterior.kernel
    wild = optuna.create_trial(value=1e6, params=trials[0].params, distributions=trials[0].distributions)
    wild.number = 16  # it changes all rewards
    assert_same(believe(view_of(study, [*trials[:16], wild])).posterior.kernel, at_16)


def test_predictions_are_rewards_between_the_worst_and_the_best(random_study: RandomStudy, view_of: ViewOf) -> None:
    study = random_study(trials=40)
    view = view_of(study)
    found = believe(view)
    means, deviations = found.rewards_of(view.log.paths())
    np.testing.assert_allclose(found.scale.to(means), found.expected, atol=1e-6)
    assert np.corrcoef(means, view.rewards)[0, 1] > 0.9
    assert ((means > -0.2) & (means < 1.2) & (deviations > 0) & (deviations < 0.5)).all()


def test_long_lists_are_predicted_in_pieces_to_the_same_result(
    random_study: RandomStudy, view_of: ViewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(random_study(trials=23))
    found = believe(view)
    whole = found.rewards_of(view.log.paths())
    monkeypatch.setattr(module, "_CHUNK", 5)
    np.testing.assert_allclose(found.rewards_of(view.log.paths()), whole, rtol=1e-9)


def test_trials_that_run_calm_their_surroundings_and_change_no_expectation(
    random_study: RandomStudy, view_of: ViewOf
) -> None:
    study = random_study(trials=30)
    view, others = view_of(study, study.trials[:20]), view_of(study).log.paths()
    running = others.take(np.arange(20, 23))
    alone, crowded = believe(view), Surrogate().believe(view.log, view.evidence, running)
    before, after = alone.rewards_of(others), crowded.rewards_of(others)
    np.testing.assert_allclose(after[0], before[0], atol=1e-4)
    assert (after[1] < before[1] + 1e-9).all()
    assert (after[1][20:23] < 0.9 * before[1][20:23]).all()


def test_of_many_trials_the_latest_and_the_best_and_some_others_count(
    random_study: RandomStudy, view_of: ViewOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OBSERVATIONS", 32)
    study = random_study(trials=90)
    trials = study.trials
    found = believe(view_of(study, trials[::-1]))
    kept = found.trials.tolist()
    assert len(kept) <= 32
    assert kept == sorted(set(kept))
    assert set(range(90 - 16, 90)) <= set(kept)
    best = np.argsort([-trial.value for trial in trials[: 90 - 16]], kind="stable")
    assert set(best[:8].tolist()) <= set(kept)
    others = set(kept) - set(range(90 - 16, 90)) - set(best[:8].tolist())
    assert best[-1] in others  # not only lucky ones
    np.testing.assert_array_equal(found.expected, believe(view_of(study, trials)).expected)


def test_more_than_256_trials(random_study: RandomStudy, view_of: ViewOf) -> None:
    view = view_of(random_study(trials=300))
    found = believe(view)
    assert len(found.trials) <= 256
    means, deviations = found.rewards_of(view.log.paths())
    assert len(means) == 300
    assert np.corrcoef(means, view.rewards)[0, 1] > 0.95
    assert (np.isfinite(deviations) & (deviations > 0)).all()


def test_pruned_and_failed_trials_count_against_their_branch(view_of: ViewOf) -> None:
    space = {"a": optuna.distributions.CategoricalDistribution([0, 1, 2])}
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[number % 3]
        value = 1.0 + number / 100 if state is TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(value=value, state=state, params={"a": number % 3}, distributions=space))
    found = believe(view_of(study))
    complete, pruned, failed = (found.expected[i] for i in range(3))
    assert complete > max(pruned, failed) + 1


def test_a_parameter_that_nobody_finished_with_is_missing_everywhere(
    random_study: RandomStudy, view_of: ViewOf
) -> None:
    view = view_of(random_study(trials=10))
    paths = view.log.paths()
    before = inputs_of(view.log.slots, paths).values
    new = optuna.create_trial(
        value=0.0, params={"afar": 1}, distributions={"afar": optuna.distributions.IntDistribution(0, 3)}
    )
    view.log.slots.number("afar", path_of(new)[0].domain, 10)
    after = inputs_of(view.log.slots, paths).values
    assert np.isnan(after[:, 0]).all()  # by name the first
    np.testing.assert_array_equal(after[:, 1:], before)
