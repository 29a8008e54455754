"""Tasks whose student is to be chosen."""

from __future__ import annotations

import functools

import pytest
from joint_trials import Make, Stub, build

from optuna_kd.training import ImageClassification


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass


@pytest.fixture(scope="module")
def open_task(make_task: Make) -> ImageClassification:
    """A task that learns something in two epochs."""
    return make_task(student=build, batch_size=16, optimizer="adamw", lr=0.01)


@pytest.fixture(scope="module")
def make_open(make_task: Make) -> Make:
    return functools.partial(make_task, batch_size=16, optimizer="adamw", lr=0.01)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """No training: the scores that a test sets."""
    return Stub(monkeypatch)
