"""Data: resident labelled images, splits, replayable augmentation, normalisation, and data sets by name."""

from __future__ import annotations

from optuna_kd.data.augment import AUGMENTATIONS, Augmentation, create_augmentation
from optuna_kd.data.convert import as_image_set
from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.normalise import Normalizer
from optuna_kd.data.residence import make_resident
from optuna_kd.data.sources import DATA_SOURCES, DataSource, DataSplits, LoadRequest, load_data
from optuna_kd.data.splits import class_subset, stratified_split, stratified_subset
from optuna_kd.data.streaming import StreamingSet

__all__ = [
    "AUGMENTATIONS",
    "DATA_SOURCES",
    "Augmentation",
    "DataSource",
    "DataSplits",
    "ImageSet",
    "LoadRequest",
    "Normalizer",
    "StreamingSet",
    "as_image_set",
    "class_subset",
    "create_augmentation",
    "load_data",
    "make_resident",
    "stratified_split",
    "stratified_subset",
]
