"""Where hardships happen, and a study that none has come over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import Disk
from hard_studies import SMALL, Outcomes, outcomes, run
from small_searches import Place, Task


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    try:
        yield disk
    finally:
        disk.remove()


@pytest.fixture(scope="session")
def undisturbed(task: Any) -> Outcomes:
    """The trials of the numbers 0 to 11 as they are where nothing happens."""
    return outcomes(run(task, None, 12))


@pytest.fixture
def place(teaching_task: Task, tmp_path: Path) -> Place:
    """Where a whole search runs, or will."""
    return Place(teaching_task, tmp_path, SMALL)
