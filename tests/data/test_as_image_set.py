from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from optuna_kd.data import ImageSet, StreamingSet, as_image_set, convert
from optuna_kd.data.convert import PROBED_ITEMS


class Items(Dataset):
    """A map-style data set from functions of the position."""

    def __init__(self, n: int, image: Any, label: Any = lambda i: i % 3) -> None:
        self.n, self.image, self.label = n, image, label

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.image(i), self.label(i)


def grey(i: int) -> Image.Image:
    return Image.fromarray(np.full((4, 5), i, dtype=np.uint8))


def noise(i: int) -> torch.Tensor:
    """Draws from all three global generators."""
    return torch.rand(1, 2, 2) + random.random() + float(np.random.rand()) + 10 * i


@pytest.mark.parametrize("to", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 8, 9), (1, 8, 9)), ((6, 8, 9, 3), (3, 8, 9)), ((6, 3, 8, 9), (3, 8, 9)), ((6, 8, 9, 1), (1, 8, 9))],
)
def test_the_channel_axis_is_found(to: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = as_image_set((to(raw), to(np.arange(6))))
    assert isinstance(data, ImageSet)
    assert data.shape == expected
    assert data.images.dtype == torch.uint8
    # Pixel (2, 7) of image 5, its last channel, wherever that axis was.
    last = raw[5, 2, 7] if len(shape) == 3 else raw[5, 2, 7, -1] if shape[-1] in (1, 3) else raw[5, -1, 2, 7]
    assert data.images[5, -1, 2, 7] == last


def test_an_unclear_channel_axis_follows_the_habit_of_the_library() -> None:
    assert as_image_set((np.zeros((2, 4, 5, 3)), [0, 1])).shape == (3, 4, 5)
    assert as_image_set((torch.zeros(2, 4, 5, 3), [0, 1])).shape == (4, 5, 3)
    assert as_image_set((torch.zeros(2, 16, 5, 6), [0, 1])).shape == (16, 5, 6)


@pytest.mark.parametrize("shape", [(6, 8, 8, 8), (6, 8), (6, 1, 1, 8, 8)])
def test_a_shape_that_is_no_stack_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Cannot tell the channels|Images must be"):
        as_image_set((np.zeros(shape, dtype=np.float32), np.zeros(6, dtype=int)))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, torch.float32),
        (np.float16, torch.float32),
        (np.int64, torch.uint8),
        (np.uint16, torch.uint8),
        (">f4", torch.float32),
        (bool, torch.float32),
    ],
)
def test_types_become_uint8_or_float32(dtype: Any, expected: torch.dtype) -> None:
    data = as_image_set((np.ones((2, 4, 4), dtype=dtype), [0, 1]))
    assert isinstance(data, ImageSet)
    assert data.images.dtype == expected
    assert (data.images == 1).all()


def test_the_set_does_not_follow_later_changes_of_the_array() -> None:
    raw = np.zeros((2, 4, 4), dtype=np.float32)
    data = as_image_set((raw, np.array([0, 1])))
    raw[:] = 7
    assert isinstance(data, ImageSet)
    assert data.images.max() == 0


def test_keras_style_label_columns_are_accepted() -> None:
    assert as_image_set((np.zeros((3, 4, 4)), np.array([[0], [2], [1]]))).labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((2, 4, 4), 300), [0, 1], r"0\.\.255; got 300\.\.300"),
        (np.full((2, 4, 4), "a"), [0, 1], "must hold numbers"),
        (np.zeros((2, 4, 4)), [0.0, 1.0], "whole numbers"),
        (np.zeros((2, 4, 4)), np.eye(2, dtype=int), "argmax"),
        (np.zeros((2, 4, 4)), [0, -1], "lowest here is -1"),
        (np.zeros((2, 4, 4)), [0, 1, 2], "2 images and 3 labels"),
        (np.full((2, 4, 4), np.inf), [0, 1], "finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images: np.ndarray, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_image_set((images, labels))


@pytest.mark.parametrize(
    ("image", "shape", "dtype"),
    [
        (grey, (1, 4, 5), torch.uint8),
        (lambda i: grey(i).convert("RGB"), (3, 4, 5), torch.uint8),
        (lambda i: grey(i).convert("P"), (3, 4, 5), torch.uint8),
        (lambda i: np.full((4, 5, 3), i, dtype=np.uint8), (3, 4, 5), torch.uint8),
        (lambda i: torch.full((1, 4, 5), float(i)), (1, 4, 5), torch.float32),
    ],
    ids=["grey", "rgb", "palette", "array", "tensor"],
)
def test_a_deterministic_data_set_becomes_resident(image: Any, shape: Any, dtype: torch.dtype) -> None:
    data = as_image_set(Items(10, image))
    assert isinstance(data, ImageSet)
    assert data.shape == shape
    assert data.images.dtype == dtype
    assert data.images[:, 0, 0, 0].tolist() == list(range(10))
    assert data.labels.tolist() == [i % 3 for i in range(10)]


def test_labels_may_be_numpy_or_torch_scalars() -> None:
    data = as_image_set(TensorDataset(torch.zeros(3, 1, 4, 4), torch.tensor([2, 0, 1])))
    assert data.labels.tolist() == [2, 0, 1]
    assert as_image_set(Items(3, grey, lambda i: np.int32(i))).labels.tolist() == [0, 1, 2]


def test_class_names_come_from_the_data_set_unless_given() -> None:
    dataset = Items(6, grey)
    dataset.classes = ["a", "b", "c"]  # type: ignore[attr-defined]
    assert as_image_set(dataset).class_names == ("a", "b", "c")
    assert as_image_set(Subset(dataset, [0, 1])).class_names == ("a", "b", "c")
    assert as_image_set(dataset, class_names=("x", "y", "z")).class_names == ("x", "y", "z")
    assert as_image_set(as_image_set(dataset), class_names=("x", "y", "z")).class_names == ("x", "y", "z")


def test_random_transforms_are_noticed_and_repeat_with_the_seed() -> None:
    data = as_image_set(Items(6, noise))
    assert isinstance(data, StreamingSet)
    assert data.is_random
    assert data.shape == (1, 2, 2)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    first, labels = data.batch([5, 0, 3], 11)
    assert labels.tolist() == [2, 0, 0]
    assert torch.equal(first, data.batch([5, 0, 3], 11)[0])
    assert not torch.equal(first, data.batch([5, 0, 3], 12)[0])
    # Images of one view draw for themselves: without the 10 i that `noise` adds, they still differ.
    assert not torch.allclose(first[0] - 50, first[1])
    # One image of one view is the same in any company.
    assert torch.equal(first[2], data.batch([3], 11)[0][0])
    assert data.checksum == as_image_set(Items(6, noise)).checksum


def test_a_rare_random_transform_is_noticed_too() -> None:
    calls = {"count": 0}

    def rarely(i: int) -> torch.Tensor:
        calls["count"] += 1
        # Changes only after the probes: found by reading decoded images again.
        return torch.full((1, 2, 2), float(i == 40 and calls["count"] > 80))

    data = as_image_set(Items(60, rarely))
    assert isinstance(data, StreamingSet)
    assert data.is_random


def test_the_generators_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    data = as_image_set(Items(6, noise))
    data.batch([0, 1], 5)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_private_generators_do_not_change_the_checksum() -> None:
    def build() -> StreamingSet:
        generator = np.random.default_rng()
        data = as_image_set(Items(6, lambda i: generator.random((1, 4, 4), dtype=np.float32)))
        assert isinstance(data, StreamingSet)
        return data

    assert build().checksum == build().checksum


@pytest.mark.parametrize(
    ("cores", "how"),
    [(0, "in this process (no core is free)"), (1, "by 1 DataLoader worker."), (3, "by 3 DataLoader workers.")],
)
def test_a_set_too_large_for_memory_is_streamed_and_how_is_said(
    cores: int, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(convert, "spare_cores", lambda: cores)
    data = as_image_set(Items(10, grey), max_resident_bytes=100)
    assert isinstance(data, StreamingSet)
    assert not data.is_random
    assert f"too large to hold in memory (more than 0.0 GB): read in every epoch, {how}" in caplog.text
    images, _ = data.batch([3, 9])
    assert images.dtype == torch.float32
    assert torch.allclose(images[:, 0, 0, 0], torch.tensor([3.0, 9.0]) / 255)


def test_a_streaming_subset_keeps_labels_and_classes() -> None:
    data = as_image_set(Items(6, noise))
    part = data.subset([4, 3])
    assert isinstance(part, StreamingSet)
    assert part.labels.tolist() == [1, 0]
    assert part.num_classes == 3
    assert part.batch([0])[0].floor().max() >= 40


class CountingReads(Items):
    """Counts items read; its `targets` save reading every item for its label."""

    def __init__(self, n: int, shift: int = 0) -> None:
        super().__init__(n, noise)
        self.targets = [(i + shift) % 3 for i in range(n)]
        self.reads = 0

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        self.reads += 1
        return super().__getitem__(i)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: Subset(d, range(1, 50))], ids=["plain", "subset"])
def test_targets_save_reading_every_item(wrap: Any) -> None:
    dataset = CountingReads(50)
    data = as_image_set(wrap(dataset))
    assert data.labels.tolist() == [i % 3 for i in range(50)][-len(data) :]
    assert dataset.reads <= 5 * PROBED_ITEMS


def test_targets_that_disagree_with_the_items_are_not_used() -> None:
    assert as_image_set(CountingReads(20, shift=1)).labels.tolist() == [i % 3 for i in range(20)]


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataLoader(Items(3, grey)), r"DataLoader.*loader\.dataset"),
        (Endless(), "IterableDataset"),
        (7, "got int"),
        ("cifar10", "got str"),
        ({"image": 1}, "got dict"),
    ],
)
def test_other_things_are_refused_with_what_is_accepted(source: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as info:
        as_image_set(source)
    assert "Accepted are" in str(info.value)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Items(0, grey), "empty"),
        (Items(3, lambda i: "x"), "got str"),
        (Items(3, grey, lambda i: "cat"), "item 0 has 'cat'"),
        (Items(3, lambda i: np.zeros((4, 4 + i))), r"item 0 is \(1, 4, 4\).*item 1 is \(1, 4, 5\)"),
        ([{"image": 1, "label": 2}] * 3, "dict with the keys 'image', 'label'"),
        (Items(3, lambda i: Image.new("F", (4, 4))), "no natural range"),
    ],
)
def test_items_that_cannot_be_used_are_named(dataset: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_image_set(dataset)
