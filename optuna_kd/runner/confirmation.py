"""Confirmation: the best recipes are scored again with new seeds, because the best of many is partly luck."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from optuna_kd.recipe import Recipe
from optuna_kd.runner.jobs import run_proxy
from optuna_kd.runner.ledger import SEED_SPACE, Ledger
from optuna_kd.runner.run import Run
from optuna_kd.runner.workers import Job
from optuna_kd.seeds import derive_seed


def confirm(run: Run, ledger: Ledger, groups: Sequence[Sequence[Recipe]], seeds: int) -> list[Recipe]:
    """Give, for each group of recipes, the one with the best mean reward over `seeds` new proxies.

    The proxies are unpruned, and all recipes share the same seeds. The rewards that brought a recipe into
    its group do not count: they were chosen for being high.

    Args:
        run: The run.
        ledger: Where the proxies are kept.
        groups: Candidates, best first; with one candidate or without seeds the first is taken.
        seeds: New seeds of each.
    """
    jobs = {
        f"{recipe.digest}/{index}": Job(
            f"{recipe.digest}/{index}", run_proxy, (recipe, derive_seed(run.seed, "confirm", index))
        )
        for group in groups
        for recipe in group
        for index in range(seeds)
    }
    missing = [job for key, job in jobs.items() if ledger.get(key) is None]
    if jobs:
        run.say.phase("Confirmation", len(jobs), len(jobs) - len(missing))
    for key, found in run.results(missing):
        ledger.put(key, found["reward"], found, params={"seed": int(key.rpartition("/")[2])}, distributions=SEED_SPACE)
        run.advance(run.proxy_cost)

    def mean(recipe: Recipe) -> float:
        records = [ledger.get(f"{recipe.digest}/{index}") for index in range(seeds)]
        return fmean(record["reward"] for record in records if record is not None)

    return [max(group, key=mean) if seeds else group[0] for group in groups]
