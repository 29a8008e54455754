"""Creating the tables and a study once, however many processes begin at the same time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from optuna_kd.storages._compat import BaseJournalFileLock
from optuna_kd.storages.transient import persist
from optuna_kd.storages.urls import StorageError, backend_of, show_url

LOCK_SECONDS = 120  # how long one process may be creating


@contextlib.contextmanager
def creation_lock(where: URL | BaseStorage) -> Iterator[None]:
    """Be the only process that creates tables or a study in a database.

    The lock is the system's or the server's, so that one whose process was killed is free: a lock on a file beside that
    of SQLite, an advisory lock in PostgreSQL, a named one in MySQL. Elsewhere nothing is locked.
    """
    if isinstance(where, BaseStorage):
        backend = backend_of(where)
        if not isinstance(backend, RDBStorage):
            yield
            return
        where = backend.engine.url
    kind = where.get_backend_name()
    if kind == "sqlite" and where.database:
        lock = filelock.FileLock(f"{where.database}.lock", timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except (OSError, filelock.Timeout) as error:
            raise StorageError(f"Cannot create anything in {show_url(where)}: {error}.") from None
        try:
            yield
        finally:
            lock.release()
    elif kind in ("postgresql", "mysql", "mariadb"):
        with _connected(where) as connection:
            name = f"optuna_kd/{where.database}"
            if kind == "postgresql":
                number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
                connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({number})"))  # until the connection ends
            else:
                connection.execute(sqlalchemy.text("SELECT GET_LOCK(:name, :seconds)"), {
                    "name": name[:64], "seconds": LOCK_SECONDS,
                })  # fmt: skip
            yield
    else:
        yield


def has_schema(url: URL, options: Mapping[str, object]) -> bool:
    """Whether Optuna's tables are there, complete: the version of their schema is written last."""
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, **_plain(options))
    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM alembic_version")).scalar() == 1


@contextlib.contextmanager
def _connected(url: URL) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    with persist(engine.connect, patience=LOCK_SECONDS, name=show_url(url)) as connection:
        yield connection


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name == "connect_args"}


class FileLock(BaseJournalFileLock):
    """The lock of a journal file: the system's, which nobody has to wait for when its process was killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = filelock.FileLock(f"{path}.lock")  # of each thread its own

    def __reduce__(self) -> tuple[type[FileLock], tuple[Path]]:
        return FileLock, (self._path,)

    def acquire(self) -> bool:
        """Wait for it."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Give it back."""
        self._lock.release()
