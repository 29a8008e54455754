"""Many attributes of a study at once, on every kind of storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from optuna_kd.storages import create_storage, write_study
from optuna_kd.storages.urls import backend_of


def check(url: str | None) -> None:
    storage = create_storage(url)
    study = optuna.create_study(storage=storage, study_name="kd")
    other = optuna.create_study(storage=storage, study_name="other")
    first = {f"key {n}": n for n in range(250)}
    write_study(study, first)
    write_study(study, {"key 3": {"a": [1, None]}, "new": "x" * 2045})
    write_study(study, {})
    found = study._storage.get_study_system_attrs(study._study_id)
    assert found == {**first, "key 3": {"a": [1, None]}, "new": "x" * 2045}
    assert other._storage.get_study_system_attrs(other._study_id) == {}


def test_in_a_database(database: str) -> None:
    check(database)


def test_elsewhere(tmp_path: Path) -> None:
    check(None)
    check(f"journal:///{tmp_path / 'kd.log'}")


def test_without_a_statement_that_inserts_or_updates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_kd.storages.upserts.INSERTS", {})
    check(f"sqlite:///{tmp_path / 'kd.db'}")


def test_all_or_nothing(database: str) -> None:
    study = optuna.create_study(storage=create_storage(database))
    write_study(study, {"a": 1})

    def cut(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO study_system_attributes"):
            raise RuntimeError("cut off")

    sqlalchemy.event.listen(backend_of(study._storage).engine, "after_cursor_execute", cut)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="cut off"):
        write_study(study, {"a": 2, "b": 3})
    assert study._storage.get_study_system_attrs(study._study_id) == {"a": 1}
