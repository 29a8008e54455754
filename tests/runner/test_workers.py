"""Workers: what comes back, what happens when one dies, and that none is left over."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from optuna_kd import stopping
from optuna_kd.runner import workers as workers_module
from optuna_kd.runner.workers import MALLOC, Job, Workers, environment, share_of_cores

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
    assert environment(2) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", **MALLOC}
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert environment(2)["MALLOC_TRIM_THRESHOLD_"] == "1000"


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


@posix
def test_a_worker_that_is_stopped_by_itself_is_replaced(
    tmp_path: Path, two: Workers[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One while it trains, and one that still has a result to give."""
    crashes: list[int] = []
    monkeypatch.setattr(two, "_on_crash", lambda: crashes.append(1))

    def work(_: object, name: str, trains: bool) -> int:
        if not (tmp_path / name).exists():
            (tmp_path / name).touch()
            os.kill(os.getpid(), signal.SIGTERM)
        if stopping.is_asked() and trains:
            raise stopping.TrainingInterrupted
        return os.getpid()

    def wait(_: object) -> int:
        time.sleep(0.3)  # for both workers to be asked
        assert not stopping.is_asked()
        return os.getpid()

    (outcome,) = two.run([Job("training", work, ("training", True))])
    assert (outcome.error, crashes) == (None, [1])
    (asked,) = two.run([Job("result", work, ("result", False))])
    assert (asked.error, crashes) == (None, [1])
    outcomes = list(two.run([Job(str(n), wait) for n in range(4)]))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert asked.result not in {outcome.result for outcome in outcomes}
    assert crashes == [1, 1]


@posix
def test_a_wish_of_all_ends_no_worker(tmp_path: Path) -> None:
    """The signal reaches the whole group, as a batch system sends it."""

    def train(_: object) -> None:
        (tmp_path / "stop").touch()
        os.kill(os.getpid(), signal.SIGTERM)
        raise stopping.TrainingInterrupted

    crashes: list[int] = []
    with Workers(
        2, lambda: None, threads=1, on_crash=lambda: crashes.append(1), stop_file=tmp_path / "stop"
    ) as workers:
        (outcome,) = workers.run([Job("training", train)])
        assert isinstance(outcome.error, stopping.TrainingInterrupted)
        assert [outcome.result for outcome in workers.run([Job("next", lambda _: "here")])] == ["here"]
    assert crashes == []


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
