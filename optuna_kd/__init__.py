"""optuna_kd: find the knowledge-distillation recipe, and the student, by itself.

The public names are imported when they are first used: `import optuna_kd` takes no time and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna_kd.joint_objective import JointDistillationObjective
    from optuna_kd.objective import DistillationObjective, FunctionObjective
    from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig, canonical
    from optuna_kd.runner.result import SearchResult
    from optuna_kd.runner.search import search
    from optuna_kd.student import build_distiller, load_student
    from optuna_kd.study import best_recipe, create_study, front, load_study, optimize
    from optuna_kd.training import DistillResult, ImageClassification, LossRejected, distill

__version__ = "0.1.0"

__all__ = [
    "DistillResult",
    "DistillationObjective",
    "FunctionObjective",
    "ImageClassification",
    "JointDistillationObjective",
    "LossRejected",
    "ProxyConfig",
    "Recipe",
    "SearchResult",
    "StudentConfig",
    "best_recipe",
    "build_distiller",
    "canonical",
    "create_study",
    "distill",
    "front",
    "load_student",
    "load_study",
    "optimize",
    "search",
]

_HOMES = {
    "DistillResult": "training",
    "DistillationObjective": "objective",
    "FunctionObjective": "objective",
    "ImageClassification": "training",
    "JointDistillationObjective": "joint_objective",
    "LossRejected": "training",
    "ProxyConfig": "recipe",
    "Recipe": "recipe",
    "SearchResult": "runner.result",
    "StudentConfig": "recipe",
    "best_recipe": "study",
    "build_distiller": "student",
    "canonical": "recipe",
    "create_study": "study",
    "distill": "training",
    "front": "study",
    "load_student": "student",
    "load_study": "study",
    "optimize": "study",
    "search": "runner.search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
