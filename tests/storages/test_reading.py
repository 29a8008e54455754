"""Opening a storage to look at it: nothing is created, and one that cannot be written is enough."""

from __future__ import annotations

import ctypes
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage

from optuna_kd.storages import StorageError, create_storage, open_to_read

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def make_study(url: str) -> None:
    storage = create_storage(url)
    study = optuna.create_study(storage=storage, study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    if isinstance(storage, RDBStorage):  # close it, so that SQLite puts all in one file
        storage.remove_session()
        storage.engine.dispose()


def trials_of(url: str) -> int:
    return len(optuna.load_study(study_name="s", storage=open_to_read(url)).trials)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", ["sqlite:///{}/a b%20ü#.db", "journal:///{}/kd.log"])
def test_what_is_there_is_read(tmp_path: Path, name: str) -> None:
    url = name.format(tmp_path)
    make_study(url)
    assert trials_of(url) == 2


def test_postgresql_is_read(postgres: str) -> None:
    make_study(postgres)
    assert trials_of(postgres) == 2


def test_an_empty_database_stays_empty(postgres: str, tmp_path: Path) -> None:
    file = tmp_path / "empty.db"
    sqlite3.connect(file).close()
    file.touch()
    for url in (postgres, f"sqlite:///{file}"):
        for _ in range(2):  # the first one has made no tables for the second one
            with pytest.raises(StorageError, match=r"Cannot read the storage .*: it holds no studies"):
                open_to_read(url)


def test_a_storage_that_is_opened_already_is_taken_as_it_is() -> None:
    storage = optuna.storages.InMemoryStorage()
    assert open_to_read(storage) is storage


def test_nothing_is_written_to_what_is_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    make_study(url)
    before = (tmp_path / "kd.db").read_bytes()
    storage = open_to_read(url)
    with pytest.raises(Exception, match=r"readonly|commit"):
        optuna.create_study(storage=storage, study_name="other")
    assert (tmp_path / "kd.db").read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///nowhere.db", "there is no file 'nowhere.db'"),
        ("journal:///nowhere.log", "there is no file 'nowhere.log'"),
        ("sqlite:///:memory:", "is in the memory of one process"),
        ("sqlite:///notes.txt", "Cannot read the storage sqlite:///notes.txt: file is not a database"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/x", r"me:\*\*\*@.*refused"),
        ("nonsense", "Cannot read the storage 'nonsense'"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no database, but long enough to be looked at")
    with pytest.raises(StorageError, match=message) as raised:
        open_to_read(url)
    assert len(str(raised.value).splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def give_up_power() -> None:
    """Let root write only where others may: drop CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for what is started next."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_a_read_only_file_in_a_read_only_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    make_study(url)
    (tmp_path / "kd.db.lock").unlink(missing_ok=True)
    (tmp_path / "kd.db").chmod(0o444)
    tmp_path.chmod(0o555)
    code = (
        "import optuna, sqlite3, sys\n"
        "from optuna_kd.storages import open_to_read\n"
        "try: open(sys.argv[1], 'a')\n"
        "except PermissionError: print('read-only')\n"
        "print(len(optuna.load_study(study_name='s', storage=open_to_read(sys.argv[2])).trials))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x"), url],
            capture_output=True, text=True, timeout=120, preexec_fn=give_up_power,
        )  # fmt: skip
    finally:
        tmp_path.chmod(0o755)
    assert done.stdout.split() == ["read-only", "2"], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kd.db"]
