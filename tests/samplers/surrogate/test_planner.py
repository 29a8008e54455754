"""The planner: the score of a path, and which path the search of one trial comes to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.integrate import quad
from scipy.stats import norm

from optuna_kd.samplers.domains import domain_of
from optuna_kd.samplers.surrogate.belief import Surrogate
from optuna_kd.samplers.surrogate.planner import log_augmented_improvement, search
from optuna_kd.samplers.surrogate.structure import Successor
from optuna_kd.samplers.tree import path_of
from optuna_kd.samplers.view import StudyView

ViewOf = Callable[..., StudyView]
Space = dict[str, BaseDistribution]

SMALL: Space = {
    "a": CategoricalDistribution(["x", "y", "z"]),
    "b": IntDistribution(0, 3),
    "c": CategoricalDistribution([True, False]),
}


# The score.


@pytest.mark.parametrize("noise", [1e-6, 0.3])
@pytest.mark.parametrize(("mean", "deviation"), [(0.2, 1.0), (2.0, 0.3), (-1.5, 0.5), (-3.0, 0.8), (1.0, 1e-3)])
def test_the_score_is_the_integral_of_the_improvement_times_the_loss_to_noise(
    mean: float, deviation: float, noise: float
) -> None:
    best = 1.0

    def gain(f: float) -> float:
        return (f - best) * float(norm.pdf(f, mean, deviation))

    improvement, _ = quad(gain, best, max(mean, best) + 12 * deviation, epsabs=0, epsrel=1e-10, limit=200)
    expected = improvement * (1 - math.sqrt(noise / (noise + deviation**2)))
    found = log_augmented_improvement(np.array([mean]), np.array([deviation]), best, noise)
    np.testing.assert_allclose(found, math.log(expected), rtol=1e-6)


def test_the_score_stays_finite_and_falls_far_below_the_best() -> None:
    z = np.array([-1e3, -300, -100, -30, -12, -9, -5, -1, 0, 3, 40.0])
    with np.errstate(all="raise", under="ignore"):
        scores = log_augmented_improvement(z, np.ones(len(z)), 0.0, 0.1)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_the_score_far_below_the_best_joins_the_exact_one() -> None:
    just_above, just_below = log_augmented_improvement(np.array([-9.9999, -10.0001]), np.ones(2), 0.0, 0.1)
    assert just_above - just_below == pytest.approx(0.0, abs=0.05)


def test_what_is_nearly_known_is_worth_less_the_more_noise_there_is() -> None:
    deviations = np.array([0.05, 0.5])
    scores = [log_augmented_improvement(np.zeros(2), deviations, 0.0, noise) for noise in (1e-4, 0.1, 1.0)]
    losses = np.array([scores[0] - scores[1], scores[1] - scores[2]])
    assert (losses > 0).all()
    assert (losses[:, 0] > losses[:, 1]).all()


# The search.


def study_of(rewards: dict[tuple[Any, ...], float], space: Space = SMALL) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for values, reward in rewards.items():
        params = dict(zip(space, values, strict=True))
        study.add_trial(optuna.create_trial(value=reward, params=params, distributions=space))
    return study


def plan(
    view: StudyView,
    space: Space = SMALL,
    fixed: dict[str, Any] | None = None,
    pinned: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Search for the rest of a trial that has `fixed` already; returns all its parameters."""
    fixed, slots = fixed or {}, view.log.slots
    name = next(name for name in space if name not in fixed)
    path = path_of(optuna.create_trial(value=0.0, params=fixed, distributions={n: space[n] for n in fixed}))
    first = Successor(slots.columns[name], domain_of(space[name]))
    positions = {}
    for other, value in (pinned or {}).items():
        domain = domain_of(space[other])
        positions[slots.columns[other]] = domain.position(domain.coordinate(space[other].to_internal_repr(value)))
    belief = Surrogate().believe(view.log, view.evidence)
    tried = view.log.paths().keys
    found = search(belief, view.structure, path, first, positions, tried, np.random.default_rng(seed))
    assert len(found) == 1
    values = dict(zip(slots.columns, found.positions[0].tolist(), strict=True))
    return {
        name: space[name].to_external_repr(domain_of(space[name]).internal(position))
        for name, position in values.items()
        if not math.isnan(position)
    }


def everything(space: Space) -> list[tuple[Any, ...]]:
    options = [
        list(d.choices) if isinstance(d, CategoricalDistribution) else list(range(d.low, d.high + 1))  # type: ignore[attr-defined]
        for d in space.values()
    ]
    return list(itertools.product(*options))


@pytest.mark.parametrize("seed", range(4))
def test_no_recipe_is_repeated_while_another_is_left_and_the_last_one_is_found(view_of: ViewOf, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recipes = everything(SMALL)
    rng.shuffle(recipes)  # type: ignore[arg-type]
    for left in (1, 2, 6):
        view = view_of(study_of({recipe: float(rng.normal()) for recipe in recipes[left:]}))
        assert tuple(plan(view, seed=seed).values()) in recipes[:left]


def test_when_everything_is_tried_the_most_valuable_recipe_is_repeated(view_of: ViewOf) -> None:
    rewards = {(a, b, c): ("xyz".index(a) + (b == 2)) / 3 + 0.1 * c for a, b, c in everything(SMALL)}
    view = view_of(study_of(rewards))
    assert {tuple(plan(view, seed=seed).values()) for seed in range(5)} == {("z", 2, True)}


def test_the_best_recipe_left_is_found_among_those_that_share_its_parts(view_of: ViewOf) -> None:
    rewards = {(a, b, c): ("xyz".index(a) + (b == 2)) / 3 + 0.1 * c for a, b, c in everything(SMALL)}
    del rewards["z", 2, True]
    for other in [("x", 1, False), ("y", 0, False), ("x", 3, True)]:
        del rewards[other]
    view = view_of(study_of(rewards))
    assert all(tuple(plan(view, seed=seed).values()) == ("z", 2, True) for seed in range(5))


MIXED: Space = {
    "a": CategoricalDistribution(["x", "y", "z"]),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "n": IntDistribution(0, 100),
    "b": CategoricalDistribution(["x", "y", "z"]),
}


def alike(params: dict[str, Any]) -> float:
    """High where a and b are the same choice; the numbers have one best place each."""
    distance = abs(math.log10(params["rate"]) + 2) / 4 + abs(params["n"] - 30) / 100
    return float(params["a"] == params["b"]) - distance


@pytest.fixture(scope="module")
def mixed(view_of: ViewOf) -> StudyView:
    study = optuna.create_study(direction="maximize")
    sampler = optuna.samplers.RandomSampler(seed=0)
    source = optuna.create_study(sampler=sampler)
    for _ in range(50):
        params = source.ask(MIXED).params
        study.add_trial(optuna.create_trial(value=alike(params), params=params, distributions=MIXED))
    return view_of(study)


@pytest.mark.parametrize("choice", ["x", "y", "z"])
def test_what_is_decided_already_is_kept_and_the_rest_is_planned_for_it(mixed: StudyView, choice: str) -> None:
    for seed in range(3):
        found = plan(mixed, MIXED, pinned={"b": choice, "n": 90}, seed=seed)
        assert (found["a"], found["b"], found["n"]) == (choice, choice, 90)


@pytest.mark.parametrize("choice", ["x", "y", "z"])
def test_the_beginning_is_kept_and_the_rest_is_planned_for_it(mixed: StudyView, choice: str) -> None:
    for seed in range(3):
        found = plan(mixed, MIXED, fixed={"a": choice, "rate": 0.5}, seed=seed)
        assert (found["a"], found["b"], found["rate"]) == (choice, choice, pytest.approx(0.5))


def test_the_search_beats_the_best_of_what_it_knows(mixed: StudyView) -> None:
    found = [alike(plan(mixed, MIXED, seed=seed)) for seed in range(5)]
    assert np.mean(found) > 0.85  # of 1; a uniform draw earns -0.2
    assert len(set(found)) > 1


def test_a_parameter_with_one_value_does_not_stop_the_search(view_of: ViewOf) -> None:
    space: Space = {
        "only": IntDistribution(3, 3),
        "a": CategoricalDistribution([0, 1]),
        "one": CategoricalDistribution([7]),
    }
    view = view_of(study_of({(3, 0, 7): 0.0}, space))
    assert plan(view, space) == {"only": 3, "a": 1, "one": 7}
