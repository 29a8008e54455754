"""Students and teachers: networks by name, what they know, their weights and their speed."""

from __future__ import annotations

from optuna_kd.models.catalog import ModelInfo
from optuna_kd.models.checkpoints import checksum, load_weights
from optuna_kd.models.cost import count_flops
from optuna_kd.models.create import check_input, count_parameters, create_model, describe_models, model_names
from optuna_kd.models.knowledge import FrozenTeacher, Knowledge, Observer, TappedLayer
from optuna_kd.models.layout import latency_ms, memory_format
from optuna_kd.models.modes import evaluating, unwrap
from optuna_kd.models.students import STUDENTS, create_student, student_label, student_name
from optuna_kd.models.taps import find_layer, list_maps

__all__ = [
    "STUDENTS",
    "FrozenTeacher",
    "Knowledge",
    "ModelInfo",
    "Observer",
    "TappedLayer",
    "check_input",
    "checksum",
    "count_flops",
    "count_parameters",
    "create_model",
    "create_student",
    "describe_models",
    "evaluating",
    "find_layer",
    "latency_ms",
    "list_maps",
    "load_weights",
    "memory_format",
    "model_names",
    "student_label",
    "student_name",
    "unwrap",
]
