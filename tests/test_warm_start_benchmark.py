"""The benchmark of warm starts: its related tasks are what it says, and its claims follow from its records."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
warm = importlib.import_module("warm_start")
landscapes = importlib.import_module("landscapes")

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def draws(task: Any, count: int = 400) -> list[float]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [task.score(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("correlation", [1.0, 0.7, 0.0])
def test_a_related_task_correlates_by_so_much_but_for_chance(correlation: float) -> None:
    task = warm.Related("A", 0, correlation)
    same, other, related = draws(task.same), draws(task.other), draws(task)
    by_chance = np.corrcoef(same, other)[0, 1]
    assert 0.1 < abs(by_chance) < 0.4  # few options make much of a landscape, so two of them are never unrelated
    own = np.sqrt(1 - correlation**2)
    expected = (correlation + own * by_chance) / np.sqrt(1 + 2 * correlation * own * by_chance)
    assert np.corrcoef(same, related)[0, 1] == pytest.approx(expected, abs=0.05)


def test_its_noise_is_its_own() -> None:
    task, land, study = warm.Related("A", 0, 1.0), warm.landscape_of("A", 0), optuna.create_study()
    noise = [task.observe(study.ask(), number) for number in range(3)]
    again = [task.observe(study.ask(), number) for number in range(3)]
    assert len(set(noise)) == len(set(again)) == 3
    trial = study.ask()
    assert task.score(trial) == pytest.approx(land.score(trial))
    assert task.observe(trial, 7) == task.observe(trial, 7) != land.observe(trial, 7)


def test_what_is_handed_on_comes_first() -> None:
    task = warm.Related("A", 0, 1.0)
    first = warm.hand_on(warm.landscape_of("A", 0), trials=8, count=3)
    assert len(first) == 3
    study = warm.new_study(task.number, first)
    for expected in first:
        trial = study.ask()
        task.observe(trial, trial.number)
        assert trial.params == expected
        study.tell(trial, 0.0)
    assert len(warm.search(task, first, checkpoints=(2, 4))) == 2


def records(cold: list[float], lead: list[float]) -> dict[str, dict[int, list[float]]]:
    colds = {number: [value + number for value in cold] for number in range(3)}
    return {"cold": colds, "warm": {n: [c + w for c, w in zip(run, lead, strict=True)] for n, run in colds.items()}}


def test_leads_and_claims_by_hand() -> None:
    # At 5, 10, 20, 25, 45 and 50 trials.
    found = warm.summarise(records([0, 1, 2, 3, 4, 5], [0, 4, 0, 1, 0, 0.5]))
    assert [value["mean"] for value in found["warm_minus_cold"].values()] == [4, 1, 0.5]
    spent = found["warm_minus_cold_without_what_it_spent"]
    assert {trials: value["mean"] for trials, value in spent.items()} == {"10": 5, "25": 2, "50": 1.5}
    assert found["warm_at_10_minus_cold_at_50"]["mean"] == 0  # 1 + 4 against 5
    made = warm.claims({"A": {"0.9": found}, "C": {"0.9": found}}, {"0.0": found})
    assert len(made) == 3 + 3 + 3
    assert all(claim["met"] for claim in made)
    worse = warm.summarise(records([0, 1, 2, 3, 4, 5], [0, -2, 0, -2, 0, -2]))
    assert not any(claim["met"] for claim in warm.claims({"A": {"0.9": worse}}, {"0.0": worse}))


def test_repeats_of_one_earlier_search_are_averaged() -> None:
    assert warm.by_search({0: [1.0, 2.0], 1: [3.0, 4.0], 2: [5.0, 6.0], 3: [5.0, 8.0]}, 2) == {0: [2, 3], 1: [5, 7]}


def test_the_real_recipes_are_those_of_the_table() -> None:
    table = landscapes.RecipeTable(0)
    params = {name: options[0] for name, options in table.factors.items()}
    numbers = {**params, "feature_weight": int(params["feature_weight"]), "temperature": int(params["temperature"])}
    assert warm.as_options(table, [numbers]) == [params]
