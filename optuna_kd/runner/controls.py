"""Controls: labels only, plain KD and the grid of tuned KD, scored by the same proxy as the recipes."""

from __future__ import annotations

from dataclasses import replace

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study

from optuna_kd.pruners import record_control_gaps
from optuna_kd.recipe import Recipe, StudentConfig
from optuna_kd.runner.jobs import run_proxy
from optuna_kd.runner.ledger import Ledger
from optuna_kd.runner.run import Run
from optuna_kd.runner.workers import Job
from optuna_kd.search_space import UniADSSpace
from optuna_kd.search_space.auto_kd import LOGIT_WEIGHTS, TEMPERATURES_PAPER, AutoKDSpace
from optuna_kd.seeds import derive_seed
from optuna_kd.study import space_of

LABELS_ONLY = Recipe()
PLAIN_KD = Recipe.from_string("kl@4*1")


def kd_grid(study: Study, student: StudentConfig | None = None) -> dict[Recipe, dict[str, float]]:
    """Give the points of tuned KD: the logit weights times the temperatures that the searched space has.

    Args:
        study: The searched study.
        student: Which student, where the search chose it.
    """
    space = space_of(study)
    temperatures = space.temperatures if isinstance(space, AutoKDSpace | UniADSSpace) else TEMPERATURES_PAPER
    return {
        replace(Recipe.from_string(f"kl@{temperature:g}*{weight:g}"), student=student): {
            "temperature": temperature,
            "logit_weight": weight,
        }
        for temperature in temperatures
        for weight in LOGIT_WEIGHTS
    }


def control_recipes(study: Study, student: StudentConfig | None = None) -> list[Recipe]:
    """Labels only, plain KD (the pruner needs its representation gaps), then the rest of the grid."""
    first = [replace(recipe, student=student) for recipe in (LABELS_ONLY, PLAIN_KD)]
    return list(dict.fromkeys([*first, *kd_grid(study, student)]))


def run_controls(run: Run, ledger: Ledger, student: StudentConfig | None = None) -> None:
    """Score the controls that are not in the ledger yet, and tell the pruner how the gap of plain KD closes."""
    grid = kd_grid(run.study, student)
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(sorted({point[name] for point in grid.values()}))
        for name in ("temperature", "logit_weight")
    }
    recipes = {str(recipe): recipe for recipe in control_recipes(run.study, student)}
    missing = {key: recipe for key, recipe in recipes.items() if ledger.get(key) is None}
    run.say.phase("Controls", len(recipes), len(recipes) - len(missing))
    jobs = (Job(key, run_proxy, (recipe, derive_seed(run.seed, "control", key))) for key, recipe in missing.items())
    for key, found in run.results(jobs):
        point = grid.get(recipes[key])
        ledger.put(key, found["reward"], found, params=point, distributions=space if point else None)
        run.advance(run.proxy_cost, f"{key}  reward {found['reward']:.4f}")
    plain = ledger.get(str(replace(PLAIN_KD, student=student))) or {}
    record_control_gaps(run.study, {int(rung): gap for rung, gap in plain.get("gaps", {}).items()})


def best_of_grid(study: Study, ledger: Ledger, count: int, student: StudentConfig | None = None) -> list[Recipe]:
    """Give the best points of the grid by their proxy, best first."""

    def reward(recipe: Recipe) -> float:
        return float((ledger.get(str(recipe)) or {"reward": float("-inf")})["reward"])

    return sorted(kd_grid(study, student), key=reward, reverse=True)[:count]
