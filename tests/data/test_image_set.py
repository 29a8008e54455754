from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from optuna_kd.data import ImageSet


def make_set(n: int = 6, classes: int = 3) -> ImageSet:
    images = torch.arange(n * 2 * 4 * 5, dtype=torch.float32).reshape(n, 2, 4, 5)
    return ImageSet(images, torch.arange(n) % classes)


def test_it_tells_length_shape_and_classes() -> None:
    data = make_set()
    assert len(data) == 6
    assert data.shape == (2, 4, 5)
    assert data.num_classes == 3
    named = ImageSet(data.images, data.labels, ("a", "b", "c", "d"))
    assert named.num_classes == 4


@pytest.mark.parametrize("indices", [[4, 1], np.array([4, 1]), torch.tensor([4, 1])], ids=["list", "array", "tensor"])
def test_a_subset_keeps_order_and_number_of_classes(indices: object) -> None:
    data = make_set()
    part = data.subset(indices)  # type: ignore[arg-type]
    assert part.labels.tolist() == [1, 1]
    assert part.num_classes == data.num_classes
    assert torch.equal(part.images[0], data.images[4])
    images, labels = data.batch(indices)  # type: ignore[arg-type]
    assert torch.equal(images, part.images)
    assert torch.equal(labels, part.labels)


def test_the_checksum_follows_the_content() -> None:
    data = make_set()
    again = ImageSet(data.images.clone(), data.labels.clone(), ("a", "b", "c"))
    assert data.checksum == again.checksum
    assert len(data.checksum) == 16
    int(data.checksum, 16)

    changed = data.images.clone()
    changed[-1, -1, -1, -1] += 1
    relabelled = data.labels.clone()
    relabelled[-1] = 0
    others = [
        ImageSet(changed, data.labels),
        ImageSet(data.images, relabelled),
        ImageSet(data.images.reshape(6, 2, 5, 4), data.labels),
        data.subset([1, 0, 2, 3, 4, 5]),
    ]
    assert len({data.checksum, *(other.checksum for other in others)}) == 5


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_set().labels = torch.zeros(6, dtype=torch.int64)  # type: ignore[misc]


IMAGES = torch.zeros(4, 1, 8, 8)
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "names", "message"),
    [
        (IMAGES[:, 0], LABELS, None, r"\[N, C, H, W\]; got the shape \(4, 8, 8\)"),
        (IMAGES.double(), LABELS, None, "uint8 or float32; got torch.float64"),
        (IMAGES[:3], LABELS, None, "3 images and 4 labels"),
        (IMAGES[:0], LABELS[:0], None, "empty"),
        (IMAGES[..., :0], LABELS, None, "must not be empty"),
        (IMAGES, LABELS.int(), None, "int64; got .* torch.int32"),
        (IMAGES, LABELS - 1, None, "lowest here is -1"),
        (IMAGES, LABELS * 5, ("a", "b"), "highest here is 5, with 2 class names"),
        (IMAGES.index_fill(0, torch.tensor([2]), float("nan")), LABELS, None, "1 of 4 .* index 2"),
    ],
)
def test_what_does_not_fit_is_refused(
    images: torch.Tensor, labels: torch.Tensor, names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, names)


@pytest.mark.parametrize("indices", [[], [6], [-1], [0.5], [True, False, True, True, True, True]])
def test_indices_are_checked(indices: list) -> None:
    with pytest.raises(ValueError, match="Indices must be"):
        make_set().subset(indices)
