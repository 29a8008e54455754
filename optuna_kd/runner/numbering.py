"""Numbers for the worker processes of a run, which come without any."""

from __future__ import annotations

import itertools
from pathlib import Path

import filelock


def take_number(folder: Path) -> int:
    """Give this process the lowest number that no living process of a run has; it keeps it until it ends.

    A number is a lock on a file, which the system opens when the process ends, however it does: a worker that replaces
    a killed one gets its number.

    Args:
        folder: Of the run.
    """
    return next(number for number in itertools.count() if _lock(folder / f"worker-{number}.lock"))


def _lock(file: Path) -> bool:
    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return False
    _locks.append(lock)
    return True


_locks: list[filelock.BaseFileLock] = []  # of this process: one that is collected would be open
