"""Studies: plain `optuna.Study` objects made by a method's preset, run up to a total, and read."""

from optuna_kd.study.create import create_study
from optuna_kd.study.findings import (
    best_recipe,
    count_complete,
    count_finished,
    front,
    good_recipes,
    record_confirmed,
    top_recipes,
)
from optuna_kd.study.inspecting import Inspected, inspect_storage
from optuna_kd.study.loading import load_study
from optuna_kd.study.methods import METHODS, SAMPLERS, Method, check_objectives, check_sampler, create_sampler
from optuna_kd.study.optimizing import FAIL_REASON, optimize
from optuna_kd.study.settings import (
    CARD,
    COMMAND,
    FACTS,
    KNOWLEDGE,
    RECIPE,
    SAMPLER,
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
from optuna_kd.study.warm_sources import Candidate, Sources, WarmStartError, read_sources
from optuna_kd.study.warm_start import WARM_START, is_begun, queue, refit_queue

__all__ = [
    "CARD",
    "COMMAND",
    "FACTS",
    "FAIL_REASON",
    "KNOWLEDGE",
    "METHODS",
    "RECIPE",
    "SAMPLER",
    "SAMPLERS",
    "SETTINGS",
    "STUDY_ID",
    "TASK",
    "WARM_START",
    "Candidate",
    "Inspected",
    "Method",
    "Sources",
    "StudyMismatchError",
    "WarmStartError",
    "best_recipe",
    "check_objectives",
    "check_sampler",
    "count_complete",
    "count_finished",
    "create_sampler",
    "create_study",
    "freeze_space",
    "front",
    "good_recipes",
    "inspect_storage",
    "is_begun",
    "load_study",
    "optimize",
    "queue",
    "read_sources",
    "recipe_of",
    "record_confirmed",
    "refit_queue",
    "require_same",
    "settings_of",
    "space_of",
    "top_recipes",
]
