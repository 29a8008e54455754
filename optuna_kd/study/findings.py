"""What to read from a finished study: its best recipe, its front."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.goals import GOALS
from optuna_kd.pareto import by_knee
from optuna_kd.recipe import Recipe, canonical
from optuna_kd.samplers import MCTSSampler
from optuna_kd.scales import on_scale
from optuna_kd.storages import count_trials
from optuna_kd.study.settings import recipe_of, space_of

CONFIRMED = "confirmed_recipe"  # user attribute of a study: the recipe that won the confirmation


class NothingFoundError(ValueError):
    """No trial of a study has come to an end that counts."""


def count_finished(study: Study) -> int:
    """Count the trials that count: complete and pruned ones."""
    counts = count_trials(study)
    return counts[TrialState.COMPLETE] + counts[TrialState.PRUNED]


def count_complete(study: Study) -> int:
    """Count the trials that ran to the end."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def best_recipe(study: Study) -> Recipe:
    """Give the recipe to use: the winner of the confirmation of these trials, else the first of `top_recipes`.

    Of a study with several objectives it is the knee of the `front`, with its student.

    Raises:
        NothingFoundError: If no trial is complete.
    """
    confirmed = study.user_attrs.get(CONFIRMED)
    if confirmed is not None and confirmed["complete_trials"] == count_complete(study):
        return Recipe.from_dict(confirmed["recipe"])
    if len(study.directions) > 1:
        return recipe_of(study, front(study)[0])
    return top_recipes(study, 1)[0]


def record_confirmed(study: Study, recipe: Recipe) -> None:
    """Store the recipe that won a confirmation; it holds until another trial is complete."""
    study.set_user_attr(CONFIRMED, {"recipe": recipe.to_dict(), "complete_trials": count_complete(study)})


def front(study: Study) -> list[FrozenTrial]:
    """Give the trials of the Pareto front, the knee first: complete, feasible, none better in every objective.

    The knee is the trial nearest to the ideal point (`optuna_kd.pareto.by_knee`), with parameters, FLOPs and latency
    on a logarithmic scale. Equal recipes appear once.

    Raises:
        NothingFoundError: If no trial is complete and feasible.
    """
    space = space_of(study)
    found: dict[Recipe, FrozenTrial] = {}
    for trial in study.best_trials:
        if all(math.isfinite(value) for value in trial.values):
            found.setdefault(canonical(space.recipe(trial.params)), trial)
    if not found:
        raise NothingFoundError(f"The study {study.study_name!r} has no complete, feasible trial yet; run some first.")
    trials = list(found.values())
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in study.directions]
    names = study.metric_names or [""] * len(signs)
    logarithmic = [name in GOALS and GOALS[name].logarithmic for name in names]
    points = [np.multiply(signs, on_scale(trial.values, logarithmic)) for trial in trials]
    return [trials[row] for row in by_knee(points)]


def top_recipes(study: Study, count: int) -> list[Recipe]:
    """Give the best distinct recipes, best first.

    With `MCTSSampler` by expected reward (`MCTSSampler.expect`): what all trials together say about a recipe,
    not how lucky its own were. With other samplers by the mean value of a recipe's trials.

    Raises:
        NothingFoundError: If no trial is complete.
    """
    space = space_of(study)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        raise NothingFoundError(f"The study {study.study_name!r} has no complete trial yet; run some first.")
    if isinstance(study.sampler, MCTSSampler):
        worth = study.sampler.expect(study)
    else:
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        worth = {trial.number: sign * _value(trial) for trial in trials}
    repeats: dict[Recipe, list[float]] = defaultdict(list)
    for trial in trials:
        repeats[canonical(space.recipe(trial.params))].append(worth[trial.number])
    return sorted(repeats, key=lambda recipe: -fmean(repeats[recipe]))[:count]


def good_recipes(study: Study, count: int) -> list[Recipe]:
    """Give the recipes that a study would hand on, best first; none where no trial is complete and feasible.

    First that of `best_recipe`; then those of `top_recipes`, or of a study with several objectives the `front`.
    """
    try:
        if len(study.directions) > 1:
            found = [recipe_of(study, trial) for trial in front(study)]
        else:
            found = [best_recipe(study), *top_recipes(study, count)]
    except NothingFoundError:
        return []
    distinct = {canonical(recipe): recipe for recipe in reversed(found)}
    return sorted(distinct.values(), key=found.index)[:count]


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
