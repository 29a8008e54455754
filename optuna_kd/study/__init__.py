"""Studies: plain `optuna.Study` objects made by a method's preset, run up to a total, and read."""

from optuna_kd.study.create import create_study, load_study
from optuna_kd.study.findings import best_recipe, count_complete, count_finished, front, record_confirmed, top_recipes
from optuna_kd.study.methods import METHODS, SAMPLERS, Method, check_objectives, check_sampler, create_sampler
from optuna_kd.study.optimizing import optimize
from optuna_kd.study.settings import (
    RECIPE,
    SETTINGS,
    STUDY_ID,
    TASK,
    StudyMismatchError,
    freeze_space,
    recipe_of,
    require_same,
    settings_of,
    space_of,
)

__all__ = [
    "METHODS",
    "RECIPE",
    "SAMPLERS",
    "SETTINGS",
    "STUDY_ID",
    "TASK",
    "Method",
    "StudyMismatchError",
    "best_recipe",
    "check_objectives",
    "check_sampler",
    "count_complete",
    "count_finished",
    "create_sampler",
    "create_study",
    "freeze_space",
    "front",
    "load_study",
    "optimize",
    "recipe_of",
    "record_confirmed",
    "require_same",
    "settings_of",
    "space_of",
    "top_recipes",
]
