"""MCTSSampler with its surrogate beside others: enqueued and fixed values, another sampler's trials, workers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from optuna_kd.samplers import MCTSSampler

Objective = Callable[[optuna.Trial], float]

pytestmark = pytest.mark.usefixtures("quiet_optuna")
without_warning = pytest.mark.filterwarnings("error::RuntimeWarning", "error::optuna_kd.samplers.SamplerWarning")


def make_study(direction: str = "maximize", seed: int = 0, selection: str = "surrogate") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=MCTSSampler(seed=seed, selection=selection))


def recipe(trial: optuna.Trial) -> float:
    """A recipe with two gates, options that add up, and a number with one best place; 1.5 at most."""
    value = 0.0
    if trial.suggest_categorical("relation", [True, False]):
        distances = {"kl": 0.4, "l2": 0.1, "cosine": 0.25, "l1": 0.0}
        value += distances[trial.suggest_categorical("distance", list(distances))]
        value -= 0.2 * abs(math.log10(trial.suggest_float("weight", 1e-2, 1e2, log=True)) - 0.5)
    value += {"a": 0.0, "b": 0.2, "c": 0.4}[trial.suggest_categorical("transform", ["a", "b", "c"])]
    if trial.suggest_categorical("mixup", [True, False]):
        value += 0.1 + 0.3 * (trial.suggest_int("layers", 1, 4) == 3)
    return value + 0.3 * (trial.suggest_categorical("schedule", ["x", "y", "z"]) == "y")


# What others decide.


def matching(trial: optuna.Trial) -> float:
    """What one parameter is worth depends on two that come after it."""
    a = trial.suggest_categorical("a", ["x", "y", "z"])
    n = trial.suggest_int("n", 0, 100)
    b = trial.suggest_categorical("b", ["x", "y", "z"])
    return float(a == b) - abs(n - {"x": 20, "y": 50, "z": 80}[b]) / 200


@pytest.fixture(scope="module")
def matched() -> list[optuna.trial.FrozenTrial]:
    """Trials that show how the parameters of `matching` depend on each other."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(matching, n_trials=40)
    return study.trials


def continued(trials: list[optuna.trial.FrozenTrial], seed: int = 0) -> optuna.Study:
    study = make_study(seed=seed)
    study.add_trials(trials)
    return study


@without_warning
@pytest.mark.parametrize("choice", ["x", "y", "z"])
def test_the_rest_of_an_enqueued_trial_is_planned_around_its_values(
    matched: list[optuna.trial.FrozenTrial], choice: str
) -> None:
    for seed in range(3):
        study = continued(matched, seed)
        study.enqueue_trial({"b": choice})
        study.enqueue_trial({"b": choice, "n": 99})
        study.optimize(matching, n_trials=2)
        first, second = study.trials[-2:]
        assert (first.params["a"], first.params["b"]) == (choice, choice)
        assert abs(first.params["n"] - {"x": 20, "y": 50, "z": 80}[choice]) < 20
        assert (second.params["b"], second.params["n"]) == (choice, 99)


@without_warning
def test_an_enqueued_trial_may_fix_the_beginning_or_everything_or_what_never_comes(
    matched: list[optuna.trial.FrozenTrial],
) -> None:
    study = continued(matched)
    queue: list[dict[str, Any]] = [
        {"a": "z"},
        {"a": "x", "n": 3, "b": "y"},
        {"unheard": 5},
        {"a": "y", "unheard": None},
    ]
    for params in queue:
        study.enqueue_trial(params)
    study.optimize(matching, n_trials=4)
    for trial, params in zip(study.trials[-4:], queue, strict=True):
        assert {name: trial.params[name] for name in params if name in trial.params}.items() <= params.items()
        assert trial.params.keys() == {"a", "n", "b"}
    assert study.trials[-4].params["b"] == "z"


@pytest.mark.filterwarnings("ignore:Fixed parameter:UserWarning")
def test_an_enqueued_value_from_outside_its_range_is_kept(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    study.enqueue_trial({"n": 500})
    study.optimize(matching, n_trials=3)
    assert study.trials[-3].params["n"] == 500


@pytest.mark.parametrize("fixed", [{"a": "z"}, {"b": "y"}, {"n": 50}])
def test_a_partially_fixed_sampler_around_it_decides_its_part(
    matched: list[optuna.trial.FrozenTrial], fixed: dict[str, Any]
) -> None:
    study = continued(matched)
    study.sampler = optuna.samplers.PartialFixedSampler(fixed, study.sampler)
    study.optimize(matching, n_trials=8)
    assert all(fixed.items() <= trial.params.items() for trial in study.trials[-8:])
    if "a" in fixed:
        assert max(trial.value for trial in study.trials[-8:]) > 0.9


def test_what_a_sampler_around_it_fixes_at_the_end_is_reckoned_with(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    study.sampler = optuna.samplers.PartialFixedSampler({"b": "y"}, study.sampler)
    study.optimize(matching, n_trials=12)
    assert len({tuple(trial.params.items()) for trial in study.trials[-12:]}) == 12
    assert max(trial.value for trial in study.trials[-12:]) > 0.9


@pytest.mark.parametrize(
    "other", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)], ids=["random", "tpe"]
)
def test_a_study_that_another_sampler_began_goes_on(other: optuna.samplers.BaseSampler) -> None:
    study = optuna.create_study(direction="maximize", sampler=other)
    study.optimize(recipe, n_trials=25)
    study.sampler = MCTSSampler(seed=0)
    study.optimize(recipe, n_trials=15)
    assert study.best_value > 1.4


# Parallel workers.


def test_workers_take_the_good_places_one_each(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    asked = [study.ask(matched[0].distributions).params for _ in range(6)]
    assert {(params["a"], params["b"]) for params in asked[:3]} == {("x", "x"), ("y", "y"), ("z", "z")}
    assert len({tuple(params.items()) for params in asked}) == 6


def test_workers_with_half_a_trial_each_do_not_take_the_same_branch() -> None:
    space = {"a": CategoricalDistribution([0, 1, 2, 3]), "x": FloatDistribution(0, 1)}
    study = make_study()
    for a in range(4):
        for x in (0.2, 0.7):
            study.add_trial(optuna.create_trial(value=0.5 + 0.01 * x, params={"a": a, "x": x}, distributions=space))
    trials = [study.ask() for _ in range(4)]
    assert len({trial.suggest_categorical("a", [0, 1, 2, 3]) for trial in trials}) >= 3
