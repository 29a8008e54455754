"""CIFAR-10 and CIFAR-100: the binary release, the checksummed Python release, or an image folder.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009);
https://www.cs.toronto.edu/~kriz/cifar.html describes both releases.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.sources.base import DataSource, DataSplits, LoadRequest
from optuna_kd.data.sources.image_folder import load_image_folder

AUGMENT = "crop-flip"
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """How one of the two sets is laid out.

    Args:
        name: The name of the source.
        num_classes: Number of classes.
        train: Training files of the Python release; those of the binary release end in ``.bin``.
        test: The test file, likewise.
        label_bytes: Label bytes before the pixels of a binary record; the last one is the class.
        label_key: Key of the labels in a pickled batch.
        names_file: Text file of class names in the binary release.
        class_names: Class names where that file is missing; numbers if empty.
        subfolders: Folder names of the two releases, looked into as well.
    """

    name: str
    num_classes: int
    train: tuple[str, ...]
    test: str
    label_bytes: int
    label_key: str
    names_file: str
    subfolders: tuple[str, str]
    class_names: tuple[str, ...] = ()


CIFAR10 = Release(
    name="cifar10",
    num_classes=10,
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    label_bytes=1,
    label_key="labels",
    names_file="batches.meta.txt",
    subfolders=("cifar-10-batches-bin", "cifar-10-batches-py"),
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
)
CIFAR100 = Release(
    name="cifar100",
    num_classes=100,
    train=("train",),
    test="test",
    label_bytes=2,
    label_key="fine_labels",
    names_file="fine_label_names.txt",
    subfolders=("cifar-100-binary", "cifar-100-python"),
)


def load_cifar(request: LoadRequest, release: Release) -> DataSplits:
    """Load CIFAR-10 or CIFAR-100 from any of its forms, recognised by its files.

    Args:
        request: What to load; its `folder` holds the files, or the folder of a release.
        release: Which of the two.

    Raises:
        ValueError: If no form of the release is there, files are missing or damaged, or labels out of range.
    """
    root = request.folder
    if root is None:
        raise ValueError(f"The data source {release.name!r} needs a folder: write {release.name}:DIR.")
    for folder in (root, *(root / name for name in release.subfolders)):
        for suffix, read in ((".bin", read_binary), ("", read_pickled)):
            # A folder called train is an image folder, not the training batch of CIFAR-100.
            if any((folder / f"{name}{suffix}").is_file() for name in (*release.train, release.test)):
                return _load_batches(request, release, folder, suffix, read)
    if (root / "train").is_dir():
        return load_image_folder(request, release.name, AUGMENT, num_classes=release.num_classes)
    raise ValueError(
        f"{root} holds no {release.name}: expected {release.train[0]}.bin and {release.test}.bin (binary "
        f"release), {release.train[0]} and {release.test} (Python release), "
        "or train/<class>/ and test/<class>/."
    )


def read_binary(path: Path, release: Release) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of the binary release: images uint8 [N, 3, 32, 32] and labels int64 [N].

    Raises:
        ValueError: If the file is not a whole number of records.
    """
    record = release.label_bytes + _PIXELS
    content = np.fromfile(path, dtype=np.uint8)
    if len(content) == 0 or len(content) % record:
        raise ValueError(
            f"{path} has {len(content):,} bytes, not a whole number of {record}-byte records; copy it again."
        )
    records = content.reshape(-1, record)
    images = records[:, release.label_bytes :].reshape(-1, 3, 32, 32)
    return images, records[:, release.label_bytes - 1].astype(np.int64)


def read_pickled(path: Path, release: Release) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch of the Python release, only if it is the published file.

    Raises:
        ValueError: If the checksum is not the published one.
    """
    content = path.read_bytes()
    expected = published_checksums(release)[path.name]
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the published file (MD5 {found}, published {expected}). Pickled files can run "
            "code, so no other is read; use the binary release or an image folder."
        )
    # MD5 can be forged, hence the restricted reader as well.
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    return images, np.asarray(batch[release.label_key], dtype=np.int64)


def published_checksums(release: Release) -> dict[str, str]:
    """Return the published MD5 of every batch file, as torchvision records them."""
    # Inside: torchvision takes a second to import.
    from torchvision import datasets

    dataset = datasets.CIFAR10 if release is CIFAR10 else datasets.CIFAR100
    return dict((*dataset.train_list, *dataset.test_list))


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain data; every other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        raise ValueError(f"A pickled batch may hold arrays only; this one asks for {module}.{name}.")


def _load_batches(request: LoadRequest, release: Release, folder: Path, suffix: str, read: Any) -> DataSplits:
    train_paths = [folder / f"{name}{suffix}" for name in release.train]
    test_path = folder / f"{release.test}{suffix}"
    missing = [path.name for path in (*train_paths, test_path) if not path.is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)} of the {release.name} release; unpack it again.")
    names = _class_names(folder, release)
    train = _join((read(path, release) for path in train_paths), folder, release)
    test = _join([read(test_path, release)], folder, release)
    kept = request.choose_train(train[1])
    return DataSplits(
        release.name,
        ImageSet(torch.from_numpy(train[0][kept]), torch.from_numpy(train[1][kept]), names),
        None,
        ImageSet(torch.from_numpy(test[0]), torch.from_numpy(test[1]), names),
        names,
        AUGMENT,
    )


def _join(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], folder: Path, release: Release
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*batches, strict=True)
    joined = np.concatenate(images), np.concatenate(labels)
    lowest, highest = int(joined[1].min()), int(joined[1].max())
    if lowest < 0 or highest >= release.num_classes:
        raise ValueError(
            f"The labels of {release.name} are 0..{release.num_classes - 1}; {folder} has "
            f"{lowest}..{highest}. Is it another data set?"
        )
    return joined


def _class_names(folder: Path, release: Release) -> tuple[str, ...]:
    path = folder / release.names_file
    if path.is_file():
        names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
        if len(names) == release.num_classes:
            return names
    return release.class_names or tuple(str(label) for label in range(release.num_classes))


SOURCES = (
    DataSource("cifar10", "CIFAR-10: binary release or image folder", partial(load_cifar, release=CIFAR10)),
    DataSource("cifar100", "CIFAR-100: binary release or image folder", partial(load_cifar, release=CIFAR100)),
)
