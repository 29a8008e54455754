"""Studies: a method's preset turned into a plain `optuna.Study`, and what to read from a finished one."""

from __future__ import annotations

import json
import math
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_kd.goals import GOALS
from optuna_kd.pareto import by_knee
from optuna_kd.pruners import CKAPruner, ParetoHalvingPruner
from optuna_kd.recipe import Recipe, canonical
from optuna_kd.registry import Registry
from optuna_kd.samplers import MCTSSampler, UniADSSampler
from optuna_kd.scales import LOG_OBJECTIVES, on_scale
from optuna_kd.search_space import Space, create_space, space_from_dict
from optuna_kd.seeds import derive_seed
from optuna_kd.storages import DEFAULT_URL, create_storage, quietly

SETTINGS = "optuna_kd"  # user attribute of a study: method, space, seed
STUDY_ID = "optuna_kd_id"  # user attribute of a study: tells studies of the same name in two databases apart
TASK = "optuna_kd_task"  # user attribute of a study: what it was run on
CONFIRMED = "confirmed_recipe"  # user attribute of a study: the recipe that won the confirmation
FAILURES = 10  # in a row, after which `optimize` gives up
RECIPE = "recipe"  # user attribute of a trial: the recipe in one line, for people

SAMPLERS: Registry[Callable[[int], BaseSampler]] = Registry("sampler")
SAMPLERS.add("mcts", lambda seed: MCTSSampler(seed=seed))
SAMPLERS.add("uct", lambda seed: MCTSSampler(seed=seed, selection="uct"))
SAMPLERS.add("uniads", lambda seed: UniADSSampler(seed=seed))
ONE_REWARD = ("mcts", "uct")  # samplers that cannot take several objectives
SEEDED_PER_TRIAL = ("mcts", "uct", "uniads")  # the others have one random state, which a resumed study would repeat
SAMPLERS.add("random", lambda seed: RandomSampler(seed=_short(seed)))
SAMPLERS.add("tpe", lambda seed: TPESampler(seed=_short(seed)))
SAMPLERS.add("nsga2", lambda seed: NSGAIISampler(seed=_short(seed)))


class StudyMismatchError(ValueError):
    """A study was made with other settings than those asked for; the message names both."""


@dataclass(frozen=True)
class Method:
    """A search method: its default space and parts.

    Args:
        space, sampler, pruner: Its defaults.
        objectives: Names of what is minimised; empty for one reward, which is maximised.
    """

    space: str
    sampler: str
    pruner: Callable[[], BasePruner]
    objectives: tuple[str, ...] = ()


METHODS: Registry[Method] = Registry("method")
METHODS.add("auto-kd", Method("auto-kd", "mcts", CKAPruner))
METHODS.add("uniads", Method("uniads", "uniads", ParetoHalvingPruner, ("cross_entropy", "parameters")))


def create_study(
    method: str = "auto-kd",
    *,
    storage: str | BaseStorage | None = DEFAULT_URL,
    study_name: str | None = None,
    seed: int | None = None,
    space: str | Space | None = None,
    objectives: Sequence[str] | None = None,
    sampler: str | BaseSampler | None = None,
    pruner: BasePruner | None = None,
    load_if_exists: bool = False,
) -> Study:
    """Create a plain `optuna.Study` with the parts of a method.

    Args:
        method: "auto-kd" (a recipe for one student) or "uniads" (student and recipe together).
        storage: A database URL, an Optuna storage, or None for memory.
        study_name: As in Optuna; None invents one.
        seed: All randomness of the study derives from it; None draws one and stores it.
        space: A registered search space by name, or one; None is the method's.
        objectives: What is minimised, for "uniads": "cross_entropy" or "error", and any of "parameters", "flops",
            "latency_ms", "budget_gap"; None is ("cross_entropy", "parameters"). They become the metric names.
        sampler: "mcts", "uct", "uniads", "random", "tpe", "nsga2", or any Optuna sampler; None is the method's.
        pruner: Any Optuna pruner; None is the method's.
        load_if_exists: Go on with a study of this name. Its seed and space are kept.

    Raises:
        UnknownNameError: For an unknown method, space or sampler.
        ValueError: For objectives of a method that has one reward, and for less than two objectives.
        StudyMismatchError: If the study exists with another method, space, seed or objectives; both are named.
        StorageError: If the storage cannot be opened.
        optuna.exceptions.DuplicatedStudyError: If the study exists and `load_if_exists` is False.
    """
    preset = METHODS[method]
    wanted = create_space(space) if isinstance(space, str) else space
    goals = check_objectives(method, objectives)
    check_sampler(method, goals, sampler)
    directions = [StudyDirection.MINIMIZE] * len(goals) or [StudyDirection.MAXIMIZE]
    opened = create_storage(storage)
    study = optuna.create_study(
        storage=opened,
        study_name=study_name,
        directions=directions,
        pruner=pruner or preset.pruner(),
        load_if_exists=load_if_exists,
    )
    stored = study.user_attrs.get(SETTINGS)
    if stored is None:
        if study.get_trials(deepcopy=False) or study.directions != directions:
            raise StudyMismatchError(
                f"The study {study.study_name!r} was not made by optuna_kd: it has trials of its own, or another "
                "direction. Choose another study name."
            )
        stored = {
            "method": method,
            "space": (wanted or create_space(preset.space)).to_dict(),
            "seed": secrets.randbits(32) if seed is None else seed,
        }
        if goals:
            stored["objectives"] = list(goals)
            study.set_user_attr(LOG_OBJECTIVES, [place for place, name in enumerate(goals) if GOALS[name].logarithmic])
            with quietly():
                study.set_metric_names(list(goals))
        study.set_user_attr(SETTINGS, stored)
        study.set_user_attr(STUDY_ID, secrets.token_hex(8))
    else:
        asked: dict[str, Any] = {"method": method}
        if wanted is not None:
            # Dead cells are left out when the study meets its task; they do not make it another space.
            asked["space"] = {**wanted.to_dict(), "dead": stored["space"]["dead"]}
        if seed is not None:
            asked["seed"] = seed
        if objectives is not None:
            asked["objectives"] = list(goals)
        require_same(study, stored, asked)
    if not isinstance(sampler, BaseSampler):
        sampler = _sampler(sampler or preset.sampler, stored["seed"], study)
    study.sampler = sampler
    return study


def check_objectives(method: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Give the objectives of a method, or those asked for.

    Raises:
        ValueError: For objectives of a method that has one reward, for less than two different ones, and for costs
            alone.
        UnknownNameError: For an unknown method or objective.
    """
    preset = METHODS[method]
    if asked is None:
        return preset.objectives
    goals = tuple(name.strip() for name in ([asked] if isinstance(asked, str) else asked))
    if not preset.objectives:
        raise ValueError(f"The method {method!r} has one reward and no objectives to choose; got {list(goals)}.")
    if len(goals) < 2 or len(set(goals)) != len(goals):
        raise ValueError(f"The method {method!r} needs two different objectives or more; got {list(goals)}.")
    if "quality" not in [GOALS[name].kind for name in goals]:
        raise ValueError(f"One of the objectives has to be a quality, cross_entropy or error; got {list(goals)}.")
    return goals


def check_sampler(method: str, goals: Sequence[str], sampler: str | BaseSampler | None) -> None:
    """Refuse a sampler that cannot serve the objectives of a method.

    Raises:
        UnknownNameError: For an unknown one.
        ValueError: For a sampler of one reward where there are several objectives.
    """
    if isinstance(sampler, str):
        SAMPLERS[sampler]
    if goals and (sampler in ONE_REWARD or isinstance(sampler, MCTSSampler)):
        raise ValueError(
            f"MCTSSampler is for one reward; the method {method!r} has the objectives {list(goals)}. Samplers for "
            f"them: {', '.join(name for name in SAMPLERS if name not in ONE_REWARD)}."
        )


def load_study(
    study_name: str,
    *,
    storage: str | BaseStorage = DEFAULT_URL,
    sampler: str | BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> Study:
    """Load a study made by `create_study`, with the same parts.

    Raises:
        StudyMismatchError: If optuna_kd did not make it.
        StorageError: If the storage cannot be opened.
        KeyError: If there is no study of this name.
    """
    study = optuna.load_study(study_name=study_name, storage=create_storage(storage))
    settings = settings_of(study)
    preset = METHODS[settings["method"]]
    study.pruner = pruner or preset.pruner()
    if not isinstance(sampler, BaseSampler):
        sampler = _sampler(sampler or preset.sampler, settings["seed"], study)
    study.sampler = sampler
    return study


def optimize(
    study: Study,
    objective: Callable[[Trial], float | Sequence[float]],
    *,
    total_trials: int,
    timeout: float | None = None,
    catch: type[Exception] | Sequence[type[Exception]] = (),
) -> None:
    """Run trials until the study has `total_trials` finished ones (complete or pruned), earlier runs included.

    `study.optimize(n_trials=...)` keeps Optuna's meaning: that many more. Trials of processes that were
    killed do not count.

    Args:
        study: The study.
        objective: As in Optuna.
        total_trials: Of the study, not of this call; >= 0.
        timeout: Seconds after which no further trial starts.
        catch: Exceptions that fail a trial without ending the run.

    Raises:
        RuntimeError: If 10 trials in a row fail with an exception of `catch`; failed trials do not count, so
            that the run would never end.
    """
    failed = 0

    def check(study: Study, trial: FrozenTrial) -> None:
        nonlocal failed
        failed = failed + 1 if trial.state == TrialState.FAIL else 0
        if failed == FAILURES:
            raise RuntimeError(
                f"{FAILURES} trials in a row failed, the last is number {trial.number}; the log says why. "
                "Without `catch` the first failure ends the run."
            )
        if count_finished(study) >= total_trials:
            study.stop()

    if callable(bind := getattr(objective, "bind", None)):
        bind(study)  # refuse another task here, not in a trial that fails
    if count_finished(study) < total_trials:
        study.optimize(objective, timeout=timeout, catch=catch, callbacks=[check])


def count_finished(study: Study) -> int:
    """Count the trials that count: complete and pruned ones."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def settings_of(study: Study) -> dict[str, Any]:
    """Read method, space and seed of a study.

    Raises:
        StudyMismatchError: If optuna_kd did not make it.
    """
    settings = study.user_attrs.get(SETTINGS)
    if settings is None:
        raise StudyMismatchError(
            f"The study {study.study_name!r} was not made by optuna_kd.create_study, so its recipes are unknown."
        )
    return dict(settings)


def space_of(study: Study) -> Space:
    """Read the frozen search space of a study."""
    return space_from_dict(settings_of(study)["space"])


def freeze_space(study: Study, space: Space) -> None:
    """Store the search space of a study that has no trials yet."""
    study.set_user_attr(SETTINGS, {**settings_of(study), "space": space.to_dict()})


def recipe_of(study: Study, trial: FrozenTrial) -> Recipe:
    """Rebuild the recipe of a trial from its parameters."""
    return space_of(study).recipe(trial.params)


def best_recipe(study: Study) -> Recipe:
    """Give the recipe to use: the winner of the confirmation of these trials, else the first of `top_recipes`.

    Of a study with several objectives it is the knee of the `front`, with its student.

    Raises:
        ValueError: If no trial is complete.
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


def count_complete(study: Study) -> int:
    """Count the trials that ran to the end."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def front(study: Study) -> list[FrozenTrial]:
    """Give the trials of the Pareto front, the knee first: complete, feasible, none better in every objective.

    The knee is the trial nearest to the ideal point (`optuna_kd.pareto.by_knee`), with parameters, FLOPs and latency
    on a logarithmic scale. Equal recipes appear once.

    Raises:
        ValueError: If no trial is complete and feasible.
    """
    space = space_of(study)
    found: dict[Recipe, FrozenTrial] = {}
    for trial in study.best_trials:
        if all(math.isfinite(value) for value in trial.values):
            found.setdefault(canonical(space.recipe(trial.params)), trial)
    if not found:
        raise ValueError(f"The study {study.study_name!r} has no complete, feasible trial yet; run some first.")
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
        ValueError: If no trial is complete.
    """
    space = space_of(study)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        raise ValueError(f"The study {study.study_name!r} has no complete trial yet; run some first.")
    if isinstance(study.sampler, MCTSSampler):
        worth = study.sampler.expect(study)
    else:
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        worth = {trial.number: sign * _value(trial) for trial in trials}
    repeats: dict[Recipe, list[float]] = defaultdict(list)
    for trial in trials:
        repeats[canonical(space.recipe(trial.params))].append(worth[trial.number])
    return sorted(repeats, key=lambda recipe: -fmean(repeats[recipe]))[:count]


def require_same(study: Study, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to go on with a study whose settings differ.

    Raises:
        StudyMismatchError: Naming both values of every setting that differs.
    """
    differences = [
        f"{name} is {_show(stored.get(name))}, asked for {_show(value)}"
        for name, value in asked.items()
        if stored.get(name) != value
    ]
    if differences:
        raise StudyMismatchError(
            f"The study {study.study_name!r} was made with other settings: {'; '.join(differences)}. "
            "Use the same settings, or another study name."
        )


def _sampler(name: str, seed: int, study: Study) -> BaseSampler:
    """Create a sampler; one with a single random state must not repeat its draws when a study goes on."""
    trials = len(study.get_trials(deepcopy=False))
    return SAMPLERS[name](derive_seed(seed, "sampler", trials) if trials and name not in SEEDED_PER_TRIAL else seed)


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def _short(seed: int) -> int:
    return seed % 2**32  # numpy's legacy generators take 32 bits
