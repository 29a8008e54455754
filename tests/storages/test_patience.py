"""A database that goes away and comes back; one that does not."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from server import Server

from optuna_kd.storages import StorageError, claim_trial, create_storage
from optuna_kd.storages.transient import is_passing, persist

pytestmark = pytest.mark.usefixtures("quiet_optuna")


LOST = sqlalchemy.exc.OperationalError("tell", {}, sqlite3.OperationalError("database is locked"))


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that may be stopped."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_work_goes_on_when_the_server_is_back(own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study(storage=create_storage(own_server.create_database()))
    trial = claim_trial(study, 10)
    assert trial is not None
    own_server.stop()
    back = threading.Timer(4.0, own_server.start)
    back.start()
    with caplog.at_level(logging.WARNING):
        trial.suggest_float("x", 0, 1)  # waits
        trial.report(0.5, 1)
        study.tell(trial, 1.0)
    back.join()
    assert (study.trials[0].state, study.trials[0].intermediate_values) == (TrialState.COMPLETE, {1: 0.5})
    said = [record.getMessage() for record in caplog.records if record.name == "optuna_kd.storages.transient"]
    assert len(said) == 2  # that it is away, and that it is back
    assert "does not answer" in said[0]
    assert "answers again" in said[1]


def test_a_connection_that_is_cut_while_trials_are_read(server: Server) -> None:
    """Optuna reads them in another way on the same transaction then, and what that raises names no server."""
    import psycopg

    storage = create_storage(server.create_database())
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    cuts = 0

    def cut(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        nonlocal cuts
        if "FROM trial_intermediate_values" in statement and not cuts:
            cuts += 1
            cursor.execute("SELECT pg_backend_pid()")
            ((process,),) = cursor.fetchall()
            with psycopg.connect(storage.engine.url.set(drivername="postgresql").render_as_string(False)) as other:  # type: ignore[attr-defined]
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [process])

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", cut)  # type: ignore[attr-defined]
    assert (
        len(optuna.load_study(study_name=study.study_name, storage=storage).get_trials(states=[TrialState.COMPLETE]))
        == 3
    )
    assert cuts == 1


def test_patience_ends(own_server: Server) -> None:
    storage = create_storage(own_server.create_database())
    storage.patience = 1.0  # type: ignore[attr-defined]
    study = optuna.create_study(storage=storage)
    own_server.stop()
    started = time.monotonic()
    with pytest.raises(StorageInternalError):
        claim_trial(study, 10)
    assert time.monotonic() - started < 15


def test_a_trial_told_twice_because_the_answer_was_lost(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends a trial, and the connection breaks before it can say so."""
    storage = create_storage(database)
    study = optuna.create_study(storage=storage)
    trial = claim_trial(study, 1)
    assert trial is not None
    original = optuna.storages.RDBStorage.set_trial_state_values
    lost = [True]

    def loses_its_answer(self, trial_id, state, values=None):  # type: ignore[no-untyped-def]
        told = original(self, trial_id, state, values)
        if lost:
            lost.clear()
            raise StorageInternalError from LOST
        return told

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", loses_its_answer)
    study.tell(trial, 0.5)
    assert not lost
    assert study.trials[0].value == 0.5
    with pytest.raises(UpdateFinishedTrialError):  # a second one is still refused
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])


def test_one_that_was_ended_otherwise_meanwhile_stays_so(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = create_storage(database)
    study = optuna.create_study(storage=storage)
    trial = claim_trial(study, 1)
    assert trial is not None
    original = optuna.storages.RDBStorage.set_trial_state_values
    first = [True]

    def is_beaten(self, trial_id, state, values=None):  # type: ignore[no-untyped-def]
        if first:
            first.clear()
            original(self, trial_id, TrialState.FAIL)
            raise StorageInternalError from LOST
        return original(self, trial_id, state, values)

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", is_beaten)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])


def test_what_passes_and_what_stays() -> None:
    def wrapped(origin: Exception, **options: bool) -> Exception:
        return sqlalchemy.exc.OperationalError("statement", {}, origin, **options)

    class Coded(Exception):
        def __init__(self, state: str) -> None:
            super().__init__("message")
            self.sqlstate = state

    for passing in ("57P01", "57P03", "08006", "25P03", "40001", "40P01", "53300", "55P03"):
        assert is_passing(wrapped(Coded(passing))), passing
    for staying in ("42P01", "25P02", "28P01", "3D000", "22001"):
        assert not is_passing(wrapped(Coded(staying))), staying
    assert is_passing(wrapped(sqlite3.OperationalError("database is locked")))
    assert is_passing(sqlite3.OperationalError("database table is locked"))
    assert is_passing(wrapped(Exception(2006, "MySQL server has gone away")))
    assert not is_passing(wrapped(Exception(1045, "Access denied")))
    for staying_message in ("database or disk is full", "attempt to write a readonly database", "disk I/O error"):
        assert not is_passing(wrapped(sqlite3.OperationalError(staying_message)))
    assert not is_passing(ValueError("database is locked"))
    assert is_passing(wrapped(Coded("42P01"), connection_invalidated=True))
    internal = StorageInternalError("during the commit")
    internal.__cause__ = wrapped(sqlite3.OperationalError("database is locked"))
    assert is_passing(internal)


def test_persist_gives_what_it_got_and_raises_what_stays() -> None:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) < 4:
            raise sqlite3.OperationalError("database is locked")
        return "done"

    retries: list[int] = []
    assert persist(work, patience=5, name="kd", on_retry=lambda: retries.append(1)) == "done"
    assert (len(calls), len(retries)) == (4, 3)
    calls.clear()
    with pytest.raises(sqlite3.OperationalError):
        persist(work, patience=0.0, name="kd")
    assert len(calls) == 1
    with pytest.raises(ZeroDivisionError):
        persist(lambda: 1 // 0, patience=5, name="kd")


def test_a_heartbeat_that_is_missed_does_no_harm(own_server: Server) -> None:
    study = optuna.create_study(storage=create_storage(own_server.create_database()))
    trial = claim_trial(study, 1)
    assert trial is not None
    own_server.stop()
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    own_server.start()
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    study.tell(trial, 1.0)


def test_a_wrong_address_is_said_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match="refused"):
        create_storage("postgresql+psycopg://kd:secret@127.0.0.1:1/kd")
    assert time.monotonic() - started < 5


def test_a_full_disk_is_an_error_and_the_study_stays_readable(tmp_path: Path) -> None:
    """SQLite's own limit of pages stands for the disk."""
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    storage = create_storage(url)
    study = optuna.create_study(study_name="full", storage=storage)
    study.enqueue_trial({"x": 1.0})
    with storage.engine.connect() as connection:  # type: ignore[attr-defined]
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        storage.engine.dispose = lambda **_: None  # type: ignore[attr-defined]
    trial = claim_trial(study, 5)
    assert trial is not None

    def fill() -> None:
        for number in range(1000):
            trial.set_user_attr(f"note {number}", "x" * 2000)

    with pytest.raises(StorageInternalError):
        fill()
    again = optuna.load_study(study_name="full", storage=create_storage(url))
    assert len(again.trials) == 1
    again.tell(0, 1.0)
    assert again.best_value == 1.0
