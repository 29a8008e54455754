"""Workers: what comes back, what happens when one dies, and that none is left over."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from loky.process_executor import TerminatedWorkerError

from optuna_kd.runner import workers as workers_module
from optuna_kd.runner.workers import MALLOC, RESTARTS, Job, Workers, WorkersDiedError, share_of_cores

posix = pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until_dead(pids: list[int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


@pytest.fixture(scope="module")
def two() -> Iterator[Workers[dict[str, int]]]:
    """Two processes, started once: it takes seconds."""
    with Workers(2, lambda: {"base": 100}, threads=1) as workers:
        yield workers


def test_one_worker_is_this_process_and_keeps_the_order() -> None:
    created = []

    def create() -> str:
        created.append(os.getpid())
        return "context"

    with Workers(1, create, threads=1) as workers:
        jobs = [Job(str(n), lambda context, n: (context, n, os.getpid()), (n,)) for n in range(3)]
        outcomes = list(workers.run(jobs))
        assert [(outcome.key, *outcome.result) for outcome in outcomes] == [
            (str(n), "context", n, os.getpid()) for n in range(3)
        ]
        assert list(workers.run([])) == []
        assert [outcome.result for outcome in workers.run([Job("again", lambda context: context)])] == ["context"]
    assert len(created) == 1


def test_one_worker_has_its_threads_only_while_it_works(one_thread: None) -> None:
    with Workers(1, lambda: None, threads=2) as workers:
        (outcome,) = workers.run([Job("threads", lambda _: torch.get_num_threads())])
    assert outcome.result == 2
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_below_one_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match=f"workers must be >= 1; got {count}"):
        Workers(count, lambda: None)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr("optuna_kd.runner.workers.cpu_count", lambda **_: 8)
    assert [share_of_cores(count) for count in (1, 2, 3, 8, 20)] == [6, 4, 2, 1, 1]
    assert Workers(2, lambda: None).threads == 4
    assert Workers(2, lambda: None, threads=3).threads == 3


def test_an_exception_comes_back_and_the_rest_goes_on() -> None:
    def divide(_: object, by: int) -> float:
        return 1 / by

    with Workers(1, lambda: None, threads=1) as workers:
        outcomes = {out.key: out for out in workers.run([Job(str(by), divide, (by,)) for by in (0, 2)])}
    assert isinstance(outcomes["0"].error, ZeroDivisionError)
    assert outcomes["0"].result is None
    assert (outcomes["2"].result, outcomes["2"].error) == (0.5, None)


def test_one_worker_lets_interrupts_through() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with Workers(1, lambda: None) as workers, pytest.raises(KeyboardInterrupt):
        list(workers.run([Job("stop", interrupt)]))


def test_jobs_are_drawn_one_by_one() -> None:
    drawn = []

    def jobs() -> Iterator[Job]:
        for n in range(10):
            drawn.append(n)
            yield Job(str(n), lambda _: None)

    with Workers(1, lambda: None) as workers:
        outcomes = workers.run(jobs())
        next(outcomes)
        next(outcomes)
        assert drawn == [0, 1]


def test_two_processes_run_closures_with_their_context(two: Workers[dict[str, int]]) -> None:
    local = 7

    def job(context: dict[str, int], n: int) -> tuple[int, int, int]:
        return context["base"] + local + n, os.getpid(), torch.get_num_threads()

    outcomes = {out.key: out for out in two.run([Job(str(n), job, (n,)) for n in range(6)])}
    assert {key: outcome.result[0] for key, outcome in outcomes.items()} == {str(n): 107 + n for n in range(6)}
    assert os.getpid() not in {outcome.result[1] for outcome in outcomes.values()}
    assert {outcome.result[2] for outcome in outcomes.values()} == {1}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc keeps memory")
def test_two_processes_keep_the_memory_of_a_step_for_the_next(two: Workers[dict[str, int]]) -> None:
    import resource  # not on Windows

    def step() -> None:
        tensors = [torch.ones(2**20) for _ in range(12)]  # 4 MB each
        del tensors

    def page_faults(_: object) -> int:
        for _ in range(8):  # until the heap is large enough
            step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    (outcome,) = two.run([Job("steps", page_faults)])
    assert outcome.result < 5_000  # each step touches 12,288 pages


def test_what_the_user_has_set_for_malloc_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Workers(2, lambda: None)._environment() == {
        "OMP_NUM_THREADS": str(share_of_cores(2)),
        "MKL_NUM_THREADS": str(share_of_cores(2)),
        **MALLOC,
    }
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert Workers(2, lambda: None)._environment()["MALLOC_TRIM_THRESHOLD_"] == "1000"


def test_two_processes_give_outcomes_as_they_finish(two: Workers[dict[str, int]]) -> None:
    def sleep(_: object, seconds: float) -> None:
        time.sleep(seconds)

    jobs = [Job("slow", sleep, (1.0,)), Job("quick", sleep, (0.0,)), Job("quick too", sleep, (0.0,))]
    assert [outcome.key for outcome in two.run(jobs)] == ["quick", "quick too", "slow"]


def test_two_processes_give_exceptions_back(two: Workers[dict[str, int]]) -> None:
    class OwnError(ValueError):
        pass

    def fail(_: object) -> None:
        raise OwnError("of my own")

    outcomes = {out.key: out for out in two.run([Job("bad", fail), Job("good", lambda _: "fine")])}
    assert "of my own" in str(outcomes["bad"].error)
    assert isinstance(outcomes["bad"].error, ValueError)
    assert outcomes["good"].result == "fine"


def test_two_processes_never_have_more_jobs_than_hands(two: Workers[dict[str, int]]) -> None:
    drawn, finished = [], 0

    def jobs() -> Iterator[Job]:
        for n in range(6):
            drawn.append(n)
            yield Job(str(n), lambda _: None)

    for _ in two.run(jobs()):
        finished += 1
        assert len(drawn) <= finished + 2
    assert finished == 6


def test_jobs_of_a_killed_worker_run_again_and_stop_ends_all_at_once(
    two: Workers[dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[int] = []
    monkeypatch.setattr(two, "_on_crash", lambda: crashes.append(1))

    def die_once(_: object) -> str:
        mark = tmp_path / "mark"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL) if os.name == "posix" else os._exit(9)
        return "survived"

    jobs = [Job("deadly", die_once), *(Job(str(n), lambda _: "fine") for n in range(4))]
    outcomes = [(outcome.key, outcome.result) for outcome in two.run(jobs)]
    assert sorted(outcomes) == sorted([("deadly", "survived"), *((str(n), "fine") for n in range(4))])
    assert crashes == [1]

    # The same processes, at work again: they end in the middle of it.
    def report_and_sleep(_: object) -> None:
        (tmp_path / f"{os.getpid()}.pid").touch()
        time.sleep(60)

    outcomes_of_sleepers = two.run(
        [Job("quick", lambda _: None), Job("a", report_and_sleep), Job("b", report_and_sleep)]
    )
    next(outcomes_of_sleepers)
    end = time.monotonic() + 10
    while not (pids := [int(file.stem) for file in tmp_path.glob("*.pid")]) and time.monotonic() < end:
        time.sleep(0.05)
    assert pids
    started = time.monotonic()
    two.stop()
    assert time.monotonic() - started < 3
    assert wait_until_dead(pids, 1) == []
    two.stop()  # twice is fine


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


def test_a_context_that_cannot_be_made_is_told_by_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_follow", lambda parent: None)
    monkeypatch.setattr(workers_module, "_context", None)
    monkeypatch.setattr(workers_module, "_failure", None)
    handler = signal.getsignal(signal.SIGINT)

    def create() -> None:
        raise ValueError("no such storage")

    try:
        workers_module._start_worker(create, torch.get_num_threads(), None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    with pytest.raises(ValueError, match="no such storage"):
        workers_module._run_job(lambda _: None, ())


PARENT = """
import os, pathlib, sys, time
from optuna_kd.runner.workers import Job, Workers

folder = pathlib.Path(sys.argv[1])

def work(_, name):
    part = folder / (name + ".part")
    part.write_text(str(os.getpid()))
    part.rename(folder / (name + ".pid"))
    time.sleep(120)

with Workers(2, lambda: None, threads=1) as workers:
    list(workers.run([Job(name, work, (name,)) for name in "ab"]))
"""


@posix
def test_workers_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], start_new_session=True)
    try:
        end = time.monotonic() + 60
        while len(pids := [int(file.read_text()) for file in tmp_path.glob("*.pid")]) < 2:
            assert time.monotonic() < end, "the workers did not start"
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
        parent.wait()
        assert wait_until_dead(pids, 5) == []
    finally:
        parent.kill()
        parent.wait()
