"""Workers on other machines, behind a proxy or at a journal file: whether their signs of life go on."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from proxy_server import free_port, start_proxy

from optuna_kd._compat import heartbeat
from optuna_kd.storages import OWNER, claim_trial, create_storage, retire_lost_trials, this_process
from optuna_kd.storages.pulse import Pulse
from optuna_kd.storages.watch import Watch

pytestmark = pytest.mark.usefixtures("quiet_optuna")

FAR = "elsewhere/7/100"  # a process of another machine


class Clock:
    """Seconds that pass when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    """One that gives two minutes."""
    return Watch(clock)


def test_a_number_that_moves_is_alive_and_one_that_stands_for_two_minutes_is_lost(watch: Watch, clock: Clock) -> None:
    for count in range(20):
        assert watch.lost(1, {5: f"{FAR}/{count}"}) == []
        clock.pass_by(50)
    for _ in range(2):  # the last number is seen again after 50 and 100 seconds
        assert watch.lost(1, {5: f"{FAR}/19"}) == []
        clock.pass_by(50)
    assert watch.lost(1, {5: f"{FAR}/19"}) == [5]
    assert watch.lost(1, {}) == []


def test_a_look_after_an_hour_proves_nothing(watch: Watch, clock: Clock) -> None:
    """The storage was away, and with it everybody's signs; or this process was asleep."""
    watch.lost(1, {5: f"{FAR}/3"})
    clock.pass_by(3600)
    assert watch.lost(1, {5: f"{FAR}/3"}) == []
    clock.pass_by(59)
    assert watch.lost(1, {5: f"{FAR}/3"}) == []
    clock.pass_by(1)
    assert watch.lost(1, {5: f"{FAR}/3"}) == [5]


def test_one_sign_stands_for_all_trials_of_a_process(watch: Watch, clock: Clock) -> None:
    other = "elsewhere/8/100"
    for count in range(4):
        assert watch.lost(1, {5: f"{FAR}/0", 6: f"{FAR}/{count}", 7: f"{other}/0", 8: f"{other}/0"}) == (
            [7, 8] if count == 3 else []
        )
        clock.pass_by(50)
    assert watch.lost(1, {5: f"{FAR}/0"}) == []  # its other trial has ended, which is a sign


def test_who_gives_no_signs_is_not_missed_for_lack_of_them(watch: Watch, clock: Clock) -> None:
    for _ in range(10):
        assert watch.lost(1, {5: FAR, 6: "", 7: f"{this_process()}/0"}) == []
        clock.pass_by(50)


def test_heartbeats_of_a_database_are_signs(watch: Watch, clock: Clock) -> None:
    """Whatever they say about the time: the clock of the database may have gone back."""
    for look in range(4):
        found = watch.lost(1, {5: FAR, 6: FAR.replace("7", "8"), 7: ""}, {5: "12:00", 6: f"0{9 - look}:00", 7: "13:00"})
        assert found == ([5, 7] if look == 3 else [])
        clock.pass_by(50)


def test_studies_are_watched_apart(watch: Watch, clock: Clock) -> None:
    for look in range(4):
        assert watch.lost(1, {5: f"{FAR}/0"}) == ([5] if look == 3 else [])
        assert watch.lost(2, {9: f"{FAR}/{look}"}) == []
        clock.pass_by(50)


def test_a_process_counts_at_most_twice_an_interval(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("optuna_kd.storages.pulse.time.monotonic", clock)
    pulse = Pulse()
    mine, reads = this_process(), []

    def signs(trials: int, owner: str | None) -> list[str]:
        given = [pulse.next(trial, lambda: reads.append(1) or owner) for trial in range(trials)]
        return [sign for sign in given if sign is not None]

    assert signs(8, f"{mine}/0") == [f"{mine}/1"]
    clock.pass_by(14.9)
    assert signs(8, f"{mine}/0") == []
    clock.pass_by(0.1)
    assert signs(8, f"{mine}/0") == [f"{mine}/2"]
    assert len(reads) == 8  # once for each trial
    assert pulse.next(100, lambda: None) == f"{mine}/3"  # one of `Study.optimize`, which nobody has signed
    assert pulse.next(101, lambda: f"{FAR}/0") == f"{mine}/4"
    pulse.rush()
    assert signs(1, None) == [f"{mine}/5"]


def test_pulse_and_watch_begin_anew_in_another_process(watch: Watch, clock: Clock) -> None:
    watch.was_blind()
    assert pickle.loads(pickle.dumps(watch)).sees(10.0)
    pulse = Pulse()
    pulse.next(1, lambda: None)
    assert pickle.loads(pickle.dumps(pulse)).next(2, lambda: None) == f"{this_process()}/1"


WORKER = """
import sys, time
import optuna
from optuna_kd.storages import claim_trial, create_storage, processes
from optuna_kd._compat import heartbeat
processes._machine = lambda: "elsewhere"
storage = create_storage(sys.argv[1], patience=60)
storage.pulse.interval = 0.2
study = optuna.load_study(study_name="far", storage=storage)
trials = [claim_trial(study, None) for _ in range(3)]
for trial in trials:
    trial.suggest_float("x", 0, 1)
with heartbeat(trials[0]), heartbeat(trials[1]), heartbeat(trials[2]):
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["grpc", "journal"])
def far(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The URL of a storage without heartbeats, and what restarts its server."""
    if request.param == "journal":
        yield f"journal:///{tmp_path / 'kd.log'}", lambda: None
        return
    pytest.importorskip("grpc", reason="grpcio is not installed")
    port, database = free_port(), f"sqlite:///{tmp_path / 'kd.db'}"
    servers = [start_proxy(database, port)]

    def restart() -> None:
        servers[-1].kill()
        servers[-1].communicate()
        time.sleep(1.5)  # longer than the grace of the test
        servers.append(start_proxy(database, port))

    try:
        create_storage(f"grpc://127.0.0.1:{port}", patience=60)
        yield f"grpc://127.0.0.1:{port}", restart
    finally:
        servers[-1].kill()
        servers[-1].communicate()


def look(study: optuna.Study, seconds: float) -> int:
    """Look for lost trials for a while; give how many there were."""
    end, found = time.monotonic() + seconds, 0
    while not found and time.monotonic() < end:
        found = retire_lost_trials(study)
        time.sleep(0.1)
    return found


def test_a_worker_on_another_machine_that_is_killed_is_missed(far: tuple[str, Callable[[], None]]) -> None:
    url, restart = far
    storage: Any = create_storage(url, patience=60)
    storage.watch.grace = 1.0
    study = optuna.create_study(study_name="far", storage=storage)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, url], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "running\n"
        assert look(study, 3.0) == 0
        restart()
        assert look(study, 3.0) == 0
        assert {trial.system_attrs[OWNER].split("/")[0] for trial in study.trials} == {"elsewhere"}
        worker.kill()
        worker.wait()
        assert look(study, 30.0) == 3
    finally:
        worker.kill()
        worker.communicate()
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL] * 3 + [TrialState.WAITING] * 3
    again = claim_trial(study, 3)
    assert again is not None
    assert again.params == study.trials[0].params
    with heartbeat(again):
        assert look(study, 3.0) == 0


OPTIMIZE_AND_DIE = """
import os, sys, time, optuna
from optuna_kd.storages import create_storage
def objective(trial):
    trial.suggest_float("x", 0, 1)
    time.sleep(0.5)
    os.kill(os.getpid(), 9)
optuna.load_study(study_name="plain", storage=create_storage(sys.argv[1])).optimize(objective, n_trials=1)
"""


def test_a_plain_study_optimize_runs_lost_trials_again(tmp_path: Path) -> None:
    """As at a database: Optuna itself asks a storage with heartbeats for them."""
    url = f"journal:///{tmp_path / 'kd.log'}"
    study = optuna.create_study(study_name="plain", storage=create_storage(url))
    subprocess.run([sys.executable, "-c", OPTIMIZE_AND_DIE, url], timeout=60, check=False)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].params == study.trials[0].params


def test_signs_are_written_over_one_another(tmp_path: Path) -> None:
    storage: Any = create_storage(f"journal:///{tmp_path / 'kd.log'}")
    study = optuna.create_study(storage=storage)
    trial = claim_trial(study, 1)
    assert trial is not None
    written = []
    for _ in range(3):
        storage.pulse.rush()
        before = (tmp_path / "kd.log").stat().st_size
        storage.record_heartbeat(trial._trial_id)
        written.append((tmp_path / "kd.log").stat().st_size - before)
    assert study.trials[0].system_attrs == {OWNER: f"{this_process()}/3"}
    assert max(written) < 250  # bytes
    study.tell(trial, 1.0)
    storage.pulse.rush()
    storage.record_heartbeat(trial._trial_id)  # it has ended meanwhile, which is nothing to raise
