"""`ImageSet`: labelled images resident in memory, the form in which everything here is trained and scored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Indices = Sequence[int] | np.ndarray | Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images held as two tensors, validated once.

    Args:
        images: [N, C, H, W], uint8 in 0..255 or finite float32.
        labels: [N], int64 in 0..K-1.
        class_names: One name per class, in label order; without them K is the largest label + 1.

    Raises:
        ValueError: If the set is empty, or shapes, types, counts or label range do not fit.

    Example:
        >>> data = ImageSet(torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> len(data), data.shape, data.num_classes
        (4, (1, 8, 8), 2)
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels, self.class_names)
        if self.images.ndim != 4:
            raise ValueError(f"Images must be [N, C, H, W]; got the shape {tuple(self.images.shape)}.")
        if self.images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(f"Images must be uint8 or float32; got {self.images.dtype}.")
        if len(self.images) != len(self.labels):
            raise ValueError(f"Every image needs a label; got {len(self.images)} images and {len(self.labels)} labels.")
        if 0 in self.images.shape:
            raise ValueError(f"Images must not be empty; got the shape {tuple(self.images.shape)}.")
        if self.images.is_floating_point():
            broken = ~self.images.isfinite().flatten(1).all(dim=1)
            if broken.any():
                first = int(broken.nonzero()[0])
                raise ValueError(
                    f"Images must be finite; {int(broken.sum())} of {len(self)} hold NaN or infinity, "
                    f"the first at index {first}."
                )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def num_classes(self) -> int:
        """The number of classes K: the number of class names, or else the largest label + 1."""
        return len(self.class_names) if self.class_names is not None else int(self.labels.max()) + 1

    @cached_property
    def checksum(self) -> str:
        """16 hexadecimal digits that identify the content (images and labels, not the class names)."""
        digest = hashlib.sha256(f"{self.images.dtype}{tuple(self.images.shape)}".encode())
        digest.update(self.images.cpu().contiguous().numpy().data)
        digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def subset(self, indices: Indices) -> ImageSet:
        """Return the images at `indices`, in that order, with the same classes.

        Args:
            indices: [M], positions in 0..N-1.
        """
        index = as_index(indices, len(self))
        names = self.class_names
        if names is None:
            # A part may lack the last classes; names made from numbers keep its K equal to the whole's.
            names = tuple(str(label) for label in range(self.num_classes))
        return ImageSet(*self._take(index), names)

    def batch(self, indices: Indices, view: int | None = None) -> tuple[Tensor, Tensor]:
        """Return images [M, C, H, W] as they are stored and labels [M].

        Args:
            indices: [M], positions in 0..N-1.
            view: Accepted so that a `StreamingSet` can stand in; the views of a resident image are equal.
        """
        return self._take(as_index(indices, len(self)))

    def read_ahead(
        self, batches: Sequence[Indices], seeds: Sequence[int | None] | None = None, workers: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return what `batch` gives for each of `batches`.

        Args:
            batches: [M] each, positions in 0..N-1.
            seeds: Accepted, like `workers`, so that a `StreamingSet` can stand in; nothing here takes time.
            workers: See `seeds`.
        """
        return (self.batch(batch) for batch, _ in pair_seeds(batches, seeds))

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the same set with its images on `device`: itself where they are there already.

        Labels stay where they are: they are counted, split and drawn from on the CPU, and a batch of them is small.
        """
        images = self.images.to(device)
        if images is self.images:
            return self
        moved = ImageSet(images, self.labels, self.class_names)
        if "checksum" in self.__dict__:  # else all pixels would have to come back for it
            moved.__dict__["checksum"] = self.checksum
        return moved

    def _take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        # Whole images are copied at once; indexing with [] goes element by element.
        images = self.images.index_select(0, index.to(self.images.device, non_blocking=True))
        return images, self.labels[index.to(self.labels.device)]


def check_labels(labels: Tensor, class_names: tuple[str, ...] | None = None) -> None:
    """Check that `labels` is a non-empty int64 vector of classes within the range of `class_names`.

    Args:
        labels: [N].
        class_names: One name per class, or None where any label from 0 up is fine.

    Raises:
        ValueError: With what came and what is allowed.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"Labels must be [N], int64; got {tuple(labels.shape)}, {labels.dtype}.")
    if len(labels) == 0:
        raise ValueError("The data set is empty; at least one labelled image is needed.")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise ValueError(f"Labels are numbered from 0; the lowest here is {lowest}.")
    if class_names is not None and highest >= len(class_names):
        raise ValueError(
            f"Labels must be below the number of classes; the highest here is {highest}, "
            f"with {len(class_names)} class names."
        )


def pair_seeds(batches: Sequence[Indices], seeds: Sequence[int | None] | None) -> Iterator[tuple[Indices, int | None]]:
    """Pair batches with their seeds; without any each has None."""
    return zip(batches, [None] * len(batches) if seeds is None else seeds, strict=True)


def as_index(indices: Indices, length: int) -> Tensor:
    """Turn `indices` into an int64 tensor [M], checked against `length`.

    Raises:
        ValueError: If indices are not whole numbers in 0..length-1, or there are none.
    """
    index = torch.as_tensor(np.asarray(indices) if not isinstance(indices, Tensor) else indices)
    if index.ndim != 1 or len(index) == 0 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(
            f"Indices must be a non-empty vector of whole numbers; got {tuple(index.shape)}, {index.dtype}."
        )
    index = index.long()
    if int(index.min()) < 0 or int(index.max()) >= length:
        raise ValueError(f"Indices must be in 0..{length - 1}; got {int(index.min())}..{int(index.max())}.")
    return index
