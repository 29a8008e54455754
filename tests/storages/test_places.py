"""Trials start in a place of the total, and those whose process is gone take theirs again."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from optuna_kd.storages import (
    OWNER,
    RETRIES,
    claim_trial,
    count_taken,
    count_trials,
    create_storage,
    original_number,
    retire_lost_trials,
    retire_trial,
    this_process,
    write_trial,
)
from optuna_kd.storages.processes import is_gone, process_of

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture(params=["sqlite", "postgresql", "journal", "memory"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    """An empty study, in each kind of storage."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres")
    else:
        files = {"sqlite": f"sqlite:///{tmp_path / 'kd.db'}", "journal": f"journal:///{tmp_path / 'kd.log'}"}
        url = files.get(request.param)
    return optuna.create_study(storage=create_storage(url))


def tell_all(study: optuna.Study, value: float = 1.0) -> None:
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, value)


def test_no_more_places_than_the_total(study: optuna.Study) -> None:
    claimed = [claim_trial(study, 2) for _ in range(3)]
    assert [trial and trial.number for trial in claimed] == [0, 1, None]
    tell_all(study)
    assert claim_trial(study, 2) is None
    third = claim_trial(study, 3)
    assert third is not None
    study.tell(third, state=TrialState.FAIL)  # holds no place
    assert claim_trial(study, 3) is not None
    assert count_taken(study) == 3
    assert count_trials(study) == Counter({TrialState.COMPLETE: 2, TrialState.FAIL: 1, TrialState.RUNNING: 1})
    assert claim_trial(study, None) is not None


def test_a_claimed_trial_is_one_of_optunas(study: optuna.Study) -> None:
    trial = claim_trial(study, 1)
    assert trial is not None
    assert trial.suggest_float("x", 0, 1) == trial.params["x"]
    trial.report(0.5, 1)
    study.tell(trial, 0.25)
    (stored,) = study.trials
    assert (stored.value, stored.state, stored.intermediate_values) == (0.25, TrialState.COMPLETE, {1: 0.5})
    assert stored.datetime_start is not None
    assert process_of(stored.system_attrs[OWNER]) == this_process()


def test_queued_trials_come_first_and_in_order(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.25})
    study.enqueue_trial({"x": 0.75})
    trials = [claim_trial(study, 3) for _ in range(3)]
    assert [trial and trial.number for trial in trials] == [0, 1, 2]
    assert trials[0] is not None
    assert trials[1] is not None
    assert [trial.suggest_float("x", 0, 1) for trial in trials[:2] if trial] == [0.25, 0.75]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")  # which is why nobody can miss it
def test_a_trial_that_nobody_can_miss_holds_no_place(study: optuna.Study) -> None:
    study.ask()
    assert count_taken(study) == 0
    assert claim_trial(study, 1) is not None


def test_a_retired_trial_comes_again_with_everything_it_had(study: optuna.Study) -> None:
    trial = claim_trial(study, 1)
    assert trial is not None
    value = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("note", "kept")
    trial.report(0.5, 3)
    assert retire_trial(study, study.trials[0])
    assert not retire_trial(study, study.trials[0])
    again = claim_trial(study, 1)
    assert again is not None
    assert again.number == 1
    stored = study.trials[1]
    assert (stored.params, stored.user_attrs, stored.intermediate_values) == ({"x": value}, {"note": "kept"}, {3: 0.5})
    assert original_number(stored) == 0
    assert optuna.storages.RetryHeartbeatStaleTrialCallback.retry_history(stored) == [0]
    assert again.suggest_float("x", 0, 1) == value
    retire_trial(study, stored)
    assert original_number(study.trials[2]) == 0
    assert study.trials[2].system_attrs["retry_history"] == [0, 1]
    assert claim_trial(study, 1) is not None
    assert claim_trial(study, 1) is None


def test_a_trial_is_run_again_ten_times(study: optuna.Study, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(RETRIES + 1):
        trial = claim_trial(study, 1)
        assert trial is not None
        assert trial.number == number
        retire_trial(study, study.trials[number])
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * (RETRIES + 1)
    new = claim_trial(study, 1)
    assert new is not None
    assert new.number == RETRIES + 1
    assert original_number(study.trials[new.number]) == 1
    assert "Trial 10 is given up: it was interrupted 11 times" in caplog.text


def test_being_told_to_stop_is_no_reason_to_give_a_trial_up(study: optuna.Study) -> None:
    for number in range(3 * RETRIES):
        trial = claim_trial(study, 1)
        assert trial is not None
        assert trial.number == number
        assert original_number(study.trials[number]) == 0
        retire_trial(study, study.trials[number], stopped=True)
    for _ in range(RETRIES):
        assert claim_trial(study, 1) is not None
        retire_trial(study, study.trials[-1])
    assert claim_trial(study, 1) is not None
    assert original_number(study.trials[-1]) == 0


def test_a_number_is_what_it_would_be_if_nobody_had_been_interrupted(study: optuna.Study) -> None:
    claimed = [claim_trial(study, 9) for _ in range(3)]
    assert all(claimed)
    study.enqueue_trial({"x": 0.5})
    for number in (1, 0):
        retire_trial(study, study.trials[number])
    study.enqueue_trial({"x": 0.75})
    while (trial := claim_trial(study, 8)) is not None:
        claimed.append(trial)
    # Rows: three that began, one in the queue, the second and the first of them again, one in the queue, the others.
    assert [original_number(trial) for trial in study.trials] == [0, 1, 2, 3, 1, 0, 4, 5, 6, 7]


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -9), done.stderr
    return done.stdout.strip()


CLAIM_AND_DIE = """
import os, sys, optuna
from optuna_kd.storages import claim_trial, create_storage
study = optuna.load_study(study_name="killed", storage=create_storage(sys.argv[1]))
claim_trial(study, 5).suggest_float("x", 0, 1)
os.kill(os.getpid(), 9)
"""


def test_a_process_that_was_killed_on_this_machine_is_missed_at_once(database: str) -> None:
    study = optuna.create_study(study_name="killed", storage=create_storage(database))
    mine = claim_trial(study, 5)
    run(CLAIM_AND_DIE, database)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING] * 2
    assert retire_lost_trials(study) == 1
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    assert study.trials[2].params == study.trials[1].params
    assert retire_lost_trials(study) == 0
    assert mine is not None
    study.tell(mine, 1.0)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_what_study_optimize_runs_again_is_not_taken_for_lost_at_once(database: str) -> None:
    """It has no owner; that of the interrupted trial is gone."""
    study = optuna.create_study(study_name="killed", storage=create_storage(database))
    run(CLAIM_AND_DIE, database)
    assert retire_lost_trials(study) == 1
    again = study.ask()
    assert original_number(study.trials[again.number]) == 0
    assert retire_lost_trials(study) == 0


def test_one_on_another_machine_is_missed_when_its_heartbeat_ends(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = create_storage(database)
    storage.grace_period = 1  # type: ignore[attr-defined]
    study = optuna.create_study(storage=storage)
    monkeypatch.setattr("optuna_kd.storages.places.this_process", lambda: "another machine/1/1")
    assert claim_trial(study, 5) is not None
    assert retire_lost_trials(study) == 0
    time.sleep(2.5)  # SQLite counts whole seconds
    storage.watch.was_blind()  # type: ignore[attr-defined]
    assert retire_lost_trials(study) == 0  # nobody could give a sign
    time.sleep(1.1)
    assert retire_lost_trials(study) == 1


def test_one_on_another_machine_is_missed_when_the_clock_went_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last heartbeat is in the future, for an hour."""
    storage: Any = create_storage(database)
    storage.watch.grace = 0.5
    study = optuna.create_study(storage=storage)
    monkeypatch.setattr("optuna_kd.storages.places.this_process", lambda: "another machine/1/1")
    trial = claim_trial(study, 5)
    assert trial is not None
    later = {"sqlite": "datetime('now', '+1 hour')", "postgresql": "now() + interval '1 hour'"}
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_heartbeats SET heartbeat = {later[connection.dialect.name]}")
    for _ in range(2):
        assert retire_lost_trials(study) == 0
        time.sleep(0.3)
    assert retire_lost_trials(study) == 1


def test_processes() -> None:
    me = this_process()
    assert not is_gone(me)
    machine, number, began = me.split("/")
    assert is_gone(f"{machine}/{number}/{int(began) - 1}")  # the number was given to another process since
    assert is_gone(f"{machine}/4194304/1")  # Linux gives none as high
    assert not is_gone(f"elsewhere/{number}/{began}")
    for strange in ("", "/", "//", f"{machine}/x/1", f"{machine}", "null"):
        assert not is_gone(strange)
    other = run("from optuna_kd.storages import this_process; print(this_process())")
    assert other.split("/")[0] == machine
    assert is_gone(other)


def test_threads_and_objects_never_share_a_place(database: str) -> None:
    create_storage(database)
    optuna.create_study(study_name="shared", storage=create_storage(database))
    numbers: list[int] = []

    def work() -> None:
        study = optuna.load_study(study_name="shared", storage=create_storage(database))
        while (trial := claim_trial(study, 20)) is not None:
            numbers.append(trial.number)
            study.tell(trial, 0.0)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(20))


def test_attributes_and_reports_are_written_at_once(study: optuna.Study) -> None:
    trial = claim_trial(study, 2)
    assert trial is not None
    write_trial(trial, {"a": 1, "b": [1.5, None]}, {3: 0.25})
    write_trial(trial, {"a": 2, "c": {"deep": "yes"}}, {6: float("nan"), 9: float("inf")})
    write_trial(trial, {})
    expected = {"a": 2, "b": [1.5, None], "c": {"deep": "yes"}}
    stored = study.trials[0]
    assert stored.user_attrs == trial.user_attrs == expected
    assert str(stored.intermediate_values) == "{3: 0.25, 6: nan, 9: inf}"
    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.5, 6)
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        write_trial(trial, {"late": 1})
    assert study.trials[0].user_attrs == expected
