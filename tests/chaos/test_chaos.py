"""Workers are killed all the time, the database with them, and the study ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
from digits_worker import NAME, create_objective, join_study
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.storages import OWNER, create_storage, original_number
from optuna_kd.study.optimizing import run_trial

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("quiet_optuna")]

WORKERS, TOTAL, KILLS = 4, 60, 20
PAUSE = 1.5  # seconds between two kills
LIMIT = 900.0  # seconds in which all is over
WORKER = Path(__file__).with_name("digits_worker.py")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Crowd:
    """Worker processes that are started again whenever one was killed."""

    url: str
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> None:
        """Start one more."""
        command = [sys.executable, str(WORKER), self.url, str(self.folder / "checkpoints"), str(TOTAL)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = (self.folder / f"worker-{time.monotonic_ns()}.log").open("w")
        self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True))

    def kill_one(self, trials: list[FrozenTrial], chance: random.Random) -> bool:
        """Kill one that runs a trial, and start another in its place; give whether there was one."""
        owners = {str(trial.system_attrs.get(OWNER, "//")).split("/")[1] for trial in trials}
        busy = [process for process in self.processes if process.poll() is None and str(process.pid) in owners]
        if busy:
            victim = chance.choice(busy)
            victim.kill()
            victim.wait()
            self.start()
        return bool(busy)

    def stop(self) -> None:
        """End all."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """Give what they wrote."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("worker-*.log")))


@pytest.fixture
def crowd(database: str, tmp_path: Path) -> Iterator[Crowd]:
    """Four workers on one study."""
    crowd = Crowd(database, tmp_path)
    try:
        yield crowd
    finally:
        crowd.stop()


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


def disturb(crowd: Crowd, beside: Callable[[int], None] = lambda kill: None) -> dict[int, FrozenTrial]:
    """Kill workers while they run, and wait until the study is complete; give the finished trials as first seen."""
    chance = random.Random(0)
    for _ in range(WORKERS):
        crowd.start()
    study = wait_for_study(crowd)
    first_seen: dict[int, FrozenTrial] = {}
    started, kills, last = time.monotonic(), 0, time.monotonic()
    while True:
        assert time.monotonic() - started < LIMIT, crowd.logs()
        running: list[FrozenTrial] = []
        with contextlib.suppress(Exception):  # the database may be away
            running = study.get_trials(states=(TrialState.RUNNING,))
            for trial in study.get_trials(states=FINISHED):
                first_seen.setdefault(trial.number, trial)
        if all(process.poll() is not None for process in crowd.processes):
            break
        if kills < KILLS and time.monotonic() - last > PAUSE and crowd.kill_one(running, chance):
            kills, last = kills + 1, time.monotonic()
            beside(kills)
        time.sleep(0.3)
    assert kills == KILLS, f"all was over after {kills} kills"
    assert {process.returncode for process in crowd.processes} == {0, -signal.SIGKILL}, crowd.logs()
    return first_seen


def wait_for_study(crowd: Crowd) -> optuna.Study:
    end = time.monotonic() + 120
    while True:
        assert time.monotonic() < end, crowd.logs()
        with contextlib.suppress(Exception):
            return optuna.load_study(study_name=NAME, storage=create_storage(crowd.url))
        time.sleep(0.5)


def check(crowd: Crowd, first_seen: dict[int, FrozenTrial], shown: list[int]) -> None:
    """Compare with the same trials where nobody was killed."""
    trials = optuna.load_study(study_name=NAME, storage=create_storage(crowd.url)).trials
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == TOTAL
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {*FINISHED, TrialState.FAIL}  # nobody is RUNNING or WAITING
    for number, trial in first_seen.items():
        assert trials[number] == trial, "a finished trial was changed"
    originals = [original_number(trial) for trial in finished]
    assert len(set(originals)) == TOTAL, "a trial was run twice"
    interrupted = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(interrupted) >= KILLS - 4, "some kills may come just after a trial has ended, but not many"
    assert any(original_number(trial) != trial.number for trial in finished)
    assert shown, "the dashboard showed nothing"
    assert list((crowd.folder / "checkpoints").glob("*")) == []
    twins = undisturbed(set(originals))
    for trial in finished:
        twin = twins[original_number(trial)]
        assert (trial.params, trial.values) == (twin.params, twin.values)
        assert trial.intermediate_values == twin.intermediate_values
        assert {name: value for name, value in trial.user_attrs.items() if name != "seconds"} == {
            name: value for name, value in twin.user_attrs.items() if name != "seconds"
        }


def undisturbed(numbers: set[int]) -> dict[int, FrozenTrial]:
    """Run these trials one after another in this process."""
    study, objective = join_study(None), create_objective(None)
    objective.bind(study)
    for number in range(max(numbers) + 1):
        trial = study.ask()
        if number in numbers:
            run_trial(study, trial, objective, ())
        else:
            study.tell(trial, state=TrialState.FAIL)
    return {trial.number: trial for trial in study.trials if trial.number in numbers}


def test_killed_workers(crowd: Crowd) -> None:
    with dashboard(crowd.url) as shown:
        first_seen = disturb(crowd)
    check(crowd, first_seen, shown)


def test_a_database_server_that_is_cut_off(server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The PostgreSQL server itself is stopped as by a power cut, twice."""
    crowd = Crowd(server.create_database(), tmp_path)

    def cut(kill: int) -> None:
        if kill in (7, 14):
            server.stop()
            time.sleep(3)
            server.start()

    try:
        with dashboard(crowd.url) as shown:
            first_seen = disturb(crowd, cut)
        check(crowd, first_seen, shown)
    finally:
        crowd.stop()
