"""From a URL to an Optuna storage that survives several workers and killed processes."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy.exc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url

DEFAULT_URL = "sqlite:///optuna_kd.db"
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
RETRIES = 10  # how often the trial of a killed process is run again
BUSY_SECONDS = 60  # how long SQLite waits for another worker's write


class StorageError(ValueError):
    """A storage that cannot be opened; the message names it, with its password hidden."""


def create_storage(storage: str | BaseStorage | None) -> BaseStorage:
    """Open a storage.

    Args:
        storage: A SQLAlchemy URL (`sqlite:///kd.db`, `postgresql+psycopg://...`); an Optuna storage, which
            is returned as it is; None or `sqlite:///:memory:` for one in memory, for the threads of one process.

    Returns:
        For a URL an `RDBStorage` with a heartbeat, so that trials of killed processes are found and run
        again; SQLite files are put in WAL mode and wait for one another instead of failing.

    Raises:
        StorageError: If the URL cannot be read or the database cannot be opened.
    """
    if storage is None:
        return InMemoryStorage()
    if isinstance(storage, BaseStorage):
        return storage
    try:
        url = make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        shown = re.sub(r":.*@", ":***@", str(storage))  # passwords hold any character
        raise StorageError(
            f"Cannot read the storage {shown!r}: it is a database URL like {DEFAULT_URL} or "
            "postgresql+psycopg://user@host/database."
        ) from None
    if _in_memory(url):
        # Not SQLite's: each connection has a database of its own there, and threads that share one connection
        # see each other's half-written trials.
        return InMemoryStorage()
    try:
        with quietly():
            return RDBStorage(
                storage,
                engine_kwargs=_engine_options(url),
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError) as error:
        shown = url.render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")
        raise StorageError(f"Cannot open the storage {shown}: {reason}.{_advice(url, error)}") from None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Use parts of Optuna that are marked experimental for years (heartbeat, metric names) without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _engine_options(url: URL) -> dict[str, object]:
    if url.get_backend_name() != "sqlite":
        return {"pool_pre_ping": True}
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise StorageError(f"Cannot open the storage {url}: there is no folder {str(path.parent)!r}. Create it first.")
    with sqlite3.connect(path, timeout=BUSY_SECONDS) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # a property of the file: readers and a writer do not block
    connection.close()
    return {"connect_args": {"timeout": BUSY_SECONDS}}


def is_shareable(storage: object) -> bool:
    """Whether other processes can open a storage that is given like this: a URL, and not one in memory."""
    return isinstance(storage, str) and not _in_memory(make_url(storage))


def show_storage(storage: str | BaseStorage) -> str:
    """Say where a storage is, without its password."""
    url = storage.engine.url if isinstance(storage, RDBStorage) else storage
    if isinstance(url, BaseStorage):
        return "in memory" if isinstance(url, InMemoryStorage) else type(url).__name__
    return make_url(url).render_as_string(hide_password=True)


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _advice(url: URL, error: Exception) -> str:
    if url.get_backend_name() == "postgresql" and isinstance(error, ImportError):
        return ' Install the driver: pip install "optuna-kd[postgres]".'
    if url.get_backend_name() == "sqlite":
        return " Choose a file in a folder that can be written, e.g. --storage sqlite:///kd.db."
    return ""


def retry_interrupted(study: Study, trial: FrozenTrial) -> None:
    """Close a running trial whose process is known to be gone, and queue the same parameters again.

    What the heartbeat does after a minute of silence, done at once.
    """
    study.tell(trial.number, state=TrialState.FAIL)
    with quietly():
        RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)
