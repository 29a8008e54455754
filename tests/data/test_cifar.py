from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optuna_kd.data import load_data
from optuna_kd.data.sources import cifar

N_CLASSES = {"cifar10": 10, "cifar100": 100}
TRAIN = {"cifar10": [f"data_batch_{i}" for i in range(1, 6)], "cifar100": ["train"]}
TEST = {"cifar10": "test_batch", "cifar100": "test"}


def make_batch(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Every class twice, with random pixels."""
    labels = np.repeat(np.arange(N_CLASSES[name]), 2)
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    return pixels, labels


def write_binary(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, file in enumerate([*TRAIN[name], TEST[name]]):
        pixels, labels = make_batch(name, seed)
        columns = [labels[:, None]] if name == "cifar10" else [labels[:, None] // 5, labels[:, None]]
        records = np.concatenate([*columns, pixels], axis=1).astype(np.uint8)
        (folder / f"{file}.bin").write_bytes(records.tobytes())
    return folder


def python2_pickle(pixels: np.ndarray, labels: np.ndarray, key: str) -> bytes:
    """The stream that Python 2 wrote: byte strings, and numpy's old module names."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    raw = pixels.tobytes()
    minus_one = number(-1)
    dtype = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text("|") + b"NNN" + minus_one + minus_one + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    items = text(key) + b"](" + b"".join(number(int(label)) for label in labels) + b"e" + text("data") + array + state
    return b"\x80\x02}(" + items + b"u."


def write_pickled(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    key = {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    checksums = {}
    for seed, file in enumerate([*TRAIN[name], TEST[name]]):
        content = python2_pickle(*make_batch(name, seed), key)
        (folder / file).write_bytes(content)
        checksums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar, "published_checksums", lambda release: checksums)
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "release folder"])
def test_the_binary_release_is_read(tmp_path: Path, name: str, nested: bool) -> None:
    subfolder = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    write_binary(tmp_path / subfolder if nested else tmp_path, name)
    data = load_data(f"{name}:{tmp_path}")
    assert (data.name, data.augment, data.val) == (name, "crop-flip", None)
    assert data.num_classes == N_CLASSES[name]
    assert data.shape == (3, 32, 32)
    assert len(data.train) == len(TRAIN[name]) * 2 * N_CLASSES[name]
    pixels, labels = make_batch(name, len(TRAIN[name]))
    assert data.test.labels.tolist() == labels.tolist()
    assert np.array_equal(data.test.images.numpy(), pixels.reshape(-1, 3, 32, 32))


def test_class_names_are_those_of_the_release(tmp_path: Path) -> None:
    assert load_data(f"cifar10:{write_binary(tmp_path / '10', 'cifar10')}").class_names[:2] == (
        "airplane",
        "automobile",
    )
    folder = write_binary(tmp_path / "100", "cifar100")
    assert load_data(f"cifar100:{folder}").class_names[99] == "99"
    (folder / "fine_label_names.txt").write_text("\n".join(f"name{i}" for i in range(100)) + "\n\n")
    assert load_data(f"cifar100:{folder}").class_names[99] == "name99"


def test_a_subset_takes_every_class(tmp_path: Path) -> None:
    data = load_data(f"cifar10:{write_binary(tmp_path, 'cifar10')}", max_train=30)
    assert torch.bincount(data.train.labels).tolist() == [3] * 10
    assert len(data.test) == 20


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_published_pickles_equal_the_binary_release(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = load_data(f"{name}:{write_pickled(tmp_path / 'py', name, monkeypatch)}")
    binary = load_data(f"{name}:{write_binary(tmp_path / 'bin', name)}")
    assert pickled.key == binary.key


def test_a_pickle_that_is_not_the_published_one_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pickled(tmp_path, "cifar10", monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(cifar, "_ArrayUnpickler", None)
    with pytest.raises(ValueError, match=r"data_batch_1 is not the published file .*c99cafc152244af753f735de768cd75f"):
        load_data(f"cifar10:{tmp_path}")


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (open, (str(self.marker), "w"))


def test_a_pickle_that_asks_for_code_is_refused_even_with_the_right_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pickle.dumps({"data": Payload(tmp_path / "marker"), "labels": [0]}, protocol=2)
    (tmp_path / "data_batch_1").write_bytes(content)
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar, "published_checksums", lambda release: {"data_batch_1": checksum})
    with pytest.raises(ValueError, match="arrays only"):
        cifar.read_pickled(tmp_path / "data_batch_1", cifar.CIFAR10)
    assert not (tmp_path / "marker").exists()


def test_the_published_checksums_name_every_file() -> None:
    for release in (cifar.CIFAR10, cifar.CIFAR100):
        assert set(cifar.published_checksums(release)) == {*release.train, release.test}


def write_folder(root: Path, classes: int) -> Path:
    for part in ("train", "test"):
        for label in range(classes):
            path = root / part / f"class{label}" / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (32, 32), (label, 0, 0)).save(path)
    return root


def test_an_image_folder_with_the_right_number_of_classes_is_read(tmp_path: Path) -> None:
    data = load_data(f"cifar10:{write_folder(tmp_path / 'ten', 10)}")
    assert (data.name, data.augment, data.num_classes) == ("cifar10", "crop-flip", 10)
    folder = write_folder(tmp_path / "three", 3)
    with pytest.raises(ValueError, match=r"3 class folders, cifar10 has 10 classes; .* imagefolder:"):
        load_data(f"cifar10:{folder}")


def test_a_folder_without_any_form_of_the_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no cifar100: expected train\.bin and test\.bin"):
        load_data(f"cifar100:{tmp_path}")


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    write_binary(tmp_path, "cifar10")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks data_batch_3\.bin"):
        load_data(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x00" * 5000)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin has 5,000 bytes, not a whole number of 3073"):
        load_data(f"cifar10:{tmp_path}")


def test_labels_outside_the_range_are_refused(tmp_path: Path) -> None:
    write_binary(tmp_path, "cifar10")
    record = bytes([10]) + bytes(3072)
    (tmp_path / "test_batch.bin").write_bytes(record)
    with pytest.raises(ValueError, match=r"labels of cifar10 are 0\.\.9; .* 10\.\.10"):
        load_data(f"cifar10:{tmp_path}")
