"""What runs the workers of a search: processes of this machine, or actors of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from optuna.storages import BaseStorage
from sqlalchemy.exc import ArgumentError

from optuna_kd.registry import Registry
from optuna_kd.runner.gpus import share_gpus
from optuna_kd.runner.jobs import Worker, WorkerSpec
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.ray_engine import RayEngine
from optuna_kd.runner.workers import Job, Outcome, Workers
from optuna_kd.storages import is_shareable

STOP = "stop"  # the file, in the scratch folder of a run, that asks its worker processes to stop


class Team(Protocol):
    """The workers of a run: jobs go in, results come out in the order in which they finish."""

    def run(self, jobs: Sequence[Job] | Iterator[Job]) -> Iterator[Outcome]:
        """Run jobs, never more in flight than there are workers; yield each outcome as it comes."""

    def stop(self) -> None:
        """End the workers at once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Engine(Protocol):
    """Where the workers of a search come from."""

    def check(self, storage: str | BaseStorage | None, workers: int, device: str = "auto") -> None:
        """Refuse a storage that the workers could not open, or a device that they would not have.

        Args:
            storage: As given; a URL that cannot be read passes, opening it says why.
            workers: How many.
            device: As given, or that of a task.

        Raises:
            ValueError: Saying what would do.
        """

    def team(
        self, spec: WorkerSpec, workers: int, *, scratch: Path, folder: Path,
        requeue: Callable[[str | None], None], say: Reporter,
    ) -> Team:  # fmt: skip
        """Give the workers of a run, which start with the first job.

        Args:
            spec: How each creates its context.
            workers: How many.
            scratch: Folder for the time of the run; a file `STOP` in it asks the workers to stop.
            folder: Of the results.
            requeue: Queues the trials of a worker that is gone again, which is named as `this_process` does; None for
                those of all workers.
            say: Told what happens.
        """


@dataclass(frozen=True)
class LocalEngine:
    """Worker processes of this machine; one worker is this process itself."""

    def check(self, storage: str | BaseStorage | None, workers: int, device: str = "auto") -> None:
        """Refuse a storage in one process's memory for several workers."""
        with contextlib.suppress(ArgumentError):
            if workers > 1 and not is_shareable(storage):
                raise ValueError(
                    f"{workers} workers need a storage with a URL, because they are processes; with a storage in "
                    "memory use workers=1."
                )

    def team(
        self, spec: WorkerSpec, workers: int, *, scratch: Path, folder: Path,
        requeue: Callable[[str | None], None], say: Reporter,
    ) -> Workers[Worker]:  # fmt: skip
        """Give the processes; several GPUs are shared out among them."""
        if workers > 1:
            say.note(f"Starting   {workers} worker processes")
        create_context = share_gpus(spec, str(spec.task.device), workers, scratch, say.note)
        return Workers(workers, create_context, on_crash=lambda: requeue(None), stop_file=scratch / STOP)


ENGINES: Registry[type[LocalEngine] | type[RayEngine]] = Registry("engine")
ENGINES.add("local", LocalEngine)
ENGINES.add("ray", RayEngine)
