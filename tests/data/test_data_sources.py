from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from optuna_kd.data import DATA_SOURCES, DataSplits, ImageSet, load_data
from optuna_kd.registry import UnknownNameError


def test_digits_are_all_there_once() -> None:
    data = load_data("digits")
    assert (len(data.train), data.val, len(data.test)) == (1197, None, 600)
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    assert data.class_names == tuple("0123456789")
    assert data.train.images.dtype == torch.uint8
    raw = load_digits()
    joined = torch.cat([data.train.images, data.test.images]).flatten(1).numpy() / (255 / 16)
    assert sorted(map(tuple, np.round(joined))) == sorted(map(tuple, raw.data))
    assert torch.bincount(torch.cat([data.train.labels, data.test.labels])).tolist() == np.bincount(raw.target).tolist()
    assert torch.bincount(data.test.labels).min() >= 57


def test_the_test_images_never_change() -> None:
    whole, part = load_data("digits"), load_data("digits", max_train=200)
    assert whole.test.checksum == part.test.checksum == load_data("digits").test.checksum
    assert len(part.train) == 200
    counts = torch.bincount(part.train.labels)
    assert 19 <= counts.min() <= counts.max() <= 21
    assert whole.key == load_data("digits").key != part.key
    assert len(load_data("digits", max_train=10_000).train) == 1197


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cifar10", {}, "write cifar10:DIR"),
        ("cifar10:", {}, "write cifar10:DIR"),
        ("digits:somewhere", {}, "takes no folder"),
        ("imagefolder:no/such/folder", {}, "'no/such/folder' does not exist"),
        ("digits", {"image_size": 16}, "image_size is for image folders"),
        ("digits", {"max_train": 0}, "max_train must be a whole number"),
        ("digits", {"max_train": 9}, "max_train is 9, with 10 classes"),
    ],
)
def test_wrong_input_is_answered_with_the_right_form(spec: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(spec, **options)


def test_an_unknown_source_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'cifar1'. Did you mean 'cifar10'\?.*imagefolder:DIR"):
        load_data("cifar1:somewhere")
    with pytest.raises(UnknownNameError, match="write imagefolder:"):
        load_data(str(tmp_path))


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        load_data(f"imagefolder:{tmp_path / 'data.zip'}")


def test_every_source_says_what_it_is() -> None:
    assert {"digits", "cifar10", "cifar100", "imagefolder"} <= set(DATA_SOURCES)
    for name, source in DATA_SOURCES.items():
        assert source.name == name
        assert source.summary
        assert source.form.endswith(":DIR") == source.needs_folder


def test_parts_must_fit_each_other() -> None:
    def images(size: int, label: int) -> ImageSet:
        return ImageSet(torch.zeros(2, 1, size, size), torch.tensor([0, label]))

    with pytest.raises(ValueError, match=r"train is \(1, 8, 8\), test is \(1, 9, 9\)"):
        DataSplits("x", images(8, 1), None, images(9, 1), ("a", "b"))
    with pytest.raises(ValueError, match=r"labels of val must be in 0\.\.1; the highest is 2"):
        DataSplits("x", images(8, 1), images(8, 2), images(8, 1), ("a", "b"))
