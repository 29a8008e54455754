"""The connections to a database: how long SQLite's commits last, what PostgreSQL is told, who is still there."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError

from optuna_kd.storages.limits import PREPARATION

FRESH = 1.0  # seconds for which a connection that was used needs no ping

_thread = threading.local()


class SQLiteConnection(sqlite3.Connection):
    """A connection on which foreign keys hold; in SQLite each connection decides that for itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA foreign_keys=ON")


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Let the commits of SQLite inside not wait for the disk: the next one outside does, for all of them.

    A process that is killed takes none of them along. Only a power cut may, and it ends whoever knows of them as well:
    the study stands where it stood when somebody last reported or finished.
    """
    before = _is_quick()
    _thread.is_quick = True
    try:
        yield
    finally:
        _thread.is_quick = before


def watch_connections(engine: Engine) -> None:
    """Prepare each connection when it is taken: once for an engine."""
    if engine.dialect.name == "sqlite":
        sqlalchemy.event.listen(engine, "checkout", _set_synchronous)
        return

    def ping(connection: Any, record: Any, _: Any) -> None:
        if engine.dialect.name == "postgresql" and not record.info.get("prepared"):
            _prepare(connection)
            record.info["prepared"] = True
            return
        if time.monotonic() - record.info.get("used", 0.0) < FRESH:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error:
            raise DisconnectionError from None  # the pool takes a new one

    sqlalchemy.event.listen(engine, "checkout", ping)
    sqlalchemy.event.listen(engine, "checkin", _mark_used)


def _is_quick() -> bool:
    return getattr(_thread, "is_quick", False)


def _set_synchronous(connection: Any, record: Any, _: Any) -> None:
    level = "NORMAL" if _is_quick() else "FULL"
    if record.info.get("synchronous") != level:
        connection.execute(f"PRAGMA synchronous={level}")
        record.info["synchronous"] = level


def _prepare(connection: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(PREPARATION)
    cursor.close()
    connection.commit()  # or it would not last


def _mark_used(connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()
