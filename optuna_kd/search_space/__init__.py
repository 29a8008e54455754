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
from optuna_kd.search_space.student import StudentSpace
from optuna_kd.search_space.uniads import UniADSSpace

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
    "StudentSpace",
    "Suggests",
    "UniADSSpace",
    "create_space",
    "space_from_dict",
]
