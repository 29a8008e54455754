"""Teachers: checked first; trained once and then taken from the cache."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optuna_kd.data import as_image_set
from optuna_kd.models import checksum
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.teacher import TeacherError, cache_folder, check_teacher, teacher_file, trained_teacher
from optuna_kd.training import StudentTraining

Make = Callable[..., Any]


class Notes(SilentReporter):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases.append((name, total))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def train(make_task: Make, make_teacher: Make) -> Callable[..., tuple[nn.Module, Notes]]:
    def run(epochs: int = 1) -> tuple[nn.Module, Notes]:
        notes = Notes()
        teacher = trained_teacher(
            lambda: make_teacher(0),
            lambda network, student: make_task(teacher=network, student=student),
            name="resnet8/x",
            epochs=epochs,
            say=notes,
        )
        return teacher, notes

    return run


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPTUNA_KD_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "optuna_kd"
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_teacher_is_trained_once(cache: Path, train: Callable[..., tuple[nn.Module, Notes]]) -> None:
    first, notes = train()
    (file,) = cache.rglob("*.pt")
    assert file.parent == cache / "teachers"
    assert file.name.startswith("resnet8-x-")
    assert notes.phases == [("Teacher", 1)]
    beginning, end = notes.lines
    assert beginning == "Training the teacher resnet8/x first: 1 epoch on 160 images"
    assert re.fullmatch(rf"Teacher trained in \d+ s, kept in {re.escape(str(file))}", end)
    assert torch.load(file, weights_only=True).keys() == first.state_dict().keys()

    second, notes = train()
    assert notes.lines == [f"Teacher resnet8/x from {file}"]
    assert notes.phases == []
    assert checksum(second) == checksum(first)

    file.unlink()
    third, notes = train()
    assert notes.phases == [("Teacher", 1)]
    assert checksum(third) == checksum(first)  # the training has a seed of its own
    assert list(cache.rglob("*.pt")) == [file]
    assert list(cache.rglob("*.partial")) == []


def test_an_unreadable_file_is_replaced(cache: Path, train: Callable[..., tuple[nn.Module, Notes]]) -> None:
    first, _ = train()
    (file,) = cache.rglob("*.pt")
    file.write_bytes(file.read_bytes()[:1000])
    again, notes = train()
    assert notes.lines[0].startswith("The cached teacher cannot be used and is trained again: ")
    assert notes.phases == [("Teacher", 1)]
    assert checksum(again) == checksum(first)
    assert train()[1].lines == [f"Teacher resnet8/x from {file}"]


def test_without_a_place_to_keep_it_the_teacher_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, train: Callable[..., tuple[nn.Module, Notes]]
) -> None:
    (tmp_path / "file").touch()  # a folder that cannot be made, for administrators too
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path / "file" / "cache"))
    teacher, notes = train()
    assert isinstance(teacher, nn.Module)
    assert "; it cannot be kept for the next time: " in notes.lines[-1]


def test_the_file_depends_on_data_training_and_name(
    cache: Path, make_task: Make, make_teacher: Make, digits: dict[str, Any]
) -> None:
    def student() -> nn.Module:
        return make_teacher(0)

    task = make_task(student=student)
    files = [
        teacher_file(task, "resnet8", 1),
        teacher_file(task, "resnet8", 2),
        teacher_file(task, "resnet14", 1),
        teacher_file(make_task(student=student, train=tuple(part[:150] for part in digits["train"])), "resnet8", 1),
        teacher_file(make_task(student=student, augment="none"), "resnet8", 1),
        teacher_file(make_task(student=student, lr=0.05), "resnet8", 1),
    ]
    assert len(set(files)) == len(files)
    # The weights of the network that stands in as teacher while it is trained do not count.
    assert teacher_file(make_task(student=student, teacher=make_teacher(5)), "resnet8", 1) == files[0]
    assert all(file.is_relative_to(cache) for file in files)


class Oracle(nn.Module):
    """Knows the labels of the images it was given, and is wrong about a share of them."""

    def __init__(self, right: float) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.right = right
        self.labels: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.convolution(images)
        logits = torch.zeros(len(images), 10)
        if self.labels is not None:
            wrong = torch.arange(len(images)) >= round(self.right * len(images))
            logits[torch.arange(len(images)), (self.labels + wrong.long()) % 10] = 1.0
        return logits


@pytest.mark.parametrize("right", [0.0, 0.1, 0.15])
def test_a_teacher_at_chance_is_refused(make_task: Make, digits: dict[str, Any], right: float) -> None:
    oracle = Oracle(right)
    task = make_task(teacher=oracle, val=digits["test"], teacher_layer="convolution")
    oracle.labels = as_image_set(digits["test"]).labels
    with pytest.raises(TeacherError, match=r"guessing scores 1\d\.0 %.*normalisation.*another order"):
        check_teacher(task)


@pytest.mark.parametrize("right", [0.3, 1.0])
def test_a_better_teacher_passes(make_task: Make, digits: dict[str, Any], right: float) -> None:
    oracle = Oracle(right)
    task = make_task(teacher=oracle, val=digits["test"], teacher_layer="convolution")
    oracle.labels = as_image_set(digits["test"]).labels
    assert check_teacher(task) == pytest.approx(right)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_teacher_whose_outputs_are_not_finite_is_refused(make_task: Make, value: float) -> None:
    """Before anything is learned from it; in a script without a search, at its first answer."""
    task = make_task(lr=0.01)
    with torch.no_grad():
        next(layer for layer in reversed(list(task.teacher.modules())) if isinstance(layer, nn.Linear)).bias[3] = value
    with pytest.raises(TeacherError, match="The logits of the teacher are not finite; check its weights and norm"):
        check_teacher(task)
    training = StudentTraining(task, Recipe.from_string("kl@4*1"), ProxyConfig(epochs=1), seed=0)
    with pytest.raises(ValueError, match="The logits of the teacher are not finite"):
        training.train_epoch(0, cycle=(0, 1))
