"""The cache of decoded images: whatever happens to a file, the pixels are right."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from optuna_kd.data.pixel_cache import cache_file, load_arrays, save_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(6)
LENGTHS = {"images": 6, "labels": 6}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = cache_file(tmp_path / "cache", "0123")
    save_arrays(file, images=IMAGES, labels=LABELS)
    return file


def test_arrays_come_back(file: Path) -> None:
    arrays = load_arrays(file, LENGTHS)
    assert arrays is not None
    assert arrays["images"].dtype == np.uint8
    assert np.array_equal(arrays["images"], IMAGES)
    assert np.array_equal(arrays["labels"], LABELS)
    assert [path.name for path in file.parent.iterdir()] == ["images-0123.npz"]
    (other := file.with_name("other")).touch()
    assert file.stat().st_mode == other.stat().st_mode  # others may read it, where they may read files


def test_a_missing_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_arrays(tmp_path / "none.npz", LENGTHS) is None
    (tmp_path / "file").touch()
    assert load_arrays(tmp_path / "file" / "none.npz", LENGTHS) is None
    assert not caplog.text


def test_no_byte_can_be_altered_unseen(file: Path) -> None:
    whole = file.read_bytes()
    for position in range(0, len(whole), 3):
        altered = bytearray(whole)
        altered[position] ^= 0x10
        file.write_bytes(altered)
        arrays = load_arrays(file, LENGTHS)
        # Times and the like inside the archive may change without harm.
        assert arrays is None or (
            np.array_equal(arrays["images"], IMAGES) and np.array_equal(arrays["labels"], LABELS)
        ), position


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_file_that_is_cut_short_is_said(file: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    file.write_bytes(file.read_bytes()[:length])
    assert load_arrays(file, LENGTHS) is None
    assert f"Decoding again: the cache file {file} cannot be used" in caplog.text


def test_altered_pixels_are_said(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = file.read_bytes()
    position = whole.index(IMAGES.tobytes()) + 77
    file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    assert load_arrays(file, LENGTHS) is None
    assert "the checksum of images.npy differs" in caplog.text


def test_another_number_of_images_is_not_used(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_arrays(file, {"images": 7}) is None
    assert "another number of images" in caplog.text


def test_a_folder_without_room_is_said_once_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    for key in ("one", "two"):
        save_arrays(cache_file(tmp_path, key), images=IMAGES)
    assert caplog.text.count("not kept") == 1
    assert f"cannot write to {tmp_path} (No space left on device)" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    save_arrays(cache_file(tmp_path, "key"), images=IMAGES)
    assert "not kept" in caplog.text


def write_and_read(file: Path) -> None:
    images = np.full((40, 3, 32, 32), 7, dtype=np.uint8)
    for _ in range(30):
        save_arrays(file, images=images)
        arrays = load_arrays(file, {"images": 40})
        assert arrays is not None
        assert (arrays["images"] == 7).all()


def test_processes_that_write_the_same_never_read_half_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = cache_file(tmp_path, "shared")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_and_read, args=(file,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optuna_kd")
