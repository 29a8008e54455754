"""Stopping cleanly: the first Ctrl-C, or a SIGTERM, lets trainings end their epoch and keep their state."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

_asked = threading.Event()
_file: Path | None = None  # there as soon as another process asks for it
_signal = signal.SIGINT


class Stopped(KeyboardInterrupt):
    """Work has ended because of a signal: where it can go on, or after a second one where it was.

    Args:
        signum: The signal; a program that ends because of it returns 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum


class TrainingInterrupted(Exception):
    """A training was asked to stop; it goes on from its checkpoint."""


def is_asked() -> bool:
    """Whether trainings of this process are to stop at the end of their epoch."""
    return _asked.is_set() or (_file is not None and _file.exists())


def is_asked_alone() -> bool:
    """Whether a signal asked this worker process and not the one that it works for, which writes the file then."""
    return _asked.is_set() and (_file is None or not _file.exists())


def ask() -> None:
    """Let trainings of this process stop at the end of their epoch. For worker processes that are told so."""
    _asked.set()


def check() -> None:
    """Stop here if that is asked for.

    Raises:
        Stopped: Then.
    """
    if is_asked():
        raise Stopped(_signal)


def listen(file: Path | None = None) -> None:
    """Stop trainings of this process at a SIGTERM, and once a file is there. For worker processes."""
    global _file
    _file = file
    _asked.clear()
    signal.signal(signal.SIGTERM, lambda *_: _asked.set())


@contextlib.contextmanager
def on_signals(tell: Callable[[str], None], file: Path | None = None) -> Iterator[None]:
    """Take the first Ctrl-C, and a SIGTERM, for the wish to stop cleanly; the second one stops at once.

    Only the main thread of a program can; elsewhere, and inside another such context, nothing changes.

    Args:
        tell: Told what is happening, for the user.
        file: Written then, for the worker processes that `listen` to it.
    """
    if threading.current_thread() is not threading.main_thread() or _installed:
        yield
        return

    def handle(signum: int, _: FrameType | None) -> None:
        global _signal
        if _asked.is_set():
            raise Stopped(signum)
        _signal = signal.Signals(signum)
        _asked.set()
        if file is not None:
            with contextlib.suppress(OSError):
                file.touch()
        how = "Ctrl-C again" if signum == signal.SIGINT else "the signal again"
        tell(f"Stopping   as soon as the epochs that are running are over; {how} stops at once")

    before = {}
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as under nohup
            before[signum] = signal.signal(signum, handle)
    _installed.append(True)
    try:
        yield
    finally:
        _installed.pop()
        _asked.clear()
        for signum, handler in before.items():
            signal.signal(signum, handler)


_installed: list[bool] = []
