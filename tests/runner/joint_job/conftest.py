"""A finished search for student and recipe, copies of it, and places for others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from joint_searches import SMALL, build
from small_searches import Finished, Notes, Place, Task
from torch import nn


@pytest.fixture(scope="session")
def make_open(make_task: Callable[..., Task], knowing_teacher: nn.Module) -> Callable[..., Task]:
    """Give tasks whose student is to be chosen, with a teacher that knows its digits."""
    common = {"student": build, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
    return lambda **changes: make_task(**{**common, "teacher": knowing_teacher, **changes})


@pytest.fixture(scope="session")
def open_task(make_open: Callable[..., Task]) -> Task:
    return make_open()


@pytest.fixture(scope="session")
def finished(open_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One search, run once for all tests that only look at it."""
    notes, place = Notes(), Place(open_task, tmp_path_factory.mktemp("joint"), SMALL)
    return place, place.search(progress=notes), notes


@pytest.fixture
def place(finished: Finished, tmp_path: Path) -> Place:
    """A copy of the finished search, to go on from."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Place(finished[0].task, tmp_path / "copy", SMALL)


@pytest.fixture
def empty(open_task: Task, tmp_path: Path) -> Place:
    return Place(open_task, tmp_path, SMALL)
