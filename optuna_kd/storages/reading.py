"""Opening a storage to look at it: nothing is created and nothing is changed, so it may be read-only."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

import sqlalchemy.exc
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL

from optuna_kd.storages.connections import watch_connections
from optuna_kd.storages.limits import connect_arguments
from optuna_kd.storages.opening import BUSY_SECONDS, create_storage
from optuna_kd.storages.transient import reason_of
from optuna_kd.storages.urls import StorageError, is_in_memory, parse_url, show_url

# What a storage that cannot be read may raise.
UNREADABLE = (OptunaError, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError)


def open_to_read(storage: str | BaseStorage) -> BaseStorage:
    """Open a storage that is there already, without tables, files or modes of its own.

    Args:
        storage: As for `create_storage`.

    Raises:
        StorageError: If there is none, or it cannot be read; a storage in memory is never there.
    """
    if isinstance(storage, BaseStorage):
        return storage
    url = parse_url(storage)
    if is_in_memory(url):
        raise StorageError(f"The storage {show_url(url)} is in the memory of one process; there is nothing to read.")
    if url.drivername == "grpc":
        return create_storage(storage)
    path = Path(str(url.database or ""))
    if (url.drivername == "journal" or url.get_backend_name() == "sqlite") and not path.is_file():
        raise StorageError(f"Cannot read the storage {show_url(url)}: there is no file {str(path)!r}.")
    if url.drivername == "journal":
        return create_storage(storage)
    try:
        return _opened(url)
    except UNREADABLE as error:
        why = reason_of(error)
        raise StorageError(
            f"Cannot read the storage {show_url(url)}: {'it holds no studies' if 'version_info' in why else why}."
        ) from None


def _opened(url: URL) -> BaseStorage:
    if url.get_backend_name() != "sqlite":
        storage = RDBStorage(
            url.render_as_string(hide_password=False),
            skip_table_creation=True,
            engine_kwargs={"connect_args": connect_arguments(url)},
        )
        watch_connections(storage.engine)
        return storage
    try:
        return _sqlite(url, mode="ro")
    except OptunaError:
        # A file in WAL mode needs a second one beside it, also to be read, and in a folder that is read-only it gets
        # none. Without the log of a writer nobody is writing, and the file may be read as it is.
        log = Path(f"{url.database}-wal")
        if log.exists() and log.stat().st_size:
            raise
        return _sqlite(url, immutable="1")


def _sqlite(url: URL, **how: str) -> BaseStorage:
    file = f"file:{quote(str(Path(str(url.database)).resolve()))}"
    return RDBStorage(
        URL.create("sqlite", database=file, query={**how, "uri": "true"}).render_as_string(),
        skip_table_creation=True,
        engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}},
    )
