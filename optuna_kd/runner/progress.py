"""Saying how far a search is: a live view in a terminal, plain lines elsewhere, nothing on request."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from optuna_kd.durations import format_seconds as format_seconds

PLAIN_SECONDS = 10  # between two plain lines of one phase


class Reporter(Protocol):
    """Where a search says what it is doing."""

    def note(self, text: str) -> None:
        """Say one line."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` pieces of work (0 if nobody knows), `done` of which are there already."""

    def advance(self, text: str = "", *, left: float | None = None) -> None:
        """Finish one piece of the phase; `left` is the time left in seconds, of the whole search."""

    def close(self) -> None:
        """Finish."""


class SilentReporter:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, text: str = "", *, left: float | None = None) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class PlainReporter:
    """Plain lines, for log files and pipes: the begin and end of every phase, and a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name, self._total, self._done, self._said = "", 0, 0, 0.0

    def note(self, text: str) -> None:
        """Say one line."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase."""
        self._name, self._total, self._done, self._said = name, total, done, time.monotonic()
        if done:
            self.note(f"{name}: {done} of {total} are there already")

    def advance(self, text: str = "", *, left: float | None = None) -> None:
        """Finish one piece; say so if the last line is some seconds old."""
        self._done += 1
        now = time.monotonic()
        if self._done == self._total or now - self._said >= PLAIN_SECONDS:
            self._said = now
            count = f"{self._done}/{self._total}" if self._total else str(self._done)
            self.note(f"{self._name} {count}{_with(text)}{_with(_left(left))}")

    def close(self) -> None:
        """Nothing is open."""


class LiveReporter:
    """A live view in a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._progress.start()
        self._task: TaskID | None = None

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Add a bar."""
        self._task = self._progress.add_task(name, total=total or None, completed=done, text="")

    def advance(self, text: str = "", *, left: float | None = None) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, text=f"{text}{_with(_left(left))}")

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


def create_reporter(show: bool | Reporter = True, console: Console | None = None) -> Reporter:
    """Choose how to report: live in a terminal, plain lines elsewhere, silent for False."""
    if not isinstance(show, bool):
        return show
    if not show:
        return SilentReporter()
    console = console or Console()
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


def _left(left: float | None) -> str:
    return f"about {format_seconds(left)} left" if left is not None else ""


def _with(text: str) -> str:
    return f"  {text}" if text else ""
