"""`as_image_set`: arrays, tensors and map-style data sets become one of the two forms used here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from optuna_kd.data.content_key import content_key
from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.pixel_cache import cache_file, load_arrays, save_arrays
from optuna_kd.data.pixels import image_to_tensor, images_to_tensor, labels_to_tensor
from optuna_kd.data.read_ahead import spare_cores
from optuna_kd.data.streaming import MapStyle, StreamingSet, preserved_rng, read_item, read_labels, seed_everything

logger = logging.getLogger(__name__)

MAX_RESIDENT_BYTES = 4 * 1024**3
PROBED_ITEMS, PROBES = 4, 3
REREAD_ITEMS = 64

_ACCEPTED = (
    "Accepted are an ImageSet, a pair (images, labels) of arrays or tensors, and a map-style torch data set "
    "of (image, label) pairs"
)


def as_image_set(
    source: Any,
    *,
    class_names: tuple[str, ...] | None = None,
    max_resident_bytes: int = MAX_RESIDENT_BYTES,
    cache_dir: str | Path | None = None,
) -> ImageSet | StreamingSet:
    """Turn what a user has into an `ImageSet`, or a `StreamingSet` where images cannot be kept.

    A map-style data set whose items are the same at every read is decoded once. One with random transforms
    of its own, or too large to keep, is streamed.

    Args:
        source: An `ImageSet` or `StreamingSet`; a pair (images, labels) of arrays or tensors, images
            [N, H, W], [N, H, W, C] or [N, C, H, W] with 1, 3 or 4 channels; or a map-style data set of
            (image, label) pairs.
        class_names: One name per class, in label order; without it, the `classes` of the data set.
        max_resident_bytes: Above this size of all pixels a data set is streamed.
        cache_dir: Folder in which decoded images are kept for the next time; None for none. It serves image folders of
            torchvision, the only data sets whose content is known without decoding it (see `content_key`).

    Raises:
        TypeError: If `source` is a loader, an iterable data set or anything else.
        ValueError: If images or labels cannot be read, or do not fit each other.
    """
    if isinstance(source, ImageSet | StreamingSet):
        return source if class_names is None else replace(source, class_names=class_names)
    if isinstance(source, DataLoader):
        raise TypeError(f"{_ACCEPTED}; got a DataLoader. Pass its data set: loader.dataset.")
    if isinstance(source, IterableDataset):
        raise TypeError(f"{_ACCEPTED}; got an IterableDataset, whose images cannot be asked for by number.")
    if isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[0], np.ndarray | Tensor):
        return ImageSet(images_to_tensor(source[0]), labels_to_tensor(source[1]), class_names)
    if not hasattr(source, "__getitem__") or not hasattr(source, "__len__") or isinstance(source, str | dict):
        raise TypeError(f"{_ACCEPTED}; got {type(source).__name__}.")
    folder = Path(cache_dir).expanduser() if cache_dir is not None else None
    return _convert_dataset(source, class_names, max_resident_bytes, folder)


def _convert_dataset(
    dataset: MapStyle, class_names: tuple[str, ...] | None, max_resident_bytes: int, cache_dir: Path | None
) -> ImageSet | StreamingSet:
    if len(dataset) == 0:
        raise ValueError("The data set is empty; at least one labelled image is needed.")
    with preserved_rng():
        seed_everything(0)
        # Successive reads continue one random stream, so a random transform shows itself.
        probes = [[_read(dataset, i) for i in range(min(PROBED_ITEMS, len(dataset)))] for _ in range(PROBES)]
    names = class_names or _own_class_names(dataset)
    first = probes[0]
    checked = [(i, label) for i, (_, label) in enumerate(first)]
    if any(not _same(a, b) for probe in probes[1:] for a, b in zip(first, probe, strict=True)):
        return StreamingSet(dataset, read_labels(dataset, checked), names, is_random=True)
    size = first[0][0].numel() * first[0][0].element_size() * len(dataset)
    if size > max_resident_bytes:
        say_streamed(size, max_resident_bytes)
        return StreamingSet(dataset, read_labels(dataset, checked), names, is_random=False)
    key = content_key(dataset) if cache_dir is not None else None
    with preserved_rng():
        return _decode_once(dataset, first[0][0], names, cache_file(cache_dir, key) if cache_dir and key else None)


def say_streamed(size: int, limit: int) -> None:
    """Say that images are not held in memory, because so many bytes of pixels are more than the limit."""
    workers = spare_cores()
    logger.warning(
        "The images would take %.1f GB, too large to hold in memory (more than %.1f GB): read in every epoch, %s.",
        size / 1e9,
        limit / 1e9,
        f"by {workers} DataLoader worker{'s' * (workers > 1)}" if workers else "in this process (no core is free)",
    )


def _decode_once(
    dataset: MapStyle, first: Tensor, names: tuple[str, ...] | None, file: Path | None
) -> ImageSet | StreamingSet:
    count = len(dataset)
    if file is not None and (kept := load_arrays(file, {"images": count, "labels": count})) is not None:
        resident = ImageSet(torch.from_numpy(kept["images"]), torch.from_numpy(kept["labels"]), names)
        if _agrees(dataset, resident):
            return resident
        logger.warning("Decoding again: the images in %s are not those of the data set any more.", file)
    resident = _decode(dataset, first, names)
    if not _agrees(dataset, resident):
        return StreamingSet(dataset, resident.labels, names, is_random=True)
    if file is not None:
        save_arrays(file, images=resident.images.numpy(), labels=resident.labels.numpy())
    return resident


def _agrees(dataset: MapStyle, resident: ImageSet) -> bool:
    """Read some items again; rare transforms (an erasing with p = 0.1, say) escape a few probes, but not so many."""
    positions = np.linspace(0, len(dataset) - 1, min(REREAD_ITEMS, len(dataset)), dtype=int).tolist()
    return all(_same(_read(dataset, i), (resident.images[i], int(resident.labels[i]))) for i in positions)


def _decode(dataset: MapStyle, first: Tensor, class_names: tuple[str, ...] | None) -> ImageSet:
    images = torch.empty((len(dataset), *first.shape), dtype=first.dtype)
    labels = torch.empty(len(dataset), dtype=torch.int64)
    for i, (image, label) in _items(dataset):
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ValueError(
                f"Images of one data set must have one shape and type; item 0 is {tuple(first.shape)} "
                f"{first.dtype}, item {i} is {tuple(image.shape)} {image.dtype}. "
                "Add a resize to its transform."
            )
        images[i], labels[i] = image, label
    return ImageSet(images, labels, class_names)


def _items(dataset: MapStyle) -> Iterator[tuple[int, tuple[Tensor, int]]]:
    # By number, not by iteration: data sets need not raise IndexError at their end.
    return ((i, _read(dataset, i)) for i in range(len(dataset)))


def _read(dataset: MapStyle, position: int) -> tuple[Tensor, int]:
    image, label = read_item(dataset, position)
    return image_to_tensor(image), label


def _same(a: tuple[Tensor, int], b: tuple[Tensor, int]) -> bool:
    return a[1] == b[1] and a[0].shape == b[0].shape and torch.equal(a[0], b[0])


def _own_class_names(dataset: Any) -> tuple[str, ...] | None:
    if isinstance(dataset, Subset):
        return _own_class_names(dataset.dataset)
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
