"""Controls: labels only, plain KD and the grid of tuned KD, scored by the same proxy as the recipes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from optuna_kd.pruners import record_control_gaps
from optuna_kd.recipe import Recipe
from optuna_kd.runner.jobs import run_proxy
from optuna_kd.runner.ledger import Ledger
from optuna_kd.runner.run import Run
from optuna_kd.runner.workers import Job
from optuna_kd.search_space.auto_kd import LOGIT_WEIGHTS, TEMPERATURES_PAPER
from optuna_kd.seeds import derive_seed

LABELS_ONLY = Recipe()
PLAIN_KD = Recipe.from_string("kl@4*1")
KD_GRID = {
    Recipe.from_string(f"kl@{temperature:g}*{weight:g}"): {"temperature": temperature, "logit_weight": weight}
    for temperature in TEMPERATURES_PAPER
    for weight in LOGIT_WEIGHTS
}
GRID_SPACE: dict[str, BaseDistribution] = {
    "temperature": CategoricalDistribution(TEMPERATURES_PAPER),
    "logit_weight": CategoricalDistribution(LOGIT_WEIGHTS),
}


def control_recipes() -> Iterator[Recipe]:
    """Labels only, then the grid, plain KD first: the pruner needs its representation gaps."""
    yield LABELS_ONLY
    yield from sorted(KD_GRID, key=lambda recipe: recipe != PLAIN_KD)


def run_controls(run: Run, ledger: Ledger) -> None:
    """Score the controls that are not in the ledger yet, and tell the pruner how the gap of plain KD closes."""
    recipes = {str(recipe): recipe for recipe in control_recipes()}
    missing = {key: recipe for key, recipe in recipes.items() if ledger.get(key) is None}
    run.say.phase("Controls", len(recipes), len(recipes) - len(missing))
    jobs = (Job(key, run_proxy, (recipe, derive_seed(run.seed, "control", key))) for key, recipe in missing.items())
    for key, found in run.results(jobs):
        point: dict[str, Any] = KD_GRID.get(recipes[key], {})
        ledger.put(key, found["reward"], found, params=point, distributions=GRID_SPACE if point else None)
        run.advance(run.proxy_cost, f"{key}  reward {found['reward']:.4f}")
    plain = ledger.get(str(PLAIN_KD)) or {}
    record_control_gaps(run.study, {int(rung): gap for rung, gap in plain.get("gaps", {}).items()})


def best_of_grid(ledger: Ledger, count: int) -> list[Recipe]:
    """Give the best points of the grid by their proxy, best first."""

    def reward(recipe: Recipe) -> float:
        return float((ledger.get(str(recipe)) or {"reward": float("-inf")})["reward"])

    return sorted(KD_GRID, key=reward, reverse=True)[:count]
