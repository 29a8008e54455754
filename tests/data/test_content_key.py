"""Data sets of files are decoded once: their content has a name before it is decoded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder, VisionDataset

from optuna_kd.data import ImageSet, StreamingSet, as_image_set, convert
from optuna_kd.data.content_key import content_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four images, each of one colour."""
    for label, name in enumerate(["ant", "bee"]):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (6, 5), (100 * label + i, 0, 0)).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def halve(image: Any) -> Any:
    return image.resize((3, 3))


class Own(ImageFolder):
    pass


RESIZE = transforms.Compose([transforms.Resize(4), transforms.CenterCrop(4)])


def test_the_key_follows_files_transforms_and_subsets(folder: Path) -> None:
    def keys() -> list[str | None]:
        return [
            content_key(ImageFolder(folder)),
            content_key(ImageFolder(folder, transform=RESIZE)),
            content_key(ImageFolder(folder, transform=transforms.Resize(4))),
            content_key(ImageFolder(folder, transform=transforms.Resize(5))),
            content_key(Subset(ImageFolder(folder), [0, 5])),
            content_key(Subset(ImageFolder(folder), [5, 0])),
        ]

    first = keys()
    assert None not in first
    assert len(set(first)) == len(first)
    assert keys() == first
    os.utime(folder / "ant" / "0.png", ns=(1, 1))
    assert not set(keys()) & set(first)


@pytest.mark.parametrize(
    "create",
    [
        lambda folder: ImageFolder(folder, transform=lambda image: image),
        lambda folder: ImageFolder(folder, transform=halve),
        lambda folder: ImageFolder(folder, transform=transforms.Lambda(halve)),
        lambda folder: ImageFolder(folder, target_transform=halve),
        Own,
        VisionDataset,
        lambda folder: [(np.zeros((4, 4)), 0)],
    ],
    ids=["lambda", "function", "inside", "target", "subclass", "no folder", "list"],
)
def test_what_only_decoding_would_tell_has_no_key(folder: Path, create: Callable[[Path], Any]) -> None:
    assert content_key(create(folder)) is None


def test_a_folder_is_decoded_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = as_image_set(ImageFolder(folder, transform=RESIZE), cache_dir=cache)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(convert, "_decode", None)
    again = as_image_set(ImageFolder(folder, transform=RESIZE), cache_dir=cache)
    assert isinstance(again, ImageSet)
    assert again.checksum == first.checksum
    assert again.class_names == ("ant", "bee")
    assert again.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]


def test_pixels_that_are_not_those_of_the_files_are_decoded_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    as_image_set(ImageFolder(folder), cache_dir=cache)
    path = folder / "bee" / "3.png"
    stat = path.stat()
    Image.new("RGB", (6, 5), (99, 0, 0)).save(path)
    path.write_bytes(path.read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    data = as_image_set(ImageFolder(folder), cache_dir=cache)
    assert isinstance(data, ImageSet)
    assert data.images[7, 0, 0, 0] == 99
    assert "not those of the data set any more" in caplog.text


def test_random_transforms_leave_nothing_in_the_cache(folder: Path, tmp_path: Path) -> None:
    flipped = transforms.Compose([transforms.RandomCrop(3, padding=2), transforms.ToTensor()])
    data = as_image_set(ImageFolder(folder, transform=flipped), cache_dir=tmp_path / "cache")
    assert isinstance(data, StreamingSet)
    assert not (tmp_path / "cache").exists()


def test_floating_images_are_kept_as_they_are(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        data = as_image_set(ImageFolder(folder, transform=transforms.ToTensor()), cache_dir=tmp_path / "cache")
        assert isinstance(data, ImageSet)
        assert data.images.dtype == torch.float32
        assert data.images[7, 0, 0, 0] == torch.tensor(103.0) / 255
