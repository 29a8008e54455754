"""What two ranks train in the tests: a small student, a task for it, and ways to compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, StudentTraining
from optuna_kd.training.lesson import Lesson, Rung
from optuna_kd.training.ranks import Ranks

IMAGES = 96
PROXY = ProxyConfig(epochs=4, rungs=(1, 2, 4))
KD = Recipe.from_string("none|l2*5 + kl@4*1")


class Net(nn.Module):
    """Without kinks, where a difference in the last bit would switch a gradient; and with normalisation on request."""

    def __init__(
        self, channels: int = 8, *, normalised: bool = False, dropout: float = 0.0, limit: int = 10**6
    ) -> None:
        super().__init__()
        self.limit = limit
        norm = nn.BatchNorm2d(channels) if normalised else nn.Identity()
        self.maps = nn.Sequential(nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), norm, nn.SiLU())
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(channels, 10)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        logits: Tensor = self.head(self.dropout(self.maps(images).mean((2, 3))))
        return logits


def small_task(channels: int = 8, student: Callable[[], nn.Module] = Net, **changes: Any) -> ImageClassification:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(IMAGES + 48) % 10
    images = torch.randint(0, 256, (len(labels), 1, 8, 8), generator=draw)
    images += 30 * F.interpolate(labels.view(-1, 1, 1, 1).float(), size=8).long()  # something to learn
    images = (images // 2).to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher = Net(channels)
    parts = {"train": slice(IMAGES), "val": slice(IMAGES, IMAGES + 32), "test": slice(IMAGES + 32, None)}
    arguments: dict[str, Any] = {name: (images[part], labels[part]) for name, part in parts.items()}
    if changes.pop("changing", False):
        arguments["train"] = Changing(*arguments["train"])
        arguments["val"] = arguments["test"] = (images[IMAGES:] / 255 + 0.5, labels[IMAGES:])
    arguments |= {"batch_size": 16, "lr": 0.05, "views": 2, "device": "cpu", "student_layer": "maps"}
    return ImageClassification(teacher, student, **{**arguments, "teacher_layer": "maps", **changes})


def close(found: Any, wanted: Any) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)


def numbers(rung: Rung) -> Tensor:
    metrics = rung.metrics
    return torch.tensor([[metrics.cross_entropy, metrics.cka, metrics.l1, *rung.losses.values()]])


class Changing(Dataset[tuple[Tensor, int]]):
    """Images with noise of their own at every read."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index] / 255 + torch.rand(1, 8, 8), int(self.labels[index])


class Slice(Ranks):
    """What a rank is to do, done without the others."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 2

    def part(self, batch: Tensor) -> Tensor:
        return batch.tensor_split(self.size)[self.rank]


def gradients(training: StudentTraining) -> list[Tensor]:
    """Give the gradients of the first step, before they are clipped."""
    with mock.patch.object(training, "update"):
        next_lesson(training).learn()
    return [torch.zeros(()) if one.grad is None else one.grad.clone() for one in training.parameters]


def next_lesson(training: StudentTraining) -> Lesson:
    lesson = next(training.lessons())
    assert isinstance(lesson, Lesson)
    return lesson
