"""From a URL to an Optuna storage that survives several workers, killed processes and a database that restarts."""

from __future__ import annotations

import functools
import importlib.util
import logging
import sqlite3
from pathlib import Path

import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from sqlalchemy.engine import URL

from optuna_kd.storages.connections import SQLiteConnection
from optuna_kd.storages.creating import FileLock, created_meanwhile, creation_lock, has_schema, lock_of
from optuna_kd.storages.limits import connect_arguments
from optuna_kd.storages.pulse import Pulsing
from optuna_kd.storages.relational import PatientStorage
from optuna_kd.storages.retries import quietly, requeue
from optuna_kd.storages.transient import is_passing, persist, reason_of
from optuna_kd.storages.urls import StorageError, is_in_memory, parse_url, show_url

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
BUSY_SECONDS = 60  # how long SQLite waits for another worker's write
PATIENCE = 300.0  # seconds for which a database that was there may be away
OPENING = 10.0  # seconds in which a database that has just been started may begin to answer


class PulsingJournal(Pulsing, JournalStorage):
    """A journal file whose workers show that they are alive."""


def create_storage(storage: str | BaseStorage | None, *, patience: float = OPENING) -> BaseStorage:
    """Open a storage.

    Args:
        storage: A SQLAlchemy URL (`sqlite:///kd.db`, `postgresql+psycopg://...`, `mysql+pymysql://...`); the address of
            Optuna's gRPC proxy, `grpc://host:port`; a journal file, `journal:///kd.log`; an Optuna storage, which is
            returned as it is; None or `sqlite:///:memory:` for one in memory, for the threads of one process.
        patience: Seconds for which a database that is starting may be waited for.

    Returns:
        For a database an `RDBStorage` with a heartbeat, so that trials of killed processes are found and run again,
        and which waits up to five minutes for a database that is restarted; SQLite files are put in WAL mode and wait
        for one another instead of failing. In journal files and behind the gRPC proxy, which have no heartbeat,
        workers give a sign every half a minute (`Pulsing`); there it takes two minutes.

    Raises:
        StorageError: If the URL cannot be read or the database cannot be opened.
    """
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, BaseStorage):
        return storage
    url = parse_url(storage)
    if is_in_memory(url):
        # Not SQLite's: each connection has a database of its own there, and threads that share one connection
        # see each other's half-written trials.
        return InMemoryStorage()
    if url.drivername == "journal":
        return _open_journal(url)
    if url.drivername == "grpc":
        return _open_proxy(url, patience)
    return _open_database(storage, url, patience)


def _open_database(storage: str, url: URL, patience: float) -> BaseStorage:
    options: dict[str, object] = {}

    def is_transient(error: BaseException) -> bool:
        if created_meanwhile(error):
            return True
        # One that nobody has reached yet and that refuses connections is more likely a wrong address.
        return is_passing(error) and (patience > OPENING or "refused" not in reason_of(error))

    def opened() -> PatientStorage:
        with quietly():
            return PatientStorage(
                storage,
                patience=PATIENCE,
                engine_kwargs=dict(options),
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=requeue,
            )

    def create() -> PatientStorage:
        options.update(_engine_options(url))
        if has_schema(url, options):
            return opened()
        with creation_lock(url):
            return opened()

    try:
        return persist(create, patience=patience, name=show_url(url), is_transient=is_transient)
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError) as error:
        raise StorageError(
            f"Cannot open the storage {show_url(url)}: {reason_of(error)}.{_advice(url, error)}"
        ) from None


def _engine_options(url: URL) -> dict[str, object]:
    if url.get_backend_name() != "sqlite":
        # One connection is kept: a trial and its heartbeat seldom meet, and PostgreSQL has 100 for everybody.
        return {"pool_size": 1, "max_overflow": 9, "connect_args": connect_arguments(url)}
    path = Path(str(url.database))
    _require_folder(url, path)
    # SQLite takes a file without content for a new one. It was made by whoever holds the lock now, or it was cut off.
    if path.is_file() and path.stat().st_size <= 1 and lock_of(path).exists():
        logger.warning(
            "%s is empty: a new database begins in it. If it held studies before, it was cut off; then restore it.",
            path,
        )
    with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
        # A property of the file: readers and a writer do not block. Who changes it has to be alone.
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode=WAL")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    if path.stat().st_size % page:  # SQLite counts whole pages only, and reads zeros where the last one ends
        raise sqlite3.DatabaseError("database disk image is malformed")
    return {"connect_args": {"timeout": BUSY_SECONDS, "factory": SQLiteConnection}}


def _open_journal(url: URL) -> BaseStorage:
    from optuna.storages.journal import JournalFileBackend

    path = Path(str(url.database or ""))
    if not path.name:
        raise StorageError(f"Cannot open the storage {show_url(url)}: it names no file. Write journal:///kd.log.")
    _require_folder(url, path)
    try:
        with quietly():
            return PulsingJournal(JournalFileBackend(str(path), lock_obj=FileLock(path)))
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot open the storage {show_url(url)}: {reason_of(error)}.") from None


def _open_proxy(url: URL, patience: float) -> BaseStorage:
    if importlib.util.find_spec("grpc") is None:
        raise StorageError(
            f"Cannot open the storage {show_url(url)}: grpcio is not installed. "
            'Install it: pip install "optuna-kd[grpc]".'
        )
    from optuna_kd.storages.proxy import PatientProxy

    if not url.host or not url.port:
        raise StorageError(f"Cannot open the storage {show_url(url)}: write host and port, grpc://localhost:13000.")
    with quietly():
        proxy = PatientProxy(url.host, url.port, patience=PATIENCE)
    try:
        proxy.wait_server_ready(timeout=patience)
    except ConnectionError:
        proxy.close()
        raise StorageError(
            f"Cannot open the storage {show_url(url)}: nobody answers there. Start the proxy first: "
            "optuna_kd.storages.serve(URL, port=...)."
        ) from None
    _tell_of_proxy(show_url(url))
    return proxy


@functools.cache
def _tell_of_proxy(name: str) -> None:
    logger.info(
        "%s is a proxy: it passes on no heartbeats, so that a worker which is gone is missed after two minutes instead "
        "of one, and it asks for no password.",
        name,
    )


def _require_folder(url: URL, path: Path) -> None:
    if not path.parent.is_dir():
        raise StorageError(
            f"Cannot open the storage {show_url(url)}: there is no folder {str(path.parent)!r}. Create it first."
        )


def _advice(url: URL, error: Exception) -> str:
    if url.get_backend_name() == "postgresql" and isinstance(error, ImportError):
        return ' Install the driver: pip install "optuna-kd[postgres]".'
    if "too many" in str(error):
        return " The server has no connection left: allow more, or let workers share those of a proxy (grpc://...)."
    if "malformed" in str(error):
        return " It was damaged, or cut off: restore a copy of it, or begin with another file."
    if url.get_backend_name() == "sqlite":
        return " Choose a file in a folder that can be written, e.g. --storage sqlite:///kd.db."
    return ""
