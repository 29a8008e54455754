"""Search spaces: conditional suggest calls that end in a `Recipe`. Nothing here imports torch."""

from optuna_kd.search_space.auto_kd import (
    TEMPERATURES_PAPER,
    TEMPERATURES_SUPPLEMENT,
    TWO_CLASSES,
    AutoKDSpace,
    ExtendedSpace,
    FeatureOnlySpace,
    NaiveSpace,
)
from optuna_kd.search_space.base import SPACES, DeadCell, Space, Suggests, create_space, space_from_dict

__all__ = [
    "SPACES",
    "TEMPERATURES_PAPER",
    "TEMPERATURES_SUPPLEMENT",
    "TWO_CLASSES",
    "AutoKDSpace",
    "DeadCell",
    "ExtendedSpace",
    "FeatureOnlySpace",
    "NaiveSpace",
    "Space",
    "Suggests",
    "create_space",
    "space_from_dict",
]
