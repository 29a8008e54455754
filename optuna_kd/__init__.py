"""optuna_kd: find the knowledge-distillation recipe, and the student, by itself.

The public names are imported when they are first used: `import optuna_kd` takes no time and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_kd.lazy import lazily

if TYPE_CHECKING:
    from optuna_kd.analysis.dashboard import publish
    from optuna_kd.cards import RecipeCard, load_card
    from optuna_kd.joint_objective import JointDistillationObjective
    from optuna_kd.objective import DistillationObjective, FunctionObjective
    from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig, canonical
    from optuna_kd.runner.ray_engine import RayEngine
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
    "RayEngine",
    "Recipe",
    "RecipeCard",
    "SearchResult",
    "StudentConfig",
    "best_recipe",
    "build_distiller",
    "canonical",
    "create_study",
    "distill",
    "front",
    "load_card",
    "load_student",
    "load_study",
    "optimize",
    "publish",
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
    "RayEngine": "runner.ray_engine",
    "Recipe": "recipe",
    "RecipeCard": "cards",
    "SearchResult": "runner.result",
    "StudentConfig": "recipe",
    "best_recipe": "study",
    "build_distiller": "student",
    "canonical": "recipe",
    "create_study": "study",
    "distill": "training",
    "front": "study",
    "load_card": "cards",
    "load_student": "student",
    "load_study": "study",
    "optimize": "study",
    "publish": "analysis.dashboard",
    "search": "runner.search",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
