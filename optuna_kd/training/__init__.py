"""Training: tasks, stored teacher knowledge, proxies and full distillation. No Optuna in here."""

from optuna_kd.training.distributed import join_ranks
from optuna_kd.training.diswot import diswot_score, rank_students
from optuna_kd.training.evaluation import accuracy, evaluate
from optuna_kd.training.full import DistillResult, FullRun, distill, train_student
from optuna_kd.training.lesson import Rung
from optuna_kd.training.offline import (
    AlignedKnowledge,
    KnowledgeChoices,
    KnowledgeMismatchError,
    TeacherKnowledge,
    prepare_knowledge,
    store_knowledge,
)
from optuna_kd.training.ranks import RankFailedError, RankLostError, Ranks
from optuna_kd.training.rejection import LossRejected, OutOfMemory
from optuna_kd.training.sparse import SparseWeights
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

__all__ = [
    "AlignedKnowledge",
    "DistillResult",
    "FullRun",
    "ImageClassification",
    "KnowledgeChoices",
    "KnowledgeMismatchError",
    "LossRejected",
    "OutOfMemory",
    "RankFailedError",
    "RankLostError",
    "Ranks",
    "Rung",
    "SparseWeights",
    "StudentTraining",
    "TeacherKnowledge",
    "accuracy",
    "distill",
    "diswot_score",
    "evaluate",
    "join_ranks",
    "prepare_knowledge",
    "rank_students",
    "store_knowledge",
    "train_student",
]
