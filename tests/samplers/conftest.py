"""What the sampler tests share: both ways to select, and a database that does not wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy


@pytest.fixture(params=["surrogate", "uct"])
def selection(request: pytest.FixtureRequest) -> Any:
    """What is promised of the sampler holds whichever rule it selects by."""
    return request.param


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Iterator[str]:
    """An empty SQLite database; nobody pulls the plug during a test, so nothing has to be flushed."""

    def unsafe_but_fast(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", unsafe_but_fast)
    yield f"sqlite:///{tmp_path / 'study.db'}"
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", unsafe_but_fast)
