"""`StreamingSet`: a map-style data set read image by image, with its random transforms made repeatable."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from optuna_kd.data.image_set import Indices, as_index, check_labels, pair_seeds
from optuna_kd.data.pixels import UNREADABLE, image_to_tensor, split_item
from optuna_kd.data.read_ahead import Order, ReadAhead
from optuna_kd.seeds import derive_seed

CHECKSUM_ITEMS = 4


class MapStyle(Protocol):
    """What can be asked for its length and for item `index`, an (image, label) pair."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class StreamingSet:
    """Labelled images read when asked for: with random transforms of their own, or too large for memory.

    Transforms that draw from the global generators of torch, Python or NumPy repeat exactly for the same
    seed, image by image, whatever else is in the batch. Transforms with private generators do not; a run
    that uses them is valid, but not repeatable.

    Args:
        dataset: Map-style data set of (image, label) pairs.
        labels: [N], int64, the label of every item.
        class_names: One name per class, in label order.
        is_random: Whether two reads of an item may differ.

    Raises:
        ValueError: If counts or the label range do not fit.
    """

    dataset: MapStyle
    labels: Tensor
    class_names: tuple[str, ...] | None = None
    is_random: bool = True

    def __post_init__(self) -> None:
        check_labels(self.labels, self.class_names)
        if len(self.dataset) != len(self.labels):
            raise ValueError(
                f"Every image needs a label; got {len(self.dataset)} images and {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image, read from the first."""
        channels, height, width = self.batch([0])[0].shape[1:]
        return channels, height, width

    @cached_property
    def num_classes(self) -> int:
        """The number of classes K: the number of class names, or else the largest label + 1."""
        return len(self.class_names) if self.class_names is not None else int(self.labels.max()) + 1

    @cached_property
    def checksum(self) -> str:
        """16 hexadecimal digits from all labels and the first images under a fixed seed."""
        digest = hashlib.sha256(f"streaming{self.shape}{self.is_random}".encode())
        digest.update(self.labels.cpu().contiguous().numpy().data)
        first = range(min(CHECKSUM_ITEMS, len(self)))
        images, again = self.batch(first)[0], self.batch(first)[0]
        # Private generators escape the seed; pixels that change would refuse every resumed study.
        if torch.equal(images, again):
            digest.update(images.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @cached_property
    def holds_bytes(self) -> bool:
        """Whether the images come with 8 bits; `batch` scales these to 0..1."""
        with preserved_rng():
            image, _ = read_item(self.dataset, 0)
        return image_to_tensor(image).dtype == torch.uint8

    def subset(self, indices: Indices) -> StreamingSet:
        """Return the items at `indices`, in that order, with the same classes.

        Args:
            indices: [M], positions in 0..N-1.
        """
        index = as_index(indices, len(self))
        names = self.class_names or tuple(str(label) for label in range(self.num_classes))
        part: MapStyle = Subset(self.dataset, index.tolist())  # type: ignore[arg-type]
        return StreamingSet(part, self.labels[index], names, self.is_random)

    def batch(self, indices: Indices, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Read images [M, C, H, W] as float32 and labels [M]; the same seed gives the same images.

        Images of 8 bits are scaled to 0..1, floating ones are left as they come.

        Args:
            indices: [M], positions in 0..N-1.
            seed: Which view of the images to read; None is view 0.

        Raises:
            ValueError: If an item is not an (image, label) pair, or images differ in shape.
        """
        index = as_index(indices, len(self))
        return self._images((index, seed)), self.labels[index]

    def read_ahead(
        self, batches: Sequence[Indices], seeds: Sequence[int | None] | None = None, workers: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Read what `batch` gives for each of `batches`, the next ones meanwhile in other processes.

        Processes start when reading here has taken as long as that, and stay. Where they cannot be used (the data set
        cannot be sent to them, or they are reading for another training) batches are read here.

        Args:
            batches: [M] each, positions in 0..N-1.
            seeds: Of each batch; None is view 0 for all.
            workers: Processes; 0 for none, None for the cores that this process has beside its own.

        Raises:
            ValueError: If an item cannot be read, is not an (image, label) pair, or images differ in shape.
            RuntimeError: If a worker process is killed.
        """
        orders = [(as_index(batch, len(self)), seed) for batch, seed in pair_seeds(batches, seeds)]
        for (index, _), images in zip(orders, self._ahead(orders, workers), strict=True):
            yield images, self.labels[index]

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes belong to the process that started them.
        return {name: value for name, value in self.__dict__.items() if name != "_ahead"}

    @cached_property
    def _ahead(self) -> ReadAhead:
        return ReadAhead(_Images(self.dataset))

    @property
    def _images(self) -> _Images:
        return _Images(self.dataset)


@dataclass(frozen=True)
class _Images:
    """Reads the images of a batch; all that a worker process needs."""

    dataset: MapStyle

    def __call__(self, order: Order) -> Tensor:
        index, seed = order
        with preserved_rng():
            images = [self._read(position, seed or 0) for position in index.tolist()]
        for position, image in zip(index.tolist(), images, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"Images of one data set must have one shape; item {int(index[0])} is "
                    f"{tuple(images[0].shape)}, item {position} is {tuple(image.shape)}."
                )
        return torch.stack(images)

    def _read(self, position: int, seed: int) -> Tensor:
        seed_everything(derive_seed(seed, position, "item"))
        image, _ = read_item(self.dataset, position)
        pixels = image_to_tensor(image)
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give back the global CPU generators of torch, Python and NumPy as they were."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def seed_everything(seed: int) -> None:
    """Seed the global CPU generators of torch, Python and NumPy."""
    # Not torch.manual_seed: it would also reseed the accelerators, whose state is not restored here.
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def read_labels(dataset: MapStyle, checked: Sequence[tuple[int, int]]) -> Tensor:
    """Return the label of every item, from the `targets` of the data set where they can be trusted.

    Args:
        dataset: Map-style data set of (image, label) pairs.
        checked: (position, label) of items already read; `targets` that disagree are not used.
    """
    labels = _find_targets(dataset)
    if labels is not None and all(int(labels[position]) == label for position, label in checked):
        return labels
    with preserved_rng():
        return torch.tensor([read_item(dataset, i)[1] for i in range(len(dataset))])


def read_item(dataset: MapStyle, position: int) -> tuple[Any, int]:
    """Read the image and the label of one item.

    Raises:
        ValueError: If it cannot be read, or is not an (image, label) pair.
    """
    try:
        item = dataset[position]
    except UNREADABLE as error:
        raise ValueError(f"Cannot read item {position} of the data set: {error}. Replace or remove it.") from error
    return split_item(item, position)


def _find_targets(dataset: Any) -> Tensor | None:
    if isinstance(dataset, Subset):
        whole = _find_targets(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None:
        return None
    labels = torch.as_tensor(targets)
    is_plain = labels.ndim == 1 and not labels.is_floating_point() and len(labels) == len(dataset)
    return labels.long() if is_plain else None
