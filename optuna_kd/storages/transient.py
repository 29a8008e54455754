"""Databases come back: what failed because one was busy, restarting or out of reach is tried again."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy.exc

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0  # seconds
SILENT = 2.0  # seconds of trouble that are nobody's business
# First letters of SQLSTATE: connection, a transaction that took too long, rollback, resources, locks, shutdown.
POSTGRESQL = ("08", "25P03", "25P04", "40", "53", "55P03", "57P")
MYSQL = (1040, 1205, 1213, 2002, 2003, 2006, 2013)  # too many connections, lock wait, deadlock, no server


def persist(
    work: Callable[[], Result],
    *,
    patience: float,
    name: str,
    is_transient: Callable[[BaseException], bool] | None = None,
    on_retry: Callable[[], None] = lambda: None,
) -> Result:
    """Do some work, again and again while what it raises is of a database that will be back.

    Args:
        work: What is done; it must be right to do it twice, because nobody knows whether what failed was done.
        patience: Seconds after which the error is raised.
        name: Of the storage, for the log; without its password.
        is_transient: Which errors these are; None is `is_passing`.
        on_retry: Called before each further try.
    """
    is_transient = is_transient or is_passing
    began, wait, told = time.monotonic(), FIRST_WAIT, False
    while True:
        try:
            result = work()
        except Exception as error:
            lost = time.monotonic() - began
            if lost >= patience or not is_transient(error):
                raise
            if lost > SILENT and not told:
                told = True
                logger.warning("%s does not answer (%s); trying again for %.0f s.", name, reason_of(error), patience)
        else:
            if told:
                logger.warning("%s answers again, after %.0f s.", name, time.monotonic() - began)
            return result
        time.sleep(min(wait, max(0.0, patience - lost)))
        wait = min(2 * wait, LONGEST_WAIT)
        on_retry()


def is_passing(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a database is busy, restarting or out of reach."""
    return any(_is_passing(cause) for cause in _causes(error))


def reason_of(error: BaseException) -> str:
    """Give the first line of what a database itself said."""
    for cause in _causes(error):
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.orig is not None:
            return str(cause.orig).splitlines()[0].rstrip(".")
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def sqlstate_of(error: sqlalchemy.exc.DBAPIError) -> str:
    """Give the five letters by which PostgreSQL says what is wrong; empty where there are none."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""  # psycopg2 has the latter


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        cause = current.__cause__
        if cause is None and isinstance(current, sqlalchemy.exc.PendingRollbackError):
            cause = current.__context__  # work that went on in a transaction that had failed: the failure counts
        current = cause


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, sqlalchemy.exc.TimeoutError):  # all connections of the pool are taken
        return True
    origin = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    if isinstance(origin, sqlite3.OperationalError):
        return any(word in str(origin) for word in ("locked", "busy"))
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if state := sqlstate_of(error):
        return state.startswith(POSTGRESQL)
    if origin is not None and origin.args and isinstance(origin.args[0], int):
        return origin.args[0] in MYSQL
    # Without a code it is about the connection: nobody listens, or nobody does any more.
    return isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError) and not isinstance(
        origin, sqlite3.Error
    )
