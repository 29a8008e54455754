"""One file that several processes may want at once: one builds it, the others wait, and a damaged one is rebuilt."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from optuna_kd.training.knowledge_file import DamagedFileError, NotStoredError

try:
    import fcntl
except ImportError:  # Windows: each process builds its own, and the last to finish puts it in place
    fcntl = None  # type: ignore[assignment]

Loaded = TypeVar("Loaded")

POLL = 0.1  # seconds


def load_or_build(
    path: Path,
    load: Callable[[Path], Loaded],
    build: Callable[[Path], None],
    *,
    wait: float,
    say: Callable[[str], object],
) -> tuple[Loaded, bool]:
    """Load a file, building it first where it is missing or damaged.

    It is written beside its place and renamed when complete, so others see the whole file or none. The lock is the
    kernel's: it ends with its process, however that ends.

    Args:
        path: The file.
        load: Loads it; raises `DamagedFileError` or FileNotFoundError where it cannot.
        build: Writes it to the path that it is given; raises `NotStoredError` where it cannot.
        wait: Seconds to wait for another process that is building it.
        say: Told of damage and of waiting.

    Returns:
        What was loaded, and whether it was built here.

    Raises:
        NotStoredError: If the folder or the file cannot be written, or another process did not finish in time.
    """
    loaded, damage = _try(load, path)
    if loaded is not None:
        return loaded, False
    if damage is not None:
        say(f"{path} cannot be used ({damage}): it is built again")
    with _lock(path, wait, say):
        loaded, _ = _try(load, path)  # somebody may have built it just now
        if loaded is not None:
            return loaded, False
        _build(path, build)
        loaded, damage = _try(load, path)
    if loaded is None:
        raise NotStoredError(f"{path} cannot be read back: {damage or 'it is gone'}")
    return loaded, True


def _try(load: Callable[[Path], Loaded], path: Path) -> tuple[Loaded | None, str | None]:
    try:
        return load(path), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (DamagedFileError, OSError) as error:
        return None, str(error)


def _build(path: Path, build: Callable[[Path], None]) -> None:
    if fcntl is not None:
        for left in path.parent.glob(f"{path.name}.*.partial"):  # by a builder that was killed: the lock is ours
            with contextlib.suppress(OSError):
                left.unlink()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        build(partial)
        partial.replace(path)
    except OSError as error:
        raise NotStoredError(error.strerror or str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path, wait: float, say: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a file, which is deleted afterwards."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(
            lock, wait, lambda: say(f"Another process is storing {path}: waiting, {wait:g} s at most")
        )
    except OSError as error:
        raise NotStoredError(error.strerror or str(error)) from None
    if descriptor is None:
        raise NotStoredError(f"another process has not stored it within {wait:g} s")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps a file that is open
            lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path, wait: float, say_waiting: Callable[[], object]) -> int | None:
    """Open a lock file and lock it; None if that takes longer than `wait` seconds."""
    deadline = time.monotonic() + wait
    is_told = False
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)  # anew each time: its holder deletes it
        if _take(descriptor, lock):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            return None
        if not is_told:
            say_waiting()
            is_told = True
        time.sleep(POLL)


def _take(descriptor: int, lock: Path) -> bool:
    """Take the lock, unless somebody holds it or has deleted the file since it was opened."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: as on Windows
        return True
    try:
        return os.fstat(descriptor).st_ino == lock.stat().st_ino
    except OSError:
        return False
