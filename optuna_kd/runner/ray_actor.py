"""One worker on a Ray cluster: what runs in its process, which may be on another machine."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optuna_kd import stopping
from optuna_kd.runner.jobs import Worker, WorkerSpec
from optuna_kd.storages import this_process
from optuna_kd.training.knowledge_file import fingerprint


@dataclass(frozen=True)
class Sight:
    """Who a worker is, and what it sees of the machine that started it.

    Args:
        process: Its name (`this_process`).
        results: Whether the folder of the results is there.
        knowledge: Whether the file with the teacher's knowledge is.
    """

    process: str
    results: bool
    knowledge: bool


@dataclass(frozen=True)
class Answer:
    """What became of a job: a result, or the exception it raised; and what travels with it.

    Args:
        result: What the job gave.
        error: What it raised.
        files: Contents of the files that it would have written, by path.
        said: Its warnings.
    """

    result: Any = None
    error: Exception | None = None
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] = ()


class RayWorker:
    """The actor. Its methods are called in the order in which they stand here; `stop` at any time, beside them."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._failure: Exception | None = None  # why there is no worker
        self._threads = 1
        self._warnings = _Warnings()
        logging.getLogger("optuna_kd").addHandler(self._warnings)

    def look(self, mark: Path, session: str, knowledge: Path | None, content: str) -> Sight:
        """Say who this is and what it sees.

        Args:
            mark: A file in the folder of the results.
            session: What it says.
            knowledge: The file with the teacher's knowledge.
            content: Its fingerprint.
        """
        sees_results = False
        with contextlib.suppress(OSError):
            sees_results = mark.read_text(encoding="utf-8") == session
        return Sight(this_process(), sees_results, knowledge is None or fingerprint(knowledge) == content)

    def begin(
        self, spec: WorkerSpec, threads: int, device: str | None, sees_results: bool, knowledge: str | np.ndarray | None
    ) -> None:
        """Create what jobs work with.

        Args:
            spec: How it is made.
            threads: Of torch.
            device: Where trainings run; None leaves that to the task.
            sees_results: Whether files can be written where they belong.
            knowledge: The file with the teacher's knowledge, or its content where this machine does not see it.
        """
        self._threads = threads
        torch.set_num_threads(threads)
        try:
            if device is not None:
                spec.task.move_to(device)
            # Without that folder: one of the same name here would be another one.
            checkpoints = spec.checkpoints if sees_results else None
            self._worker = dataclasses.replace(spec, knowledge=knowledge, checkpoints=checkpoints)()
            self._worker.travelling = None if sees_results else {}
        except Exception as error:  # the jobs tell
            self._failure = _with_trace(error)

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
        """Run a job."""
        torch.set_num_threads(self._threads)  # of the thread that Ray runs this in
        if self._worker is None:
            return Answer(error=self._failure, said=self._warnings.take())
        try:
            result = function(self._worker, *arguments)
        except Exception as error:
            return Answer(error=_with_trace(error), said=self._warnings.take())
        files = self._worker.travelling or {}
        if files:
            self._worker.travelling = {}
        return Answer(result, files=files, said=self._warnings.take())

    def stop(self) -> None:
        """Let the training that is running end its epoch."""
        stopping.ask()


class _Warnings(logging.Handler):
    """Keeps what would be said on a terminal: there is none where a worker runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self._lines.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Give the lines, and forget them."""
        lines, self._lines = self._lines, []
        return tuple(lines)


def _with_trace(error: Exception) -> Exception:
    """Tell the traceback in words: exceptions travel without it."""
    error.add_note("".join(traceback.format_exception(error)).rstrip())
    return error
