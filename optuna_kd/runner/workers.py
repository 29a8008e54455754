"""Worker processes: jobs go in, results come out in the order in which they finish.

The processes are loky's: they carry any task (closures, classes of a script, notebooks), do not run the
user's main module again, and a worker that dies is noticed instead of waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import TerminatedWorkerError

from optuna_kd import stopping
from optuna_kd.stopping import TrainingInterrupted

Context = TypeVar("Context")

# Between two steps glibc returns memory to the system, which then comes back page by page: up to a million page faults
# in one proxy of digits, more than a second of system time. Workers keep theirs; other C libraries ignore this.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20)}  # bytes
RESTARTS = 3  # worker crashes during one job after which the run gives up


class WorkersDiedError(RuntimeError):
    """Worker processes were killed again and again, usually for memory."""


@dataclass(frozen=True)
class Job:
    """One piece of work: `function(context, *arguments)`, run in some worker."""

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job: a result, or the exception it raised."""

    key: str
    result: Any = None
    error: BaseException | None = None


class Workers(Generic[Context]):
    """Runs jobs in `count` processes of `threads` torch threads each; with one, in this process.

    Args:
        count: Processes; 1 runs the jobs here, one after another.
        create_context: Called once in every process; its result is the first argument of each job.
        threads: Torch threads of each process; None shares the cores out.
        on_crash: Called when worker processes died; their unfinished jobs run again afterwards.
        stop_file: There as soon as trainings are to stop (`optuna_kd.stopping`). A process that gets a SIGTERM of its
            own stops its training and is replaced.
    """

    def __init__(
        self,
        count: int,
        create_context: Callable[[], Context],
        *,
        threads: int | None = None,
        on_crash: Callable[[], None] = lambda: None,
        stop_file: Path | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"workers must be >= 1; got {count!r}.")
        self.count = count
        self.threads = threads or share_of_cores(count)
        self._create_context = create_context
        self._on_crash = on_crash
        self._stop_file = stop_file
        self._executor: ProcessPoolExecutor | None = None
        self._context: Context | None = None

    def __enter__(self) -> Workers[Context]:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the worker processes at once."""
        if self._executor is not None:
            # Waited for, so that no worker still writes to the storage when this returns.
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def run(self, jobs: Sequence[Job] | Iterator[Job]) -> Iterator[Outcome]:
        """Run jobs, never more in flight than there are workers; yield each outcome as it comes.

        `jobs` is read lazily, so that a caller can stop a stream of jobs by ending it.

        Raises:
            WorkersDiedError: If worker processes die again and again.
        """
        return self._run_here(iter(jobs)) if self.count == 1 else self._run_in_processes(iter(jobs))

    def _run_here(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if self._context is None:
                self._context = self._create_context()
            for job in jobs:
                try:
                    outcome = Outcome(job.key, job.function(self._context, *job.arguments))
                except Exception as error:
                    outcome = Outcome(job.key, error=error)
                yield outcome
        finally:
            torch.set_num_threads(before)

    def _run_in_processes(self, jobs: Iterator[Job]) -> Iterator[Outcome]:
        flying: dict[Future[Any], Job] = {}
        again: list[Job] = []
        crashes: Counter[str] = Counter()  # by job: one that kills its worker each time must not go on for ever
        while True:
            broken = False
            while not broken and len(flying) < self.count and (job := again.pop() if again else next(jobs, None)):
                try:
                    flying[self._submit(job)] = job
                except TerminatedWorkerError:  # a worker died while its results were looked at
                    again.append(job)
                    broken = True
            if not flying and not broken:
                return
            # When one worker dies, loky ends the others too, and every future gets a result or an error.
            done, _ = wait(flying, return_when=ALL_COMPLETED if broken else FIRST_COMPLETED)
            if any(isinstance(future.exception(), TerminatedWorkerError) for future in done):
                broken = True
                done, _ = wait(flying, return_when=ALL_COMPLETED)
            for future in done:
                job = flying.pop(future)
                error = future.exception()
                if isinstance(error, TerminatedWorkerError):
                    again.append(job)
                else:
                    yield Outcome(job.key, None if error else future.result(), error)
            if broken:
                self.stop()
                self._on_crash()
                crashes.update(job.key for job in again)
                if again and max(crashes.values()) > RESTARTS:
                    raise WorkersDiedError(
                        f"Worker processes were killed {max(crashes.values())} times during the same piece of work, "
                        "usually for lack of memory. Use fewer workers or smaller batches."
                    )

    def _submit(self, job: Job) -> Future[Any]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                max_workers=self.count,
                initializer=_start_worker,
                initargs=(self._create_context, self.threads, self._stop_file),
                env=environment(self.threads),
            )
        with _interrupts_blocked():
            return self._executor.submit(_run_job, job.function, job.arguments)


def environment(threads: int) -> dict[str, str]:
    """Give what worker processes need to know before they start; what the user has set for malloc stays."""
    malloc = {name: os.environ.get(name, value) for name, value in MALLOC.items()}
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **malloc}


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back while processes start: they inherit this, and do not die of it with a traceback each."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def share_of_cores(workers: int) -> int:
    """Torch threads of each worker: its share of the cores, and never more than this process may use."""
    # Physical cores that affinity and container leave to this process: a second thread on a core gains nothing.
    return max(1, min(torch.get_num_threads(), cpu_count(only_physical_cores=True) // workers))


_context: Any = None  # of this worker process, set by its initializer
_failure: Exception | None = None  # why there is no context


def _start_worker(create_context: Callable[[], Any], threads: int, stop_file: Path | None) -> None:
    global _context, _failure
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.listen(stop_file)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)
    try:
        _context = create_context()
    except Exception as error:  # an initializer that fails looks like a killed worker; the jobs tell instead
        _failure = error


def _run_job(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if _failure is not None:
        raise _failure
    _leave_if_asked_alone()
    try:
        return function(_context, *arguments)
    except TrainingInterrupted:
        _leave_if_asked_alone()
        raise


def _leave_if_asked_alone() -> None:
    """End this worker if a signal stopped it and not the search: in a new one this job runs, or goes on.

    Not as soon as a job ends: its trials have ended or are queued again, and the parent is to hear of them.
    """
    if stopping.is_asked_alone():
        os._exit(128 + signal.SIGTERM)


def _follow(parent: int) -> None:
    """End this worker when its parent was killed: nobody would read its results."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
