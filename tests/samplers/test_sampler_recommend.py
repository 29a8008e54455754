"""`recommend` and `expect`: which trial to trust, beyond the luck of its one observation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler

pytestmark = pytest.mark.usefixtures("quiet_optuna")

SPACE = {"a": CategoricalDistribution([0, 1, 2]), "b": CategoricalDistribution([0, 1, 2])}
Params = dict[str, Any]


def study_of(results: Sequence[tuple[Params, float]], direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for params, value in results:
        study.add_trial(optuna.create_trial(value=value, params=params, distributions={n: SPACE[n] for n in params}))
    return study


def repeated(sign: float = 1.0) -> list[tuple[Params, float]]:
    """All recipes twice; a = 2 is the best option, but the best observation is a lucky one of (0, 0)."""
    rng = np.random.default_rng(0)
    results = []
    for a, b in itertools.product(range(3), repeat=2):
        for _ in range(2):
            results.append(({"a": a, "b": b}, sign * (0.5 * (a == 2) + 0.1 * (b == 1) + 0.1 * float(rng.normal()))))
    results[1] = ({"a": 0, "b": 0}, sign * 1.0)
    return results


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_recipe_with_good_neighbours_is_preferred_to_a_lucky_one(direction: str) -> None:
    study = study_of(repeated(1.0 if direction == "maximize" else -1.0), direction)
    assert study.best_trial.params == {"a": 0, "b": 0}
    assert MCTSSampler().recommend(study).params["a"] == 2  # what b is worth is as small as the noise


def test_the_lucky_repeat_and_its_unlucky_twin_are_expected_to_earn_the_same() -> None:
    expected = MCTSSampler().expect(study_of(repeated()))
    assert expected[0] == pytest.approx(expected[1])
    assert expected[0] < 0.7


@pytest.mark.parametrize("rule", ["surrogate", "uct"])
def test_of_repeats_the_best_is_named(rule: str) -> None:
    space = {**SPACE, "x": FloatDistribution(0, 1)}
    for seed in range(25):
        rng = np.random.default_rng(seed)
        recipes = [{"a": int(rng.integers(3)), "b": int(rng.integers(3)), "x": float(rng.random())} for _ in range(5)]
        study = optuna.create_study(direction="maximize")
        for index in rng.integers(5, size=12 + seed):
            params = recipes[index]
            study.add_trial(optuna.create_trial(value=float(rng.normal()), params=params, distributions=space))
        best = MCTSSampler(selection=rule).recommend(study)
        assert best.value == max(trial.value for trial in study.trials if trial.params == best.params)


def test_uct_recommends_by_the_mean_over_repeats() -> None:
    results = [({"a": 0}, 1.0), ({"a": 0}, 0.0), ({"a": 1}, 0.7), ({"a": 1}, 0.8), ({"a": 2}, 0.1)]
    sampler = MCTSSampler(selection="uct")
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        study = study_of([(params, sign * value) for params, value in results], direction)
        assert sampler.expect(study) == pytest.approx({0: 0.5, 1: 0.5, 2: 0.75, 3: 0.75, 4: 0.1})
        assert sampler.recommend(study).number == 3


def test_repeats_are_those_of_the_same_parameters_in_whatever_order() -> None:
    study = study_of([({"a": 0, "b": 1}, 0.0), ({"b": 1, "a": 0}, 1.0), ({"a": 0}, 0.0)])
    assert MCTSSampler(selection="uct").expect(study) == {0: 0.5, 1: 0.5, 2: 0.0}


@pytest.mark.filterwarnings("ignore:Choices for a categorical:UserWarning")
@pytest.mark.parametrize("rule", ["surrogate", "uct"])
def test_choices_that_cannot_be_hashed(rule: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=MCTSSampler(seed=0, selection=rule))
    study.optimize(lambda trial: len(trial.suggest_categorical("widths", [[1], [1, 2]])), n_trials=6)
    assert study.sampler.recommend(study).params == {"widths": [1, 2]}  # type: ignore[attr-defined]


def test_only_complete_trials_are_recommended(selection: str) -> None:
    study = study_of([({"a": 0}, 0.2), ({"a": 1}, 0.1)])
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING):
        study.add_trial(
            optuna.create_trial(
                state=state, params={"a": 2}, distributions={"a": SPACE["a"]}, intermediate_values={1: 9.0}
            )
        )
    sampler = MCTSSampler(selection=selection)
    assert sampler.expect(study).keys() == {0, 1}
    assert sampler.recommend(study).number == 0


def test_what_was_expected_is_a_reward_between_the_worst_and_the_best(selection: str) -> None:
    study = study_of(repeated())
    expected = MCTSSampler(selection=selection).expect(study)
    assert list(expected) == list(range(18))
    assert all(-0.1 < reward < 1.1 for reward in expected.values())


def test_a_study_without_a_complete_trial_is_refused(selection: str) -> None:
    study = study_of([])
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))
    for use in (MCTSSampler(selection=selection).recommend, MCTSSampler(selection=selection).expect):
        with pytest.raises(ValueError, match="no complete trial yet; run some first"):
            use(study)


def test_a_study_of_one_trial_and_one_without_parameters(selection: str) -> None:
    assert MCTSSampler(selection=selection).recommend(study_of([({"a": 1}, 3.0)])).number == 0
    assert MCTSSampler(selection=selection).recommend(study_of([({}, 1.0), ({}, 2.0)])).number == 1


def test_any_sampler_may_have_made_the_trials_and_what_is_returned_is_a_copy(selection: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=15)
    best = MCTSSampler(selection=selection).recommend(study)
    assert best.value > 0.9
    best.params["x"] = 7.0
    assert study.trials[best.number].params["x"] <= 1


def test_another_study_of_the_same_name_and_size_is_judged_by_its_own_trials(selection: str) -> None:
    sampler, storage = MCTSSampler(selection=selection), optuna.storages.InMemoryStorage()
    for best in (0, 2):
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
        for a in range(3):
            study.add_trial(optuna.create_trial(value=-abs(a - best), params={"a": a}, distributions={"a": SPACE["a"]}))
        assert sampler.recommend(study).params["a"] == best
        optuna.delete_study(study_name="s", storage=storage)
