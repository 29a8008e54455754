"""What is stored, and where, is decided before anything is computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from strided_teacher import strided_task

from optuna_kd.registry import UnknownNameError
from optuna_kd.training import ImageClassification
from optuna_kd.training import offline as offline_module
from optuna_kd.training.knowledge_plan import plan_elsewhere
from optuna_kd.training.offline import (
    LIMIT,
    KnowledgeChoices,
    KnowledgePlan,
    knowledge_bytes,
    plan_knowledge,
    prepare_knowledge,
)

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


def plan(task: ImageClassification, images: torch.Tensor | None = None, **choices: Any) -> KnowledgePlan:
    return plan_knowledge(task, KnowledgeChoices(**choices), images)


def test_the_sizes_above(task: ImageClassification) -> None:
    assert plan_knowledge(task).peak == WHOLE
    assert plan_knowledge(task).size == knowledge_bytes(task) == 784 * (3 * 32 + 16)
    assert plan(task, mode="aligned").peak == CLEAN


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
    found = plan(task, **options)
    assert (found.mode, found.count) == (mode, count)
    assert found.peak <= options.get("limit", LIMIT)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "memory"),
        ({"place": "device"}, "memory"),
        ({"directory": "."}, "disk"),
        ({"directory": ".", "place": "disk"}, "disk"),
        ({"directory": ".", "place": "memory"}, "memory"),
        ({"directory": ".", "limit": HALF}, "disk"),
        ({"directory": ".", "limit": HALF - 1}, ""),
        ({"place": "memory", "directory": ".", "limit": HALF}, ""),
    ],
)
def test_places(task: ImageClassification, tmp_path: Path, options: dict[str, Any], place: str) -> None:
    if "directory" in options:
        options = {**options, "directory": tmp_path / "not there yet"}
    assert plan(task, **options).place == place


def test_the_plan_does_not_depend_on_what_is_free(
    task: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a study that goes on when a disk is full would go on with other views."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("asked what is free")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    assert plan(task, directory=tmp_path).mode == "replay"


@pytest.mark.parametrize(
    ("options", "place", "reason"),
    [
        ({"directory": "."}, "memory", ""),
        ({"directory": ".", "limit": WHOLE}, "memory", ""),
        ({"directory": ".", "limit": WHOLE - 1}, "", "3 views of 32 images would take 110.2 kB, more than the limit"),
        ({}, "", "there is no room"),
    ],
)
def test_the_next_place_holds_the_same(
    task: ImageClassification, options: dict[str, Any], place: str, reason: str
) -> None:
    choices = KnowledgeChoices(**options)
    failed = plan_knowledge(task, choices, SOME)
    found = plan_elsewhere(task, choices, failed)
    assert found.place == place
    assert (found.mode, found.images, found.count, found.views) == ("replay", None, 32, 3)
    assert found.file is None
    assert found.reason.startswith(reason)
    assert (found.peak == WHOLE) == bool(place)


def test_the_next_place_holds_no_other_images(task: ImageClassification) -> None:
    choices = KnowledgeChoices(directory="x", limit=PART)
    failed = plan_knowledge(task, choices, SOME)
    assert failed.place == "disk"
    assert failed.images is SOME
    assert plan_elsewhere(task, choices, failed).images is SOME


def test_lines(task: ImageClassification, tmp_path: Path) -> None:
    assert str(plan_knowledge(task)) == "replay: 3 views of 32 images, 85.8 kB in memory; pays back after 3 epochs"
    assert str(plan(task, SOME, limit=PART)) == (
        "replay: 3 views of 8 of 32 images, 30.9 kB in memory; pays back after 3 epochs"
    )
    assert str(plan(task, mode="aligned")) == (
        "aligned: the clean view of 32 images, moved and mirrored with them, 36.8 kB in memory; pays back after 1 epoch"
    )
    assert str(plan(task, mode="replay", epochs=2)).endswith("pays back after 3 epochs, but 2 are to be trained")
    assert str(plan(task, epochs=2)) == (
        "online: storing 3 views of 32 images would pay back after 3 epochs, and 2 are to be trained"
    )
    assert str(plan(task, limit=1000)) == (
        "online: 3 views of 32 images would take 110.2 kB, more than the limit of 1.0 kB"
    )
    on_disk = plan(task, directory=tmp_path)
    assert str(on_disk) == (
        f"replay: 3 views of 32 images, 43.8 kB in half precision in {on_disk.file}; pays back after 3 epochs"
    )
    assert on_disk.file is not None
    assert on_disk.file.parent == tmp_path
    assert str(plan(task, mode="online")) == "online: as asked"
    nowhere = {"place": "", "reason": "no room"}
    assert str(replace(plan(task), **nowhere)) == (
        "replay: the teacher is asked in every step, about the same 3 views of each image: no room"
    )
    assert str(replace(plan(task, mode="aligned"), **nowhere)) == (
        "aligned: the teacher is asked in every step, about the clean images: no room"
    )


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
        prepare_knowledge(task, KnowledgeChoices(place=place, directory=tmp_path), say=events.append)
        assert events[0].startswith("replay: 3 views of 32 images")
        assert events[1] == "asked"
    events.clear()
    assert prepare_knowledge(task, KnowledgeChoices(epochs=1), say=events.append) is None
    assert len(events) == 1


def test_streaming_data_are_online(make_task: Make) -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.rand(1, 8, 8), index % 10

    said: list[str] = []
    aligned = KnowledgeChoices(mode="aligned")
    assert prepare_knowledge(make_task(train=Noisy()), aligned, say=said.append) is None
    assert said == ["online: the training images change between two reads"]


def test_wrong_arguments() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'replay'"):
        KnowledgeChoices(mode="reply")
    with pytest.raises(UnknownNameError, match="Did you mean 'memory'"):
        KnowledgeChoices(place="memry")
    with pytest.raises(ValueError, match="needs a directory"):
        KnowledgeChoices(place="disk")
    with pytest.raises(ValueError, match="cannot be negative; got limit=-1"):
        KnowledgeChoices(limit=-1)
