"""Workers are killed all the time, the database with them, and the study ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from crowd import FINISHED, KILLS, TOTAL, Crowd, begin, disturb, forking, recovery_of
from digits_worker import NAME, undisturbed
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.storages import create_storage, original_number

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("quiet_optuna")]


@pytest.fixture
def start_crowd(tmp_path: Path) -> Iterator[Callable[[str], Crowd]]:
    """Make a crowd of workers for a database, which is ended with the test."""
    crowds: list[Crowd] = []

    def start(url: str) -> Crowd:
        crowds.append(Crowd(url, tmp_path))
        return crowds[-1]

    try:
        yield start
    finally:
        for crowd in crowds:
            crowd.stop()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Print past pytest, which keeps what tests print."""

    def say(text: object) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return say


@contextlib.contextmanager
def dashboard(url: str) -> Iterator[list[int]]:
    """A dashboard that is looked at all the time; gives how many trials it showed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), url, "--port", str(port), "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
                base = f"http://127.0.0.1:{port}/api/studies"
                with urllib.request.urlopen(base, timeout=20) as answer:
                    (study,) = [one for one in json.load(answer)["study_summaries"] if one["study_name"] == NAME]
                with urllib.request.urlopen(f"{base}/{study['study_id']}?after=0", timeout=20) as answer:
                    seen.append(len(json.load(answer)["trials"]))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()
        server.kill()
        server.wait()


def check(crowd: Crowd, first_seen: dict[int, FrozenTrial], shown: list[int]) -> None:
    """Compare with the same trials where nobody was killed."""
    assert all(kill.recovered for kill in crowd.kills if kill.attempt), "a trial was lost"
    trials = optuna.load_study(study_name=NAME, storage=create_storage(crowd.url)).trials
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == TOTAL
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {*FINISHED, TrialState.FAIL}  # nobody is RUNNING or WAITING
    for number, trial in first_seen.items():
        assert trials[number] == trial, "a finished trial was changed"
    originals = [original_number(trial) for trial in finished]
    assert sorted(originals) == list(range(TOTAL)), "not the trials that it would have been without kills"
    interrupted = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(interrupted) >= KILLS - 4, "some kills may come just after a trial has ended, but not many"
    assert any(original_number(trial) != trial.number for trial in finished)
    assert shown, "the dashboard showed nothing"
    assert list((crowd.folder / "checkpoints").glob("*")) == []
    twins = twins_of(set(originals))
    for trial in finished:
        twin = twins[original_number(trial)]
        assert (trial.params, trial.values) == (twin.params, twin.values)
        assert trial.intermediate_values == twin.intermediate_values
        assert {name: value for name, value in trial.user_attrs.items() if name != "seconds"} == {
            name: value for name, value in twin.user_attrs.items() if name != "seconds"
        }


_twins: dict[int, FrozenTrial] = {}  # by number: the same for all tests, because a trial depends on its number alone


def twins_of(numbers: set[int]) -> dict[int, FrozenTrial]:
    """Give these trials as they are where nobody is killed."""
    missing = sorted(numbers - _twins.keys())
    with forking().Pool(2) as pool:
        for found in pool.map(undisturbed, [missing[::2], missing[1::2]]):
            _twins.update(found)
    return _twins


def test_killed_workers(database: str, start_crowd: Callable[[str], Crowd], say: Callable[[object], None]) -> None:
    crowd = start_crowd(database)
    study = begin(crowd)
    with dashboard(crowd.url) as shown:
        first_seen = disturb(crowd, study)
    say(recovery_of(crowd.kills))
    check(crowd, first_seen, shown)


def test_a_database_server_that_is_cut_off(  # type: ignore[no-untyped-def]
    server, start_crowd: Callable[[str], Crowd], say: Callable[[object], None]
) -> None:
    """The PostgreSQL server itself is stopped as by a power cut, twice."""

    def cut(kill: int) -> None:
        if kill in (7, 14):
            server.stop()
            time.sleep(3)
            server.start()

    crowd = start_crowd(server.create_database())
    study = begin(crowd)
    with dashboard(crowd.url) as shown:
        first_seen = disturb(crowd, study, cut)
    say(recovery_of(crowd.kills))
    check(crowd, first_seen, shown)
