"""Image folders: ``train/<class>/*`` with ``test/<class>/*`` or ``val/<class>/*``, or both."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from optuna_kd.data.convert import MAX_RESIDENT_BYTES, say_streamed
from optuna_kd.data.decode import ImageFile, TooLargeError, decode_files
from optuna_kd.data.image_files import ImageFiles
from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.sources.base import DataSource, DataSplits, LoadRequest
from optuna_kd.data.streaming import StreamingSet

logger = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_NAMES_SHOWN = 5


def load_image_folder(
    request: LoadRequest, name: str = "imagefolder", augment: str = "auto", *, num_classes: int | None = None
) -> DataSplits:
    """Load a folder of images; classes are numbered by their sorted names.

    With ``val/`` and ``test/``, val is the validation part; with one of them, it is the test part. Where one of them is
    too large to hold in memory, all are read image by image when asked for, and that is said.

    Args:
        request: What to load; its `folder` holds the parts.
        name: The name of the source.
        augment: The augmentation that suits these images.
        num_classes: How many classes there must be; None for any number.

    Raises:
        ValueError: If parts, classes or images are missing or cannot be read, or parts do not fit together.
    """
    folder = request.folder
    if folder is None:
        raise ValueError(f"The data source {name!r} needs a folder: write {name}:DIR.")
    listings = {part: list_part(path) for part, path in _find_parts(folder).items()}
    classes = listings["train"].classes
    if num_classes is not None and len(classes) != num_classes:
        raise ValueError(
            f"{folder} has {len(classes)} class folders, {name} has {num_classes} classes; "
            f"for another data set write imagefolder:{folder}."
        )
    for part, listing in listings.items():
        _check_same_classes(folder, classes, part, listing.classes)
    listings["train"] = listings["train"].take(request.choose_train(listings["train"].labels))
    sets: dict[str, ImageSet | StreamingSet]
    try:
        sets = dict(_hold(listings, request))
    except TooLargeError as error:
        say_streamed(error.size, MAX_RESIDENT_BYTES)
        sets = {part: listing.stream(request.image_size) for part, listing in listings.items()}
    _check_same_sizes(listings, sets)
    return DataSplits(name, sets["train"], sets.get("val"), sets["test"], classes, augment)


def _hold(listings: dict[str, Listing], request: LoadRequest) -> Iterator[tuple[str, ImageSet]]:
    pixels = {
        part: decode_files(
            listing.files, image_size=request.image_size, cache_dir=request.cache_dir, limit=MAX_RESIDENT_BYTES
        )
        for part, listing in listings.items()
    }
    channels = max(images.shape[1] for images in pixels.values())
    for part, images in pixels.items():
        # A part that happens to be all grey joins its colour siblings.
        same = torch.from_numpy(images if images.shape[1] == channels else images.repeat(channels, axis=1))
        yield part, ImageSet(same, torch.from_numpy(listings[part].labels), listings[part].classes)


@dataclass(frozen=True, eq=False)
class Listing:
    """The image files of one part, not yet read.

    Args:
        classes: Sorted names of the class folders.
        files: By class, then by path.
        labels: [N], int64, the class of every file.
    """

    classes: tuple[str, ...]
    files: list[ImageFile]
    labels: np.ndarray

    def take(self, positions: np.ndarray) -> Listing:
        """Return the files at `positions` only."""
        return Listing(self.classes, [self.files[i] for i in positions.tolist()], self.labels[positions])

    def stream(self, image_size: int | None) -> StreamingSet:
        """Give the images as a set that reads them when they are asked for."""
        files = ImageFiles(self.files, self.labels, image_size)
        return StreamingSet(files, torch.from_numpy(self.labels), self.classes, is_random=False)


def list_part(folder: Path) -> Listing:
    """List the images of one part without reading them.

    Args:
        folder: Holds one folder per class; images may lie deeper. Hidden files and other types are skipped.

    Raises:
        ValueError: If there are fewer than two classes, or a class has no image.
    """
    classes = tuple(_list_folders(folder))
    if len(classes) < 2:
        found = f"one class folder, {classes[0]!r}" if classes else "no class folder"
        raise ValueError(f"{folder} has {found}; at least two classes are needed, each a folder of images.")
    by_class = [_list_images(folder / name) for name in classes]
    empty = [name for name, files in zip(classes, by_class, strict=True) if not files]
    if empty:
        raise ValueError(
            f"No image in {_shorten(empty)} of {folder}; every class needs at least one file of type "
            f"{', '.join(EXTENSIONS)}."
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(files) for files in by_class])
    return Listing(classes, [file for files in by_class for file in files], labels)


def _find_parts(folder: Path) -> dict[str, Path]:
    found = _list_folders(folder)
    held_out = [part for part in ("val", "test") if part in found]
    if "train" not in found or not held_out:
        missing = "train/" if "train" not in found else "test/ or val/"
        has = f"the folders {_shorten(found)}" if found else "no folders"
        raise ValueError(
            f"{folder} has no {missing}; an image folder needs train/<class>/ and test/<class>/ or "
            f"val/<class>/. It has {has}."
        )
    if held_out == ["val"]:
        logger.info("%s has no test/: its val/ is the test part, and validation images are cut from train.", folder)
        return {"train": folder / "train", "test": folder / "val"}
    return {part: folder / part for part in ("train", *held_out)}


def _list_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _list_images(folder: Path) -> list[ImageFile]:
    found, waiting = [], [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    # A link back to a folder above would never end.
                    if not entry.is_symlink():
                        waiting.append(entry.path)
                elif entry.name.lower().endswith(EXTENSIONS):
                    stat = entry.stat()
                    found.append(ImageFile(Path(entry.path), stat.st_size, stat.st_mtime_ns))
    return sorted(found, key=lambda file: str(file.path))


def _check_same_classes(folder: Path, classes: tuple[str, ...], part: str, others: tuple[str, ...]) -> None:
    only_train, only_part = sorted(set(classes) - set(others)), sorted(set(others) - set(classes))
    if only_train or only_part:
        differences = [
            f"only in {name}/: {_shorten(names)}" for name, names in (("train", only_train), (part, only_part)) if names
        ]
        raise ValueError(f"The classes of train/ and {part}/ in {folder} must be the same; {'; '.join(differences)}.")


def _check_same_sizes(listings: dict[str, Listing], sets: Mapping[str, ImageSet | StreamingSet]) -> None:
    _, height, width = sets["train"].shape
    for part, images in sets.items():
        if images.shape != sets["train"].shape:
            raise ValueError(
                f"Images differ in size: {listings['train'].files[0].path} is {width}x{height}, "
                f"{listings[part].files[0].path} is {images.shape[2]}x{images.shape[1]} (width x height). "
                "Set image_size to resize and crop all."
            )


def _shorten(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


SOURCES = (
    DataSource(
        "imagefolder",
        "a folder with train/<class>/ and test/<class>/ or val/<class>/",
        load_image_folder,
        resizes=True,
    ),
)
