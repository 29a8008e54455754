"""Workers that die at moments which real ones seldom choose: what is run again, and when that ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest
from loky.process_executor import TerminatedWorkerError

from optuna_kd.runner import workers as workers_module
from optuna_kd.runner.workers import RESTARTS, Job, Workers, WorkersDiedError


class CrashingPool:
    """A pool whose 'workers' are killed where a job says so: then, as in loky, all its futures fail for good."""

    pools: ClassVar[list[CrashingPool]] = []

    def __init__(self, **_: object) -> None:
        self.broken: Exception | None = None
        self.unfinished: list[Future[Any]] = []
        self.pools.append(self)

    def submit(self, run: object, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        if self.broken is not None:
            raise self.broken
        future: Future[Any] = Future()
        self.unfinished.append(future)
        result = function(None, *arguments)
        if result == "killed":
            self.crash()
        elif result != "unfinished":
            self.unfinished.remove(future)
            future.set_result(result)
        return future

    def crash(self) -> None:
        self.broken = TerminatedWorkerError("a worker was killed")
        for future in self.unfinished:
            future.set_exception(self.broken)

    def shutdown(self, wait: bool, kill_workers: bool) -> None:
        assert wait
        assert kill_workers


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[CrashingPool]:
    monkeypatch.setattr(CrashingPool, "pools", [])
    monkeypatch.setattr(workers_module, "ProcessPoolExecutor", CrashingPool)
    return CrashingPool.pools


def test_a_worker_killed_between_two_jobs_is_replaced(pools: list[CrashingPool]) -> None:
    with Workers(2, lambda: None) as workers:
        outcomes = []
        for outcome in workers.run([Job(str(n), lambda _, n: n, (n,)) for n in range(6)]):
            outcomes.append(outcome.result)
            if len(pools) == 1 and len(outcomes) == 2:  # both are out, nobody works
                pools[0].crash()
    assert sorted(outcomes) == list(range(6))
    assert len(pools) == 2


def test_what_was_finished_in_a_crash_is_not_run_again(pools: list[CrashingPool]) -> None:
    ran = []

    def work(_: object, name: str) -> str:
        ran.append(name)
        return "killed" if name == "deadly" and ran.count(name) == 1 else name

    with Workers(2, lambda: None) as workers:
        outcomes = [
            outcome.key for outcome in workers.run([Job(name, work, (name,)) for name in ("done", "deadly", "c")])
        ]
    assert sorted(outcomes) == ["c", "deadly", "done"]
    assert sorted(ran) == ["c", "deadly", "deadly", "done"]


def test_a_job_that_dies_each_time_ends_the_run_whatever_else_finishes(pools: list[CrashingPool]) -> None:
    ran = []

    def work(_: object, name: str) -> str:
        ran.append(name)
        return "killed" if name == "0" else "fine"

    crashes: list[int] = []
    workers: Workers[None] = Workers(2, lambda: None, on_crash=lambda: crashes.append(1))
    with workers, pytest.raises(WorkersDiedError, match=r"killed 4 times.*memory\. Use fewer workers"):
        list(workers.run(Job(str(n), work, (str(n),)) for n in range(1000)))
    assert ran.count("0") == len(crashes) == RESTARTS + 1
