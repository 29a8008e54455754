from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from optuna_kd.data import load_data
from optuna_kd.data.decode import decode_files
from optuna_kd.data.sources import image_folder
from optuna_kd.data.sources.image_folder import list_part
from optuna_kd.data.streaming import StreamingSet


def write(path: Path, value: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = (value, 0, value) if mode == "RGB" else value
    Image.new(mode, size, colour).save(path)


def make_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), n: int = 4, mode: str = "RGB") -> Path:
    """Images whose first pixel says class and number: 100 * class + i."""
    for part in parts:
        for label, name in enumerate(["ant", "bee"]):
            for i in range(n):
                write(root / part / name / f"{i}.png", 100 * label + i, mode=mode)
    return root


def test_classes_and_images_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{make_folder(tmp_path)}")
    assert data.class_names == ("ant", "bee")
    assert data.shape == (3, 5, 6)
    assert data.val is None
    assert data.augment == "auto"
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert data.train.images[:, 1].sum() == 0


def test_val_is_val_beside_test_and_the_test_part_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = load_data(f"imagefolder:{make_folder(tmp_path / 'both', ('train', 'val', 'test'))}")
    assert both.val is not None
    with caplog.at_level(logging.INFO, logger="optuna_kd"):
        alone = load_data(f"imagefolder:{make_folder(tmp_path / 'alone', ('train', 'val'))}")
    assert alone.val is None
    assert len(alone.test) == 8
    assert "val/ is the test part" in caplog.text


def test_other_files_are_skipped_and_deeper_images_found(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "ant" / "._0.png").write_text("not an image either")
    (tmp_path / "train" / ".hidden").mkdir()
    write(tmp_path / "train" / "ant" / "deeper" / "9.PNG", 9)
    data = load_data(f"imagefolder:{tmp_path}")
    assert data.train.labels.tolist() == [0] * 5 + [1] * 4
    assert 9 in data.train.images[:, 0, 0, 0]


def test_grey_images_stay_grey_and_join_colour_ones(tmp_path: Path) -> None:
    assert load_data(f"imagefolder:{make_folder(tmp_path / 'grey', mode='L')}").shape == (1, 5, 6)
    mixed = make_folder(tmp_path / "mixed", mode="L")
    write(mixed / "test" / "bee" / "3.png", 103, mode="RGB")
    data = load_data(f"imagefolder:{mixed}")
    assert data.shape == (3, 5, 6)
    assert (data.train.images == data.train.images[:, :1]).all()


def test_a_16_bit_image_keeps_its_high_byte(tmp_path: Path) -> None:
    make_folder(tmp_path, mode="L")
    Image.fromarray(np.full((5, 6), 0x1234, dtype=np.uint16)).save(tmp_path / "train" / "ant" / "0.png")
    assert load_data(f"imagefolder:{tmp_path}").train.images[0, 0, 0, 0] == 0x12


def test_a_subset_is_chosen_before_decoding(tmp_path: Path) -> None:
    make_folder(tmp_path, n=10)
    kept = load_data(f"imagefolder:{tmp_path}", max_train=6)
    assert kept.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(kept.test) == 20
    chosen = set(kept.train.images[:, 0, 0, 0].tolist())
    for label in range(2):
        for i in range(10):
            if 100 * label + i not in chosen:
                (tmp_path / "train" / ["ant", "bee"][label] / f"{i}.png").write_bytes(b"broken")
    assert load_data(f"imagefolder:{tmp_path}", max_train=6).key == kept.key


def test_images_of_several_sizes_need_image_size(tmp_path: Path) -> None:
    make_folder(tmp_path)
    write(tmp_path / "train" / "bee" / "2.png", 7, size=(20, 10))
    with pytest.raises(ValueError, match=r"0\.png is 6x5, .*2\.png is 20x10.*image_size"):
        load_data(f"imagefolder:{tmp_path}")
    data = load_data(f"imagefolder:{tmp_path}", image_size=4)
    assert data.shape == (3, 4, 4)
    assert data.train.images[6, 0].unique().tolist() == [7]


def test_parts_of_different_sizes_need_image_size(tmp_path: Path) -> None:
    make_folder(tmp_path, ("train",))
    for name in ("ant", "bee"):
        write(tmp_path / "test" / name / "0.png", 1, size=(8, 8))
    with pytest.raises(ValueError, match=r"is 6x5, .* is 8x8.*image_size"):
        load_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize(
    ("size", "extension"), [((40, 8), "png"), ((8, 40), "png"), ((400, 80), "jpg"), ((4, 20), "png")]
)
def test_resizing_cuts_out_the_centre(tmp_path: Path, size: tuple[int, int], extension: str) -> None:
    make_folder(tmp_path)
    width, height = size
    # Dark ends and a bright middle along the longer side: the crop must be bright.
    along = np.arange(max(size))
    middle = np.abs(along - (max(size) - 1) / 2) < min(size) * 0.8
    line = np.where(middle, 200, 0).astype(np.uint8)
    pixels = np.tile(line, (height, 1)) if width > height else np.tile(line[:, None], (1, width))
    for part in ("train", "test"):
        Image.fromarray(pixels).convert("RGB").save(tmp_path / part / "ant" / f"0.{extension}")
    (tmp_path / "train" / "ant" / "0.png").unlink() if extension == "jpg" else None
    image = load_data(f"imagefolder:{tmp_path}", image_size=8).train.images[0]
    assert image.shape == (3, 8, 8)
    assert image.min() > 190


def test_the_cache_is_used_and_follows_the_files(tmp_path: Path) -> None:
    folder, cache = make_folder(tmp_path / "data"), tmp_path / "cache"
    fresh = load_data(f"imagefolder:{folder}", cache_dir=cache)
    kept = sorted(cache.iterdir())
    assert [path.suffix for path in kept] == [".npz", ".npz"]

    # Same name, size and time, other content: only the cache can answer as before.
    target = folder / "train" / "ant" / "0.png"
    stat = target.stat()
    target.write_bytes(b"x" * stat.st_size)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_data(f"imagefolder:{folder}", cache_dir=cache).key == fresh.key

    write(target, 77)
    os.utime(target, ns=(1, 1))
    changed = load_data(f"imagefolder:{folder}", cache_dir=cache)
    assert changed.train.images[0, 0, 0, 0] == 77
    assert load_data(f"imagefolder:{folder}", cache_dir=cache, image_size=4).shape == (3, 4, 4)


def test_a_damaged_cache_file_is_decoded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, cache = make_folder(tmp_path / "data"), tmp_path / "cache"
    fresh = load_data(f"imagefolder:{folder}", cache_dir=cache)
    first, second = sorted(cache.iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    assert load_data(f"imagefolder:{folder}", cache_dir=cache).key == fresh.key
    assert caplog.text.count(f"Decoding again: the cache file {first}") == 1
    assert str(second) not in caplog.text
    assert first.read_bytes() == whole


def test_an_unwritable_cache_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    data = load_data(f"imagefolder:{folder}", cache_dir=tmp_path / "file")
    assert len(data.train) == 8
    # Said once, for both parts.
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["Decoded images are not kept"]


def test_images_that_are_too_many_for_memory_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "data")
    make_folder(folder, parts=("val",), mode="L")
    held = load_data(f"imagefolder:{folder}", image_size=4, max_train=6)
    assert not caplog.text
    monkeypatch.setattr(image_folder, "MAX_RESIDENT_BYTES", 6 * 4 * 4 * 3 - 1)
    streamed = load_data(f"imagefolder:{folder}", image_size=4, max_train=6)
    assert caplog.text.count("too large to hold in memory (more than 0.0 GB): read in every epoch, ") == 1
    for part, images in streamed.parts().items():
        assert isinstance(images, StreamingSet)
        assert not images.is_random
        mine, labels = images.batch(range(len(images)))
        theirs = held.parts()[part]
        assert torch.equal((255 * mine).round().byte(), theirs.images)
        assert torch.equal(labels, theirs.labels)
    assert (streamed.shape, streamed.class_names) == (held.shape, held.class_names)
    write(folder / "test" / "bee" / "3.png", 1, size=(9, 9))
    with pytest.raises(ValueError, match=r"Images differ in size: .*0.png is 6x5, .*3.png is 9x9 \(width x height\)"):
        load_data(f"imagefolder:{folder}").test.batch(range(8))


def test_threads_do_not_change_the_result(tmp_path: Path) -> None:
    files = list_part(make_folder(tmp_path, n=150) / "train").files
    one, many = decode_files(files, threads=1), decode_files(files, threads=4)
    assert np.array_equal(one, many)
    assert one[:, 0, 0, 0].tolist()[:150] == sorted(range(150), key=str)


def extra_class(folder: Path) -> None:
    write(make_folder(folder) / "train" / "cat" / "0.png", 1)


def one_class(folder: Path) -> None:
    for part in ("train", "test"):
        write(folder / part / "ant" / "0.png", 1)


def no_class(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part).mkdir()


def empty_class(folder: Path) -> None:
    (make_folder(folder) / "test" / "cow").mkdir()


def broken_image(folder: Path) -> None:
    (make_folder(folder) / "train" / "bee" / "1.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, r"no train/; .* It has no folders"),
        (lambda folder: make_folder(folder, ("train",)), r"no test/ or val/; .* It has the folders 'train'"),
        (lambda folder: make_folder(folder, ("test",)), "no train/"),
        (extra_class, "only in train/: 'cat'"),
        (no_class, "no class folder"),
        (one_class, "one class folder, 'ant'"),
        (empty_class, "No image in 'cow'"),
        (broken_image, r"Cannot read the image .*1\.png"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, prepare: Callable[[Path], object], message: str) -> None:
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_data(f"imagefolder:{tmp_path}")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    path = tmp_path / "train" / "ant" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"Cannot read the image .*2\.png"):
        load_data(f"imagefolder:{tmp_path}")


def test_labels_are_int64_and_images_bytes(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{make_folder(tmp_path)}")
    assert data.test.labels.dtype == torch.int64
    assert data.test.images.dtype == torch.uint8
