"""Creating the tables and a study once, however many processes begin at the same time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from optuna_kd.storages._compat import BaseJournalFileLock
from optuna_kd.storages.limits import connect_arguments
from optuna_kd.storages.transient import persist, sqlstate_of
from optuna_kd.storages.urls import StorageError, backend_of, show_url

LOCK_SECONDS = 120  # how long one process may be creating
TRY_SECONDS = 10  # after which one that waits for PostgreSQL's lock says so, and goes on waiting


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
        lock = filelock.FileLock(lock_of(Path(where.database)), timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except (OSError, filelock.Timeout) as error:
            raise StorageError(f"Cannot create anything in {show_url(where)}: {error}.") from None
        try:
            yield
        finally:
            lock.release()
    elif kind in ("postgresql", "mysql", "mariadb"):
        with _locked(where):
            yield
    else:
        yield


def lock_of(database: Path) -> Path:
    """Name the file beside that of SQLite that is locked, and stays."""
    return database.with_name(f"{database.name}.lock")


def has_schema(url: URL, options: Mapping[str, object]) -> bool:
    """Whether Optuna's tables are there, complete: the version of their schema is written last."""
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, **_plain(options))
    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(sqlalchemy.text("SELECT COUNT(*) FROM alembic_version")).scalar() == 1


def created_meanwhile(error: BaseException) -> bool:
    """Whether creating the tables failed because a program that knows no lock, optuna-dashboard perhaps, did it too."""
    if isinstance(error, sqlalchemy.exc.IntegrityError):  # the row with the version is there
        return True
    return isinstance(error, sqlalchemy.exc.DBAPIError) and "already exists" in str(error.orig)


@contextlib.contextmanager
def _locked(url: URL) -> Iterator[None]:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=connect_arguments(url))
    lock = _lock_postgresql if url.get_backend_name() == "postgresql" else _lock_mysql

    def connected() -> sqlalchemy.Connection:
        connection = engine.connect()
        try:
            lock(connection, f"optuna_kd/{url.database}")
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection

    try:
        connection = persist(connected, patience=LOCK_SECONDS, name=show_url(url))
    except sqlalchemy.exc.DBAPIError as error:
        if sqlstate_of(error) != "55P03":  # it has waited for the lock
            raise
        raise StorageError(_taken(url)) from None
    try:
        yield
    finally:
        # What was created is there, also where the server has taken the lock back meanwhile.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.close()


def _lock_postgresql(connection: sqlalchemy.Connection, name: str) -> None:
    """Take the lock until the transaction ends: the server ends it if its process does not, because it vanished."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    limits = {"lock_timeout": TRY_SECONDS, "idle_in_transaction_session_timeout": LOCK_SECONDS}
    for limit, seconds in limits.items():
        connection.execute(sqlalchemy.text(f"SET LOCAL {limit} = '{seconds}s'"))
    connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({number})"))


def _lock_mysql(connection: sqlalchemy.Connection, name: str) -> None:
    """Take the lock until the connection ends."""
    asked = {"name": name[:64], "seconds": LOCK_SECONDS}
    if connection.execute(sqlalchemy.text("SELECT GET_LOCK(:name, :seconds)"), asked).scalar() != 1:
        raise StorageError(_taken(connection.engine.url))


def _taken(url: URL) -> str:
    return (
        f"Cannot create anything in {show_url(url)}: another process has been creating there for {LOCK_SECONDS} s. "
        "End it if it hangs, and begin again."
    )


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
