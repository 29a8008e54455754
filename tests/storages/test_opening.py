"""Storages: URLs become storages that survive, or one clear line."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_kd.storages import StorageError, create_storage, open_to_read, retire_trial, show_storage
from optuna_kd.study import create_study, load_study, optimize, space_of

pytestmark = [
    pytest.mark.usefixtures("quiet_optuna"),
    # Here trials are asked for without Study.optimize, to leave them running.
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),
]


def objective(trial: optuna.Trial) -> float:
    return len(str(space_of(trial.study).suggest(trial))) % 13


def test_none_is_memory_and_a_storage_stays_itself() -> None:
    assert isinstance(create_storage(None), InMemoryStorage)
    storage = InMemoryStorage()
    assert create_storage(storage) is storage


def test_sqlite_files_do_not_block_readers(tmp_path: Path) -> None:
    storage = create_storage(f"sqlite:///{tmp_path / 'kd.db'}")
    optuna.create_study(storage=storage)
    with sqlite3.connect(tmp_path / "kd.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_sqlite_files_wait_for_a_writer(tmp_path: Path) -> None:
    """Another process may hold the file for longer than SQLite's five seconds; a shorter hold shows the wait."""
    storage = create_storage(f"sqlite:///{tmp_path / 'kd.db'}")
    study = optuna.create_study(storage=storage)
    connection = sqlite3.connect(tmp_path / "kd.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, lambda: connection.execute("COMMIT"))
    release.start()
    started = time.monotonic()
    study.ask()
    assert time.monotonic() - started > 0.3
    release.join()
    connection.close()


def test_heartbeats_find_killed_processes(tmp_path: Path) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0)
    study.optimize(objective, n_trials=1)
    with sqlite3.connect(tmp_path / "kd.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM trial_heartbeats").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://"])
def test_a_database_in_memory_serves_several_threads(url: str) -> None:
    study = create_study(storage=url, seed=0, sampler="random")
    study.optimize(objective, n_trials=40, n_jobs=4)
    assert [trial.number for trial in study.trials] == list(range(40))
    assert all(len(trial.params) == 8 for trial in study.trials)
    # A database of its own for each study, as with SQLite's.
    assert create_study(storage=url, seed=0).trials == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kd.db", "Cannot read the storage 'kd.db': it is a database URL like sqlite:///optuna_kd.db"),
        ("", "Cannot read the storage ''"),
        ("sqlite:/kd.db", "Cannot read the storage"),
        ("postgresql//me:secret@host/kd", "Cannot read the storage"),
        ("postgresql//me:secret/or:secret@or@host/kd", r"Cannot read the storage 'postgresql//me:\*\*\*@host/kd'"),
        ("postgresql://me:secret@host:port/kd", "Cannot read the storage"),
        ("kd.db?token=secret&a=1", r"Cannot read the storage 'kd.db\?token=\*\*\*&a=1'"),
        (
            "postgresql+psycopg://me:s@secret@127.0.0.1:1/kd",
            r"'postgresql\+psycopg://\*\*\*@127.0.0.1:1/kd'.*write @ as %40",
        ),
        (
            "postgresql+psycopg://me:s@x/secret@127.0.0.1:1/kd",
            r"'postgresql\+psycopg://\*\*\*@127.0.0.1:1/kd'.*/ as %2F",
        ),
        ("mysql+pymysql://me:s@secret@host/kd?pwd=secret", r"'mysql\+pymysql://\*\*\*@host/kd\?pwd=\*\*\*'"),
        ("grpc://me:s@secret@host:1", r"'grpc://\*\*\*@host:1'"),
        ("nosuch://me:secret@host/kd", r"Cannot open the storage nosuch://me:\*\*\*@host/kd"),
        ("mysql+nosuchdriver://me:secret@host/kd", "Cannot open the storage mysql"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/kd", r"Cannot open the storage postgresql\+psycopg://me:\*\*\*@"),
        ("sqlite:////nonexistent-folder/kd.db", "there is no folder '/nonexistent-folder'. Create it first"),
    ],
)
def test_urls_that_cannot_be_opened_get_one_line_without_password(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        create_storage(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # no second traceback


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but someone's notes\n" * 50)
    with pytest.raises(StorageError, match=r"notes\.txt: .*not a database.* Choose a file"):
        create_storage(f"sqlite:///{tmp_path / 'notes.txt'}")
    assert (tmp_path / "notes.txt").read_text().startswith("not a database")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Cannot open the storage sqlite:///"):
        create_storage(f"sqlite:///{tmp_path}")


def test_a_missing_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        create_study(storage=f"sqlite:///{tmp_path / 'new' / 'kd.db'}")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_trial_is_closed_and_queued_with_its_parameters(tmp_path: Path) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0)
    recipe = space_of(study).suggest(study.ask())
    retire_trial(study, study.trials[0])
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    again = study.ask()
    assert again.number == 1
    assert space_of(study).suggest(again) == recipe
    # Interrupted once more, it still knows which trial it repeats.
    retire_trial(study, study.trials[1])
    assert study.trials[2].system_attrs["failed_trial"] == 0
    optimize(study, objective, total_trials=1)
    assert study.trials[2].state == TrialState.COMPLETE
    assert study.trials[2].params == study.trials[0].params


def test_a_trial_that_always_kills_its_process_is_given_up(tmp_path: Path) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0)
    study.ask()
    for _ in range(12):
        last = study.trials[-1]
        if last.state == TrialState.WAITING:
            study.ask()
        elif last.state == TrialState.FAIL:
            break
        retire_trial(study, study.trials[-1])
    assert len(study.trials) == 11
    assert all(trial.state == TrialState.FAIL for trial in study.trials)


def test_postgresql(postgres: str) -> None:
    study = create_study(storage=postgres, study_name="r56-r20", seed=3)
    optimize(study, objective, total_trials=3)
    trial = study.ask()
    trial.report(0.5, 1)
    retire_trial(study, study.trials[trial.number])

    again = create_study(storage=postgres, study_name="r56-r20", seed=3, load_if_exists=True)
    optimize(again, objective, total_trials=6)
    states = [trial.state for trial in load_study("r56-r20", storage=postgres).trials]
    assert states.count(TrialState.COMPLETE) == 6
    assert states.count(TrialState.FAIL) == 1

    memory = create_study(storage=None, seed=3)
    optimize(memory, objective, total_trials=3)
    assert [t.params for t in memory.trials] == [t.params for t in again.trials[:3]]

    with pytest.raises(StorageError, match="nosuchbase") as caught:
        create_storage(re.sub(r"/kd\d+\?", "/nosuchbase?", postgres))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///file:x.db?uri=true", "sqlite:///file:x.db", "sqlite:///x.db?uri=true"])
def test_uris_of_sqlite_are_refused_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for opened in (create_storage, open_to_read):
        with pytest.raises(StorageError, match=r"Write a plain path: sqlite:///x\.db\.$"):
            opened(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["password", "pwd", "PassWd", "token", "auth_token", "secret", "sslpassword", "apikey"]
)
def test_secrets_among_the_parameters_are_hidden(name: str) -> None:
    shown = show_storage(f"postgresql+psycopg://host/kd?{name}=hidden&sslmode=require")
    assert "hidden" not in shown
    assert "sslmode=require" in shown


def test_at_signs_elsewhere_are_taken(tmp_path: Path) -> None:
    (tmp_path / "ann@home").mkdir()
    for scheme in ("sqlite", "journal"):
        create_storage(f"{scheme}:///{tmp_path}/ann@home/kd.{scheme}")
    for url in ("postgresql://ann%40home:s%40t@host/kd", "postgresql://ann@home:x@host/kd"):
        assert show_storage(url).endswith(":***@host/kd")


def test_a_storage_is_shown_without_its_password(tmp_path: Path) -> None:
    assert show_storage("postgresql+psycopg://ann:secret@host/kd") == "postgresql+psycopg://ann:***@host/kd"
    assert show_storage(create_storage(None)) == "in memory"
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    assert show_storage(create_storage(url)) == url
    assert show_storage(JournalStorage(JournalFileBackend(str(tmp_path / "kd.log")))) == f"journal:///{tmp_path}/kd.log"
    assert (
        show_storage("postgresql+psycopg://host/kd?password=secret")
        == "postgresql+psycopg://host/kd?password=%2A%2A%2A"
    )
