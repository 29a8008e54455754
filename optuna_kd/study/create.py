"""Studies: a method's preset turned into a plain `optuna.Study`."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection

from optuna_kd.cards import TaskFacts
from optuna_kd.goals import GOALS
from optuna_kd.scales import LOG_OBJECTIVES
from optuna_kd.search_space import Space, create_space, space_from_dict
from optuna_kd.storages import DEFAULT_URL, cached, create_storage, creation_lock, quietly
from optuna_kd.study.methods import METHODS, check_objectives, check_sampler, create_sampler
from optuna_kd.study.settings import SAMPLER, SETTINGS, STUDY_ID, StudyMismatchError, require_same
from optuna_kd.study.warm_sources import Candidate, Sources, read_sources
from optuna_kd.study.warm_start import fill_queue, is_begun, queue

logger = logging.getLogger(__name__)


class Task(Protocol):
    """The part of `ImageClassification` that a warm start uses."""

    def facts(self) -> TaskFacts:
        """Say what is distilled."""


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
    warm_start: Sources | None = None,
    task: Task | None = None,
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
        warm_start: What the study begins with, once, as its first trials: recipes that did well elsewhere. Cards,
            recipes, studies, files and folders of them, the URL of a storage, names, or "auto" for all of `runs`; one
            or several of them (`optuna_kd.study.read_sources`).
        task: What it is going to be run on, an `ImageClassification`: recipes of similar tasks are preferred then.

    Raises:
        UnknownNameError: For an unknown method, space or sampler.
        ValueError: For objectives of a method that has one reward, and for less than two objectives.
        StudyMismatchError: If the study exists with another method, space, seed or objectives; both are named.
        StorageError: If the storage cannot be opened.
        WarmStartError: If there is nothing to begin with where `warm_start` says; a `CardError` says what is wrong
            with a file.
        optuna.exceptions.DuplicatedStudyError: If the study exists and `load_if_exists` is False.
    """
    preset = METHODS[method]
    wanted = create_space(space) if isinstance(space, str) else space
    goals = check_objectives(method, objectives)
    check_sampler(method, goals, sampler)
    directions = [StudyDirection.MINIMIZE] * len(goals) or [StudyDirection.MAXIMIZE]
    opened = create_storage(storage)
    candidates: list[Candidate] | None = None
    if warm_start is not None and not _is_begun(opened, study_name):  # one that goes on needs nothing of it
        candidates, notes = read_sources(warm_start, storage=opened)
        for note in notes:
            logger.warning("Left out of the warm start: %s", note)
    with creation_lock(opened):  # else two that begin at once would each draw a seed, and one would win later
        study = optuna.create_study(
            storage=cached(opened),
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
                study.set_user_attr(
                    LOG_OBJECTIVES, [place for place, name in enumerate(goals) if GOALS[name].logarithmic]
                )
                with quietly():
                    study.set_metric_names(list(goals))
            study.set_user_attr(SETTINGS, stored)
            study.set_user_attr(STUDY_ID, secrets.token_hex(8))
            study.set_user_attr(SAMPLER, _name_of(sampler or preset.sampler))
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
        found = space_from_dict(stored["space"])
        if candidates is not None and not is_begun(study):
            lines = queue(study, candidates, task.facts() if task is not None else None, found)
            # That nothing fitted is what nobody who asked for a warm start expects.
            level = logging.INFO if study.get_trials(deepcopy=False) else logging.WARNING
            for line in lines:
                logger.log(level, "Warm start: %s", line)
        else:
            fill_queue(study, found)  # by whoever was killed while doing it
    if not isinstance(sampler, BaseSampler):
        sampler = create_sampler(sampler or preset.sampler, stored["seed"])
    study.sampler = sampler
    return study


def _name_of(sampler: str | BaseSampler) -> str:
    return sampler if isinstance(sampler, str) else type(sampler).__name__


def _is_begun(storage: BaseStorage, name: str | None) -> bool:
    if name is None or name not in {study.study_name for study in storage.get_all_studies()}:
        return False
    return is_begun(optuna.load_study(study_name=name, storage=storage))
