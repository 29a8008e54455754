"""What is stored, and where, is decided before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from strided_teacher import strided_task

from optuna_kd.registry import UnknownNameError
from optuna_kd.training import ImageClassification
from optuna_kd.training import knowledge_plan as plan_module
from optuna_kd.training import offline as offline_module
from optuna_kd.training.offline import LIMIT, knowledge_bytes, plan_knowledge, prepare_knowledge

Make = Callable[..., ImageClassification]
ALL, SOME = 32, torch.arange(8)  # 3 views of 32 images, 16 held out
# Stored plus one chunk: maps of 3 x 8 x 8 and 4 logits, 784 bytes for an image; a table of 32 rows for a part.
WHOLE = 784 * (3 * 32 + 16 + 32)
PART = 784 * (3 * 8 + 16 + 16) + 8 * 32
HALF = (2 * 192 + 16) * (3 * 32 + 16) + 2**14
CLEAN = 784 * (32 + 16 + 32)


@pytest.fixture(scope="module")
def task(one_thread: None) -> ImageClassification:
    return strided_task()


def test_the_sizes_above(task: ImageClassification) -> None:
    assert plan_knowledge(task).peak == WHOLE
    assert plan_knowledge(task).size == knowledge_bytes(task) == 784 * (3 * 32 + 16)
    assert plan_knowledge(task, mode="aligned").peak == CLEAN


@pytest.mark.parametrize(
    ("options", "mode", "count"),
    [
        ({}, "replay", 32),
        ({"limit": WHOLE}, "replay", 32),
        ({"limit": WHOLE - 1}, "online", 0),
        ({"images": SOME, "limit": WHOLE}, "replay", 32),
        ({"images": SOME, "limit": WHOLE - 1}, "replay", 8),
        ({"images": SOME, "limit": PART}, "replay", 8),
        ({"images": SOME, "limit": PART - 1}, "online", 0),
        # 3 views of 32 images are 96 passes: 3 epochs of all, 12 of the 8 of the proxies
        ({"epochs": 3}, "online", 0),
        ({"epochs": 4}, "replay", 32),
        ({"images": SOME, "epochs": 13}, "replay", 32),
        ({"images": SOME, "epochs": 12}, "replay", 8),
        ({"images": SOME, "epochs": 4}, "replay", 8),
        ({"images": SOME, "epochs": 3}, "online", 0),
        ({"images": torch.arange(32), "epochs": 4}, "replay", 32),
        # By name: whether it pays or not, but never above the limit
        ({"mode": "replay", "epochs": 1}, "replay", 32),
        ({"mode": "replay", "limit": WHOLE - 1}, "online", 0),
        ({"mode": "aligned", "epochs": 1}, "aligned", 32),
        ({"mode": "aligned", "limit": CLEAN}, "aligned", 32),
        ({"mode": "aligned", "limit": CLEAN - 1}, "online", 0),
        ({"mode": "online"}, "online", 0),
        ({"limit": 0}, "online", 0),
    ],
)
def test_modes(task: ImageClassification, options: dict[str, Any], mode: str, count: int) -> None:
    plan = plan_knowledge(task, **options)
    assert (plan.mode, plan.count) == (mode, count)
    assert plan.peak <= options.get("limit", LIMIT)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "memory"),
        ({"place": "device"}, "memory"),
        ({"directory": "."}, "memory"),
        ({"directory": ".", "place": "disk"}, "disk"),
        ({"directory": ".", "limit": WHOLE - 1}, "disk"),
        ({"directory": ".", "limit": HALF}, "disk"),
        ({"directory": ".", "limit": HALF - 1}, ""),
        ({"place": "memory", "directory": ".", "limit": HALF}, ""),
    ],
)
def test_places(task: ImageClassification, tmp_path: Path, options: dict[str, Any], place: str) -> None:
    if "directory" in options:
        options = {**options, "directory": tmp_path / "not there yet"}
    assert plan_knowledge(task, **options).place == place


def test_a_full_disk_is_seen_before_writing(
    task: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=HALF - 1))
    assert plan_knowledge(task, directory=tmp_path, place="disk").mode == "online"
    line = str(plan_knowledge(task, directory=tmp_path, place="disk"))
    assert line == (
        f"online: 3 views of 32 images would take 59.8 kB, and 59.7 kB are free in {tmp_path}"
    )  # fmt: skip
    monkeypatch.setattr(plan_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=HALF))
    assert plan_knowledge(task, directory=tmp_path, place="disk").place == "disk"


def test_lines(task: ImageClassification, tmp_path: Path) -> None:
    assert str(plan_knowledge(task)) == "replay: 3 views of 32 images, 85.8 kB in memory; pays back after 3 epochs"
    assert str(plan_knowledge(task, SOME, limit=PART)) == (
        "replay: 3 views of 8 of 32 images, 30.9 kB in memory; pays back after 3 epochs"
    )
    assert str(plan_knowledge(task, mode="aligned")) == (
        "aligned: the clean view of 32 images, moved and mirrored with them, 36.8 kB in memory; pays back after 1 epoch"
    )
    assert str(plan_knowledge(task, mode="replay", epochs=2)).endswith(
        "pays back after 3 epochs, but 2 are to be trained"
    )
    assert str(plan_knowledge(task, epochs=2)) == (
        "online: storing 3 views of 32 images would pay back after 3 epochs, and 2 are to be trained"
    )
    assert str(plan_knowledge(task, limit=1000)) == (
        "online: 3 views of 32 images would take 110.2 kB, more than the limit of 1.0 kB"
    )
    on_disk = plan_knowledge(task, place="disk", directory=tmp_path)
    assert str(on_disk) == (
        f"replay: 3 views of 32 images, 43.8 kB in half precision in {on_disk.file}; pays back after 3 epochs"
    )
    assert on_disk.file is not None
    assert on_disk.file.parent == tmp_path
    assert str(plan_knowledge(task, mode="online")) == "online: as asked"


def test_a_line_comes_before_anything_is_computed(
    task: ImageClassification, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[str] = []
    ask = offline_module.teacher_answers

    def asked(*arguments: Any) -> Any:
        events.append("asked")
        return ask(*arguments)

    monkeypatch.setattr(offline_module, "teacher_answers", asked)
    for place in ("memory", "disk"):
        events.clear()
        prepare_knowledge(task, place=place, directory=tmp_path, say=events.append)
        assert events[0].startswith("replay: 3 views of 32 images")
        assert events[1] == "asked"
    events.clear()
    assert prepare_knowledge(task, epochs=1, say=events.append) is None
    assert len(events) == 1


def test_streaming_data_are_online(make_task: Make) -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.rand(1, 8, 8), index % 10

    said: list[str] = []
    assert prepare_knowledge(make_task(train=Noisy()), mode="aligned", say=said.append) is None
    assert said == ["online: the training images change between two reads"]


def test_wrong_arguments(task: ImageClassification) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'replay'"):
        plan_knowledge(task, mode="reply")
    with pytest.raises(UnknownNameError, match="Did you mean 'memory'"):
        plan_knowledge(task, place="memry")
    with pytest.raises(ValueError, match="needs a directory"):
        plan_knowledge(task, place="disk")
    with pytest.raises(ValueError, match="cannot be negative; got limit=-1"):
        plan_knowledge(task, limit=-1)
