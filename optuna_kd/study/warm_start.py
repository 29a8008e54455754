"""Warm starts: the recipes that did best on the most similar tasks are the first trials of a new study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.cards import TaskFacts, distance, printable
from optuna_kd.recipe import Recipe, canonical
from optuna_kd.search_space import Space
from optuna_kd.study.warm_sources import Candidate

RECIPES_FIRST = 5  # that a study begins with
PLAN = "optuna_kd_warm_start"  # user attribute of a study: what it begins with, and where that is from
WARM_START = "warm_start"  # user attribute of a trial: where its recipe is from


def choose(
    candidates: Iterable[Candidate], facts: TaskFacts | None, space: Space, count: int = RECIPES_FIRST
) -> tuple[list[tuple[Candidate, dict[str, Any]]], list[Candidate]]:
    """Choose what to begin with: the best recipes of the nearest tasks that are in the space, no two of them alike.

    Args:
        candidates: In their order of preference; it decides where tasks are equally far, or nothing is known of them.
        facts: What the study is to be run on; None where nobody knows.
        space: Of the study.
        count: How many at most.

    Returns:
        The chosen ones with their parameters in this space, and those that are not in it.
    """
    chosen: list[tuple[Candidate, dict[str, Any]]] = []
    outside: list[Candidate] = []
    seen: set[Recipe] = set()
    for candidate in sorted(candidates, key=lambda each: (how_far(each, facts), each.rank)):
        if len(chosen) == count:
            break
        recipe = space.adopt(candidate.recipe)
        if canonical(recipe) in seen:
            continue
        seen.add(canonical(recipe))
        try:
            chosen.append((candidate, space.params(recipe)))
        except ValueError:
            outside.append(candidate)
    return chosen, outside


def how_far(candidate: Candidate, facts: TaskFacts | None) -> float:
    """Give the distance of the task that a recipe was found for; infinite where one of the two is not known."""
    return math.inf if facts is None or candidate.facts is None else distance(candidate.facts, facts)


def is_begun(study: Study) -> bool:
    """Whether a study has its first recipes, or has run a trial: then nothing more is put before them."""
    return PLAN in study.user_attrs or any(
        trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False)
    )


def queue(
    study: Study, candidates: Iterable[Candidate], facts: TaskFacts | None, space: Space, count: int = RECIPES_FIRST
) -> list[str]:
    """Put recipes before the trials of a study that is not begun, and say which.

    They are trials like others: they count, are pruned, and have the seeds of their numbers. Where a process is killed
    in the middle, `fill_queue` adds what is missing.
    """
    chosen, outside = choose(candidates, facts, space, count)
    plan = [
        {
            "from": candidate.origin,
            "distance": None if math.isinf(far := how_far(candidate, facts)) else round(far, 3),
            "recipe": space.adopt(candidate.recipe).to_dict(),
        }
        for candidate, _ in chosen
    ]
    study.set_user_attr(PLAN, plan)
    fill_queue(study, space)
    return _lines(plan, outside, space)


def fill_queue(study: Study, space: Space) -> None:
    """Queue what a study is to begin with and does not have yet, each recipe once."""
    plan = study.user_attrs.get(PLAN, [])
    if not plan:
        return
    trials = study.get_trials(deepcopy=False)
    there = {trial.user_attrs[WARM_START]["place"] for trial in trials if WARM_START in trial.user_attrs}
    for place, entry in enumerate(plan):
        if place not in there:
            about = {"from": entry["from"], "distance": entry["distance"], "place": place}
            study.enqueue_trial(space.params(Recipe.from_dict(entry["recipe"])), user_attrs={WARM_START: about})


def refit_queue(study: Study, space: Space) -> None:
    """Name the parameters of waiting recipes as a space has them that was cut to the task of its study.

    A recipe that is no longer in it leaves its place to the sampler.
    """
    plan = study.user_attrs.get(PLAN, [])
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)) if plan else ():
        if WARM_START not in trial.user_attrs:
            continue
        about = trial.user_attrs[WARM_START]
        try:
            params = space.params(Recipe.from_dict(plan[about["place"]]["recipe"]))
        except ValueError:
            params = {}
            about = {**about, "left_out": "it cannot teach on the maps of this task"}
        storage = study._storage
        storage.set_trial_system_attr(trial._trial_id, "fixed_params", params)  # where enqueue_trial keeps them
        storage.set_trial_user_attr(trial._trial_id, WARM_START, about)


def _lines(plan: Sequence[dict[str, Any]], outside: Sequence[Candidate], space: Space) -> list[str]:
    origins: dict[str, list[dict[str, Any]]] = {}
    for entry in plan:
        origins.setdefault(entry["from"], []).append(entry)
    lines = []
    for origin, entries in origins.items():
        far = entries[0]["distance"]
        where = "of unknown distance" if far is None else f"at distance {far:g}"
        lines.append(f"{len(entries)} recipe{'s' * (len(entries) > 1)} from {origin}, {where}")
    if not plan:
        lines.append("no recipe to begin with")
    if outside:
        shown = "; ".join(printable(str(candidate.recipe)) for candidate in outside[:2])
        more = f" and {len(outside) - 2} more" if len(outside) > 2 else ""
        lines.append(f"not in the space {space.name!r}, so left out: {shown}{more}")
    return lines
