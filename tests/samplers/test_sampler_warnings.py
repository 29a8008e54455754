"""Warnings: what a user should know is said once, with its way out, and nothing is said of sound studies."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import optuna_kd.samplers
from optuna_kd.samplers import MCTSSampler, SamplerWarning

pytestmark = pytest.mark.usefixtures("quiet_optuna")
Objective = Callable[[optuna.Trial], float]


def heard(study: optuna.Study, objective: Objective, trials: int) -> list[str]:
    """Run trials; returns the sampler's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study.optimize(objective, n_trials=trials)
    return [str(warning.message) for warning in caught if issubclass(warning.category, SamplerWarning)]


def make_study(selection: str) -> optuna.Study:
    return optuna.create_study(
        study_name="mine", direction="maximize", sampler=MCTSSampler(seed=0, selection=selection)
    )


def diverging(trial: optuna.Trial) -> float:
    return math.nan * trial.suggest_float("x", 0, 1)


def infinite(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    return x if trial.number % 2 else math.inf


def changing(trial: optuna.Trial) -> float:
    value = float(trial.suggest_categorical("a", [0, 1]))
    return value + trial.suggest_int("late" if trial.number >= 6 else "early", 0, 3)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (diverging, ["All 4 finished trials", "'mine'", "failed", "until one succeeds"]),
        (infinite, ["Trial 0", "'mine'", "infinite", "does not stretch the scale"]),
        (
            changing,
            ["'mine'", "space", "trial 6", "'late' after 'a'", "the range 0 to 3", "earlier trials asked for 'early'"],
        ),
    ],
    ids=["failures", "infinity", "space"],
)
def test_each_trouble_is_told_once_with_what_it_means(selection: str, objective: Objective, words: list[str]) -> None:
    study = make_study(selection)
    messages = heard(study, objective, 12)
    assert len(messages) == 1
    assert all(word in messages[0] for word in words)
    assert heard(study, objective, 3) == []
    assert len(study.trials) == 15


@pytest.mark.parametrize("objective", [diverging, infinite, changing])
def test_the_filter_that_a_warning_names_silences_it(selection: str, objective: Objective) -> None:
    (message,) = heard(make_study(selection), objective, 12)
    named = message.split("Silence: ")[1].removesuffix(".")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        eval(named, {"warnings": warnings, "optuna_kd": optuna_kd})
        make_study(selection).optimize(objective, n_trials=12)
    assert not [warning for warning in caught if issubclass(warning.category, SamplerWarning)]


def test_the_warning_is_a_user_warning_so_that_it_is_shown_by_default() -> None:
    assert issubclass(SamplerWarning, UserWarning)


def test_three_failures_are_no_news_and_neither_are_many_beside_a_success(selection: str) -> None:
    assert heard(make_study(selection), diverging, 4) == []  # the fourth has not failed when it is asked for

    def mostly(trial: optuna.Trial) -> float:
        return math.nan * trial.suggest_float("x", 0, 1) if trial.number else 1.0 * trial.suggest_float("x", 0, 1)

    assert heard(make_study(selection), mostly, 12) == []


def test_after_failures_alone_something_else_is_suggested(selection: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("a", range(5))
        trial.suggest_categorical("b", range(4))
        return math.nan

    study = make_study(selection)
    heard(study, objective, 16)
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 16


def test_a_changed_space_is_told_whether_a_range_or_the_first_parameter_changed(selection: str) -> None:
    def narrowed(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1 if trial.number < 5 else 2)

    (message,) = heard(make_study(selection), narrowed, 8)
    assert "asks for 'x' first, with the range 0 to 2, where earlier trials asked for 'x'" in message

    def replaced(trial: optuna.Trial) -> float:
        if trial.number < 5:
            return trial.suggest_float("old", 0, 1)
        return float(trial.suggest_categorical("new", [1, 2, 3]))

    (message,) = heard(make_study(selection), replaced, 8)
    assert "asks for 'new' first, with 3 choices, where earlier trials asked for 'old'" in message


def test_asking_for_more_where_trials_ended_is_a_change_too(selection: str) -> None:
    def longer(trial: optuna.Trial) -> float:
        value = float(trial.suggest_categorical("a", [0, 1]))
        return value + trial.suggest_float("more", 0, 1) if trial.number >= 6 else value

    (message,) = heard(make_study(selection), longer, 8)
    assert "asks for 'more' after 'a'" in message
    assert "where earlier trials asked for nothing" in message


# Sound studies.


def conditional(trial: optuna.Trial) -> float:
    gate = trial.suggest_categorical("gate", [0, 1, 2])
    if gate == 1:
        gate += trial.suggest_float("x", 0, 1)
    if gate == 2:
        gate += trial.suggest_int("n", 0, 3)
    return gate + trial.suggest_float("last", 0, 1)


def loops(trial: optuna.Trial) -> float:
    layers = trial.suggest_int("layers", 1, 4)
    return float(sum(trial.suggest_int(f"units_{layer}", 8, 64, step=8) for layer in range(layers)))


def dependent_range(trial: optuna.Trial) -> float:
    high = trial.suggest_int("high", 1, 8)
    return float(trial.suggest_int("value", 0, high)) + trial.suggest_float("x", 0, high)


def threshold(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0, 1)
    return x + trial.suggest_float("above", 0, 1) if x > 0.6 else x


def pruned_midway(trial: optuna.Trial) -> float:
    a = trial.suggest_categorical("a", [0, 1])
    if trial.number % 3 == 0:
        raise optuna.TrialPruned
    if trial.number % 3 == 1:
        trial.suggest_float("b", 0, 1)
        return math.nan
    return a + trial.suggest_float("b", 0, 1) + trial.suggest_int("c", 0, 3)


@pytest.mark.parametrize("objective", [conditional, loops, dependent_range, threshold, pruned_midway])
def test_a_space_that_depends_on_its_own_choices_is_no_trouble(selection: str, objective: Objective) -> None:
    study = make_study(selection)
    study.enqueue_trial({"gate": 1, "a": 1, "layers": 2, "last": 0.3})
    assert heard(study, objective, 20) == []


def test_workers_are_no_trouble(selection: str) -> None:
    study = make_study(selection)

    def run(trials: int) -> None:
        study.optimize(conditional, n_trials=trials, n_jobs=2)

    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplerWarning)
        run(20)
        study.ask()  # and never told
        run(10)


# Once for each study.


def test_each_study_has_its_own_warnings() -> None:
    sampler = MCTSSampler(seed=0)
    for name in ("one", "two"):
        study = optuna.create_study(study_name=name, sampler=sampler)
        (message,) = heard(study, infinite, 5)
        assert repr(name) in message


def test_a_sampler_that_was_stored_and_loaded_tells_it_again() -> None:
    study = make_study("surrogate")
    assert len(heard(study, infinite, 5)) == 1
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    assert len(heard(study, infinite, 5)) == 1


def test_looking_at_a_study_warns_of_nothing() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(infinite, n_trials=6)
    sampler: Any = MCTSSampler()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SamplerWarning)
        sampler.recommend(study), sampler.expect(study), sampler.tree(study)
