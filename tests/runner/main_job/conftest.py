"""A finished search for a recipe, copies of it, and places for others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from main_searches import SMALL
from small_searches import Finished, Notes, Place, Task


@pytest.fixture(scope="session")
def finished(teaching_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One search, run once for all tests that only look at it."""
    notes = Notes()
    place = Place(teaching_task, tmp_path_factory.mktemp("finished"), SMALL)
    return place, place.search(progress=notes), notes


@pytest.fixture
def place(finished: Finished, tmp_path: Path) -> Place:
    """A copy of the finished search, to go on from."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Place(finished[0].task, tmp_path / "copy", SMALL)


@pytest.fixture
def empty(teaching_task: Task, tmp_path: Path) -> Place:
    return Place(teaching_task, tmp_path, SMALL)
