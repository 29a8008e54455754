"""SQLite files that were cut off: a line that says so, and never a new study in silence."""

from __future__ import annotations

import logging
from pathlib import Path

import optuna
import pytest

from optuna_kd.storages import StorageError, create_storage
from optuna_kd.study import create_study, optimize

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with a study of three trials, in one file."""
    file = tmp_path_factory.mktemp("whole") / "kd.db"
    study = create_study(storage=f"sqlite:///{file}", study_name="s", seed=0, sampler="random")
    optimize(study, lambda trial: trial.suggest_float("x", 0, 1), total_trials=3)
    with study._storage._backend.engine.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return file.read_bytes()


@pytest.mark.parametrize("length", [2, 50, 99, 100, 511, 4095, 4096, 4097, 8192, 40960, -8192, -4096, -4095, -100, -1])
def test_a_database_that_was_cut_off_is_refused(whole: bytes, tmp_path: Path, length: int) -> None:
    file = tmp_path / "kd.db"
    file.write_bytes(whole[:length])
    with pytest.raises(StorageError, match=r"kd\.db: .*(malformed|not a database)") as caught:
        create_study(storage=f"sqlite:///{file}", study_name="s", seed=0, load_if_exists=True)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == whole[:length]


def test_the_whole_one_is_not(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "kd.db").write_bytes(whole)
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", study_name="s", seed=0, load_if_exists=True)
    assert len(study.trials) == 3


@pytest.mark.parametrize("length", [0, 1])
def test_what_sqlite_takes_for_a_new_file_is_said(
    whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture, length: int
) -> None:
    file = tmp_path / "kd.db"
    file.write_bytes(whole[:length])
    (tmp_path / "kd.db.lock").touch()  # stays where a database was made
    with caplog.at_level(logging.WARNING):
        study = optuna.create_study(storage=create_storage(f"sqlite:///{file}"))
    assert study.trials == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} is empty: a new database begins in it. If it held studies before, it was cut off; then restore it."
    ]


def test_an_empty_file_where_nothing_was_is_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "kd.db").touch()
    with caplog.at_level(logging.WARNING):
        create_storage(f"sqlite:///{tmp_path / 'kd.db'}")
    assert caplog.records == []
