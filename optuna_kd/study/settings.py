"""What a study remembers of how it was made, and refusing to go on with it otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.recipe import Recipe
from optuna_kd.search_space import Space, space_from_dict

SETTINGS = "optuna_kd"  # user attribute of a study: method, space, seed
SAMPLER = "optuna_kd_sampler"  # user attribute of a study: what it was begun with; another one may have gone on
STUDY_ID = "optuna_kd_id"  # user attribute of a study: tells studies of the same name in two databases apart
TASK = "optuna_kd_task"  # user attribute of a study: what it was run on
FACTS = "optuna_kd_facts"  # user attribute of a study: the same for people, and for comparing tasks
KNOWLEDGE = "optuna_kd_knowledge"  # user attribute of a study: how the teacher is asked
COMMAND = "optuna_kd_command"  # user attribute of a study: the options of `optuna-kd search`, without its storage
CARD = "optuna_kd_card"  # user attribute of a finished study: its recipe card
RECIPE = "recipe"  # user attribute of a trial: the recipe in one line, for people


class StudyMismatchError(ValueError):
    """A study was made with other settings than those asked for; the message names both."""


def settings_of(study: Study, attrs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read method, space and seed of a study.

    Args:
        study: The study.
        attrs: Its user attributes, if they have been read.

    Raises:
        StudyMismatchError: If optuna_kd did not make it.
    """
    settings = (study.user_attrs if attrs is None else attrs).get(SETTINGS)
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


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
