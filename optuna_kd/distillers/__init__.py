"""Distillers: transforms, distances and adapters, composed into named loss terms. No Optuna in here."""

from optuna_kd.distillers import (  # registers the operations
    distances,
    transforms,
    uniads_attention,
    uniads_distances,
    uniads_transforms,
)
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
from optuna_kd.distillers.probe import UNIADS_DISTANCES, UNIADS_TRANSFORMS, probe_cells, probe_points
from optuna_kd.distillers.terms import InvalidChainError, Term, build_term

__all__ = [
    "DISTANCES",
    "TRANSFORMS",
    "UNIADS_DISTANCES",
    "UNIADS_TRANSFORMS",
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
    "probe_points",
    "renyi_entropy",
    "transform",
    "transforms",
    "uniads_attention",
    "uniads_distances",
    "uniads_transforms",
]
