"""What every data source hands out (`DataSplits`), is asked (`LoadRequest`) and declares (`DataSource`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.splits import stratified_subset
from optuna_kd.data.streaming import StreamingSet

SUBSET_SEED = 0
"""Fixed, so that `max_train` names one subset of a data set and not one for each study."""


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The parts of one data set; test images are for the end, validation images choose.

    Args:
        name: The name of its source.
        train: Training images.
        val: Validation images, or None where they are still to be cut from train.
        test: Test images.
        class_names: One name per class, in label order.
        augment: The augmentation that suits these images.

    Raises:
        ValueError: If the parts differ in image shape, or hold labels without a class name.
    """

    name: str
    train: ImageSet | StreamingSet
    val: ImageSet | StreamingSet | None
    test: ImageSet | StreamingSet
    class_names: tuple[str, ...]
    augment: str = "auto"

    def __post_init__(self) -> None:
        for part, images in self.parts().items():
            if images.shape != self.train.shape:
                raise ValueError(
                    f"The parts of a data set must agree in image shape; train is {self.train.shape}, "
                    f"{part} is {images.shape}."
                )
            highest = int(images.labels.max())
            if highest >= len(self.class_names):
                raise ValueError(
                    f"The labels of {part} must be in 0..{len(self.class_names) - 1}; the highest is {highest}."
                )

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return self.train.shape

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that identify the content of all parts."""
        content = ";".join(f"{part}={images.checksum}" for part, images in self.parts().items())
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def parts(self) -> dict[str, ImageSet | StreamingSet]:
        """Return the parts there are, by name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}


@dataclass(frozen=True)
class LoadRequest:
    """What a source is asked for.

    Args:
        folder: The folder after the colon, checked to exist; None for bundled data.
        image_size: Side in pixels to which images are resized and cropped; None leaves them.
        max_train: At most so many training images, each class in proportion; None for all.
        cache_dir: Where decoded images may be kept; None for nowhere.
    """

    folder: Path | None = None
    image_size: int | None = None
    max_train: int | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        for option in ("image_size", "max_train"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{option} must be a whole number from 1 up; got {value!r}.")

    def choose_train(self, labels: np.ndarray | Tensor) -> np.ndarray:
        """Return the sorted positions of the training images to keep.

        Args:
            labels: [N], the class of every training image.

        Raises:
            ValueError: If `max_train` leaves less than one image for each class.
        """
        if self.max_train is None or self.max_train >= len(labels):
            return np.arange(len(labels))
        n_classes = len(np.unique(labels))
        if self.max_train < n_classes:
            raise ValueError(f"max_train is {self.max_train}, with {n_classes} classes; at least one each.")
        return stratified_subset(labels, self.max_train / len(labels), SUBSET_SEED)


@dataclass(frozen=True)
class DataSource:
    """A kind of data that `load_data` knows; a module in this folder lists it in `SOURCES`.

    Args:
        name: The word before the colon.
        summary: One phrase for lists.
        load: Reads the data.
        needs_folder: Whether a folder follows the colon.
        resizes: Whether `image_size` is understood.
    """

    name: str
    summary: str
    load: Callable[[LoadRequest], DataSplits]
    needs_folder: bool = True
    resizes: bool = False

    @property
    def form(self) -> str:
        """How the source is written: ``digits`` or ``cifar10:DIR``."""
        return f"{self.name}:DIR" if self.needs_folder else self.name
