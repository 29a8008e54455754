"""Nobody waits for long, or without a word, for a PostgreSQL server or another worker that has stopped."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import sqlalchemy
from server import Server
from sqlalchemy.engine import make_url

from optuna_kd.storages import (
    StorageError,
    claim_trial,
    create_storage,
    creating,
    creation_lock,
    limits,
    open_to_read,
    relational,
    retire_lost_trials,
)
from optuna_kd.storages.counting import Overview

pytestmark = pytest.mark.usefixtures("quiet_optuna")

HOLDS_THE_STUDY = """
import sys, time, optuna
from optuna_kd.storages import claim_trial, create_storage
from optuna_kd.storages import relational
def hold(session, study_id):
    print("held", flush=True)
    time.sleep(600)
relational.look_over = hold
claim_trial(optuna.load_study(study_name="s", storage=create_storage(sys.argv[1])), 5)
"""


def limited(url: str, **seconds: str) -> str:
    """Give a URL with session settings of the user."""
    options = " ".join(f"-c {name}={value}" for name, value in seconds.items())
    return make_url(url).update_query_dict({"options": options}).render_as_string(hide_password=False)


def settings(storage: Any) -> dict[str, str]:
    """Give what applies to a connection of a storage."""
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "application_name")
    with storage.engine.connect() as connection:
        return {name: connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names}


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that a test has stopped; they go on afterwards."""
    processes: list[int] = []
    yield processes
    for process in processes:
        os.kill(process, signal.SIGCONT)


def test_every_connection_has_limits(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {**limits.SESSION, "idle_in_transaction_session_timeout": "1min", "TimeZone": "UTC"}
    monkeypatch.setenv("PGTZ", "America/New_York")
    storage = create_storage(postgres)
    assert settings(storage) == {**wanted, "application_name": ""}
    with storage.engine.connect():  # type: ignore[attr-defined]
        assert settings(storage) == {**wanted, "application_name": ""}  # a second connection
    optuna.create_study(storage=storage)
    assert settings(open_to_read(postgres)) == {**wanted, "application_name": ""}


def test_what_the_user_has_set_stays(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(create_storage(limited(postgres, lock_timeout="0", application_name="kd", TimeZone="Asia/Tokyo")))
    expected = {"lock_timeout": "0", "idle_in_transaction_session_timeout": "1min", "application_name": "kd"}
    assert found == {**expected, "TimeZone": "UTC"}  # but heartbeats have to be comparable
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=7s -c application_name=mine")
    assert {**expected, "lock_timeout": "7s", "application_name": "mine", "TimeZone": "UTC"} == settings(
        create_storage(postgres)
    )
    monkeypatch.delenv("PGOPTIONS")
    with create_storage(postgres).engine.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql(f"ALTER DATABASE {make_url(postgres).database} SET lock_timeout = '9s'")
        connection.commit()
    assert settings(create_storage(postgres))["lock_timeout"] == "9s"


def test_a_driver_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(url: str) -> dict[str, Any]:
        return limits.connect_arguments(make_url(url))

    everything = {**limits.NETWORK, "connect_timeout": limits.CONNECT_SECONDS}
    assert told("postgresql+psycopg://host/kd") == told("postgresql+psycopg2://host/kd") == everything
    assert told("postgresql+pg8000://host/kd") == told("mysql+pymysql://host/kd") == {}
    mine = told("postgresql+psycopg://host/kd?connect_timeout=3&keepalives_idle=5&options=-c%20x.y%3D1")
    assert set(everything) - set(mine) == {"connect_timeout", "keepalives_idle"}
    assert "options" not in mine
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert told("postgresql://host/kd") == limits.NETWORK


def test_a_worker_that_stopped_while_it_starts_a_trial(
    postgres: str, stopped: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """It stands for one whose machine vanished; the others say that they wait, and then go on."""
    study = optuna.create_study(study_name="s", storage=create_storage(limited(postgres, lock_timeout="500ms")))
    url = limited(postgres, idle_in_transaction_session_timeout="3s")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_STUDY, url], stdout=subprocess.PIPE, text=True
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        stopped.append(holder.pid)
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            assert claim_trial(study, 5) is not None
        assert time.monotonic() - began < 20
        holder.kill()
    stopped.clear()
    said = [record.getMessage() for record in caplog.records if record.name == "optuna_kd.storages.transient"]
    assert "lock timeout" in said[0]
    assert "answers again" in said[1]


def test_one_that_slept_within_a_transaction_goes_on(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=create_storage(limited(postgres, idle_in_transaction_session_timeout="300ms")))
    look_over, slept = relational.look_over, []

    def sleep_once(session: Any, study_id: int) -> Overview:
        if not slept:
            slept.append(1)
            time.sleep(1.0)
        return look_over(session, study_id)

    monkeypatch.setattr(relational, "look_over", sleep_once)
    assert claim_trial(study, 5) is not None
    assert len(study.trials) == 1


def test_a_server_that_hangs_is_not_waited_for_while_it_is_opened(
    stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECT_SECONDS", 2)
    server = Server()
    try:
        server.start()
        url = server.create_database()
        postmaster = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)
        stopped.append(postmaster)
        began = time.monotonic()
        with pytest.raises(StorageError, match="timeout"):
            create_storage(url, patience=1)
        assert time.monotonic() - began < 10
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        stopped.clear()
        server.remove()


def test_who_creates_has_so_much_time(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "TRY_SECONDS", 1)
    monkeypatch.setattr(creating, "LOCK_SECONDS", 4)
    storage = create_storage(postgres)
    with creation_lock(make_url(limited(postgres, idle_in_transaction_session_timeout="0"))):
        monkeypatch.setattr(creating, "LOCK_SECONDS", 1)
        with pytest.raises(StorageError, match="another process has been creating there"), creation_lock(storage):
            pass
        monkeypatch.setattr(creating, "LOCK_SECONDS", 10)
        with creation_lock(storage):  # the first has vanished, for all that the server knows
            pass
    with creation_lock(storage):
        pass


@pytest.mark.parametrize("answer", [0, None])
def test_the_answer_of_mysql_is_heard(monkeypatch: pytest.MonkeyPatch, answer: int | None) -> None:
    """A database of another kind stands for it."""
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not None
        connection.connection.dbapi_connection.create_function("GET_LOCK", 2, lambda *_: answer)
        with pytest.raises(StorageError, match="another process has been creating there"):
            creating._lock_mysql(connection, "kd")


def test_session_time_zones_retire_nobody(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats are kept without a zone."""
    study = optuna.create_study(study_name="s", storage=create_storage(postgres))
    # Of a process that cannot be seen from here.
    monkeypatch.setattr("optuna_kd.storages.places.this_process", lambda: "elsewhere/1/1")
    for zone, other in (("UTC", "America/New_York"), ("America/New_York", "UTC"), ("Asia/Tokyo", "America/New_York")):
        monkeypatch.setenv("PGTZ", zone)
        here = optuna.load_study(study_name="s", storage=create_storage(postgres))
        trial = claim_trial(here, None)
        assert trial is not None
        monkeypatch.setenv("PGTZ", other)
        there = optuna.load_study(study_name="s", storage=create_storage(postgres))
        assert retire_lost_trials(there) == 0, "by the heartbeat it was claimed with"
        backend: Any = here._storage
        for _ in range(2):  # the first comes with the trial
            backend.record_heartbeat(trial._trial_id)
        assert retire_lost_trials(there) == retire_lost_trials(study) == 0
        here.tell(trial, 1.0)
