"""Distillers: transforms, distances and adapters, composed into named loss terms. No Optuna in here."""

from optuna_kd.distillers import distances, transforms  # registers the operations
from optuna_kd.distillers.adapters import Adapter
from optuna_kd.distillers.dead_terms import DeadTermError, find_dead_terms
from optuna_kd.distillers.distances import renyi_entropy
from optuna_kd.distillers.distiller import Distiller
from optuna_kd.distillers.operations import (
    DISTANCES,
    TRANSFORMS,
    DistanceInfo,
    OptionInfo,
    TransformInfo,
    distance,
    transform,
)
from optuna_kd.distillers.probe import probe_cells
from optuna_kd.distillers.terms import InvalidChainError, Term, build_term

__all__ = [
    "DISTANCES",
    "TRANSFORMS",
    "Adapter",
    "DeadTermError",
    "DistanceInfo",
    "Distiller",
    "InvalidChainError",
    "OptionInfo",
    "Term",
    "TransformInfo",
    "build_term",
    "distance",
    "distances",
    "find_dead_terms",
    "probe_cells",
    "renyi_entropy",
    "transform",
    "transforms",
]
