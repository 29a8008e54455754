"""What takes the time of a training step."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, StudentTraining, store_knowledge
from optuna_kd.training.profile import PARTS, Profile, list_operations, measure_parts
from optuna_kd.training.stacking import NotStackableError, StackedStudents

PROXY = ProxyConfig(epochs=1)


def training(task: ImageClassification, text: str = "none|l2*5 + kl@4*1", **arguments: Any) -> StudentTraining:
    return StudentTraining(task, Recipe.from_string(text), PROXY, seed=0, **arguments)


def test_the_parts_add_up(task: ImageClassification) -> None:
    began = time.perf_counter()
    found = measure_parts([training(task)], steps=4)
    assert set(found.seconds) == set(PARTS)
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert 0 < found.total < time.perf_counter() - began
    assert sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert not found.stored
    assert measure_parts([training(task, knowledge=store_knowledge(task))], steps=1).stored


@pytest.mark.parametrize("part", ["teacher", "student", "distiller"])
def test_what_is_slow_is_named(task: ImageClassification, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = training(task)
    module: nn.Module = {"teacher": task.teacher, "student": slow.student, "distiller": slow.distiller}[part]
    handle = module.register_forward_hook(lambda *_: time.sleep(0.05))
    try:
        assert next(iter(measure_parts([slow], steps=2).shares)) == part
    finally:
        handle.remove()


def test_it_trains_as_a_training_does(task: ImageClassification, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward pass in two pieces gives the gradients of the whole one."""
    one, other = training(task), training(task)
    indices = one.indices[: one.batch_size]
    monkeypatch.setattr("optuna_kd.training.profile.WARM_UP", 0)
    measure_parts([one], steps=1)
    batch = other.load(0, 0, indices)
    other.student.train()
    terms = other.compare(batch, other.observer(batch.images), progress=0.5)
    other.optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    nn.utils.clip_grad_norm_(other.parameters, 5.0)
    for mine, theirs in zip(one.parameters, other.parameters, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_the_line() -> None:
    parts = {"data": 0.001, "teacher": 0.002, "student": 0.014, "distiller": 0.002, "optimizer": 0.001}
    assert str(Profile(parts, 64, stored=True)) == (
        "student 70 %, teacher 10 % (stored), distiller 10 %, data 5 %, optimizer 5 %; "
        "20 ms for 64 images, 3,200 a second"
    )


@pytest.mark.parametrize("is_refused", [False, True])
def test_students_side_by_side_train_as_each_does(
    task: ImageClassification, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one stacked network where that is possible, as in a search."""
    if is_refused:
        monkeypatch.setattr(StackedStudents, "check", Mock(side_effect=NotStackableError("no")))
    stacked = Mock(side_effect=StackedStudents.__call__)
    monkeypatch.setattr(StackedStudents, "__call__", lambda *arguments: stacked(*arguments))
    monkeypatch.setattr("optuna_kd.training.profile.WARM_UP", 0)
    several, alone = [training(task), training(task, "none|l2*1")], training(task, "none|l2*1")
    assert str(measure_parts(several, steps=1)).endswith("a second")
    assert measure_parts([training(task)], steps=1).students == 1
    assert stacked.call_count == (0 if is_refused else 1)
    measure_parts([alone], steps=1)
    for mine, theirs in zip(several[1].parameters, alone.parameters, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_the_line_of_several() -> None:
    line = str(Profile({"data": 0.002, "student": 0.008}, 64, stored=False, students=8))
    assert line == "student 80 %, data 20 %; 10 ms for 8 x 64 images, 51,200 a second"


def test_the_operations(task: ImageClassification) -> None:
    assert "convolution" in list_operations([training(task)], steps=2)
