"""Storage URLs: what they name, and how they are shown."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from sqlalchemy.engine import URL, make_url

DEFAULT_URL = "sqlite:///optuna_kd.db"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECRET = re.compile("pass|pwd|secret|token|credential|api_?key", re.IGNORECASE)  # in the names of parameters
_SQLITE = b"SQLite format 3\0"
_SECRETS = re.compile(rf"([?&][^=&]*(?:{SECRET.pattern})[^=&]*=)[^&]*", re.IGNORECASE)


class StorageError(ValueError):
    """A storage that cannot be opened; the message names it, with its password hidden."""


class StorageFailedError(StorageInternalError):
    """A storage that could be opened and does not work any more; the message says why, with its password hidden."""


def parse_url(storage: str) -> URL:
    """Read a storage URL.

    Raises:
        StorageError: If it is none, or would be read in another way than it is meant; a password in it is not shown.
    """
    try:
        url = make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        shown = _SECRETS.sub(r"\1***", re.sub(r":.*@", ":***@", str(storage)))  # passwords hold any character
        raise StorageError(
            f"Cannot read the storage {shown!r}: it is a database URL like {DEFAULT_URL} or "
            "postgresql+psycopg://user@host/database, a journal file like journal:///kd.log, or grpc://host:port."
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite" and (str(url.database).startswith("file:") or "uri" in url.query):
        path = str(url.database).removeprefix("file:")
        raise StorageError(
            f"Cannot read the storage {show_url(url)!r}: SQLite's own URIs (file:..., uri=true) are not taken. "
            f"Write a plain path: sqlite:///{path if path != ':memory:' else 'kd.db'}."
        )
    # Where a password has an @, what follows it is read as the host, and behind a / as the database.
    if kind not in ("sqlite", "journal") and "@" in f"{url.host}{url.database}":
        shown = _SECRETS.sub(r"\1***", f"{url.drivername}://***@{storage.rpartition('@')[2]}")
        raise StorageError(
            f"Cannot read the storage {shown!r}: in the name and the password of a user, and in a database's, "
            "write @ as %40, / as %2F, : as %3A and % as %25."
        )
    return url


def database_in(path: Path) -> str | None:
    """Give the URL of a file that is a database of SQLite; None for any other."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_SQLITE))
    except OSError:
        return None
    return f"sqlite:///{path}" if begins == _SQLITE else None


def show_url(url: URL) -> str:
    """Write a URL with its password hidden, also one that is given as a parameter."""
    hidden = {name: "***" for name in url.query if SECRET.search(name)}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def show_storage(storage: str | BaseStorage) -> str:
    """Say where a storage is, without its password."""
    if isinstance(storage, str):
        return show_url(parse_url(storage))
    backend = backend_of(storage)
    if isinstance(backend, RDBStorage):
        return show_url(backend.engine.url)
    if isinstance(backend, InMemoryStorage):
        return "in memory"
    if isinstance(backend, GrpcStorageProxy):
        return f"grpc://{backend._host}:{backend._port}"
    if isinstance(backend, JournalStorage) and (path := getattr(backend._backend, "_file_path", None)):
        return f"journal:///{path}"
    return type(backend).__name__


def backend_of(storage: BaseStorage) -> BaseStorage:
    """Give what is behind the cache that Optuna puts before a database."""
    backend: BaseStorage = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, BaseStorage) else storage


def is_shareable(storage: object) -> bool:
    """Whether other processes can open a storage that is given like this: a URL, and not one in memory."""
    return isinstance(storage, str) and not is_in_memory(make_url(storage))


def is_local(storage: str) -> bool:
    """Whether a URL means another storage, or none, on another machine: a file, or a server of "this" machine."""
    url = make_url(storage)
    if url.get_backend_name() in ("sqlite", "journal"):
        return True
    host = url.host or str(url.query.get("host", ""))
    return not host or host.startswith("/") or host in LOOPBACK


def is_in_memory(url: URL) -> bool:
    """Whether it is SQLite's database in memory."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")
