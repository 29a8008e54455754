"""Stored knowledge as bytes: what a machine that does not see the file is sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from optuna_kd.training import ImageClassification
from optuna_kd.training.knowledge_file import fingerprint
from optuna_kd.training.offline import KnowledgeMismatchError, TeacherKnowledge, store_knowledge

Make = Callable[..., ImageClassification]


@pytest.fixture(scope="module")
def file(task: ImageClassification, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("knowledge") / "knowledge.bin"
    store_knowledge(task).save(path)
    return path


def content(file: Path) -> np.ndarray:
    array = np.fromfile(file, np.uint8)
    array.setflags(write=False)  # as what other processes share
    return array


def test_bytes_say_what_the_file_says(task: ImageClassification, file: Path) -> None:
    mapped, travelled = TeacherKnowledge.load(file, task), TeacherKnowledge.load(content(file), task)
    assert travelled.file is None
    indices = torch.tensor([5, 0, 159])
    for view in range(2):
        one, other = (known.batch(view, indices, task.device) for known in (mapped, travelled))
        assert torch.equal(one.logits, other.logits)
        assert torch.equal(one.features[0], other.features[0])
    assert torch.equal(mapped.val_logits, travelled.val_logits)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda array: array[:5], "does not begin like one"),
        (lambda array: np.concatenate([array[:-1], array[-1:] ^ 1]), "checksum differs"),
        (lambda array: array[:-64], "bytes instead of"),
        (lambda array: np.concatenate([array[:20], array[20:21] ^ 1, array[21:]]), "header is damaged"),
    ],
)
def test_damaged_bytes_are_refused(task: ImageClassification, file: Path, damage: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"holds no teacher knowledge that `save` wrote: .*{reason}"):
        TeacherKnowledge.load(damage(content(file)), task)


def test_bytes_of_another_teacher_are_refused(make_task: Make, make_teacher: Any, file: Path) -> None:
    with pytest.raises(KnowledgeMismatchError, match="teacher: stored"):
        TeacherKnowledge.load(content(file), make_task(teacher=make_teacher(1)))


def test_a_fingerprint_names_the_content(
    task: ImageClassification, make_task: Make, make_teacher: Any, file: Path, tmp_path: Path
) -> None:
    copy, other = tmp_path / "copy.bin", tmp_path / "other.bin"
    copy.write_bytes(file.read_bytes())
    store_knowledge(make_task(teacher=make_teacher(1))).save(other)
    assert fingerprint(copy) == fingerprint(file) != ""
    assert fingerprint(other) not in ("", fingerprint(file))
    other.write_bytes(b"something else")
    assert fingerprint(other) == fingerprint(tmp_path / "nothing.bin") == fingerprint(tmp_path) == ""
