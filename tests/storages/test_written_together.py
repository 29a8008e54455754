"""What a trial is given at once is written at once; and which commits of SQLite wait for the disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from optuna_kd.storages import claim_trial, create_storage, together, write_trial
from optuna_kd.storages.urls import backend_of

pytestmark = pytest.mark.usefixtures("quiet_optuna")

NORMAL, FULL = 1, 2  # as SQLite counts


@pytest.fixture
def study(database: str) -> optuna.Study:
    return optuna.create_study(study_name="kd", storage=create_storage(database))


def start(study: optuna.Study) -> optuna.Trial:
    trial = claim_trial(study, None)
    assert trial is not None
    return trial


def seen_elsewhere(database: str, number: int = -1) -> optuna.trial.FrozenTrial:
    return optuna.load_study(study_name="kd", storage=create_storage(database)).trials[number]


def know(study: optuna.Study, *names: str) -> None:
    """Let a process know the distributions of parameters: new ones are written by themselves."""
    trial = start(study)
    for name in names:
        trial.suggest_float(name, 0, 1)
    study.tell(trial, 0.0)


def test_all_of_it_is_there_at_the_end_and_nothing_before(study: optuna.Study, database: str) -> None:
    know(study, "x", "y")
    trial = start(study)
    with together(trial):
        x, y = (trial.suggest_float(name, 0, 1) for name in "xy")
        write_trial(trial, {"a": [1], "b": "text"})
        write_trial(trial, {"a": [2]})
        assert seen_elsewhere(database).params == {}
        assert trial.params == {"x": x, "y": y}
    there = seen_elsewhere(database)
    assert (there.params, there.user_attrs) == ({"x": x, "y": y}, {"a": [2], "b": "text"})
    assert there.distributions == trial.distributions


def test_one_transaction_writes_it(study: optuna.Study) -> None:
    names = "abcdefgh"
    know(study, *names)
    trial = start(study)
    written: list[str] = []
    engine = backend_of(study._storage).engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *given: written.append(given[2].split()[0]))
    with together(trial):
        for name in names:
            trial.suggest_float(name, 0, 1)
        write_trial(trial, {"a": 1})
        assert "INSERT" not in written
    assert written.count("INSERT") == 2  # parameters and attributes


def test_parameters_stay_in_the_order_of_their_suggestion(study: optuna.Study, database: str) -> None:
    know(study, "c", "a")
    trial = start(study)
    with together(trial):
        for name in ("c", "new", "a"):
            trial.suggest_float(name, 0, 1)
    assert list(seen_elsewhere(database).params) == ["c", "new", "a"]


def test_what_was_suggested_before_an_exception_is_kept(study: optuna.Study, database: str) -> None:
    know(study, "x")
    trial = start(study)
    with pytest.raises(ZeroDivisionError), together(trial):  # noqa: PT012 - what happens inside is the case
        x = trial.suggest_float("x", 0, 1)
        raise ZeroDivisionError
    assert seen_elsewhere(database).params == {"x": x}
    trial.suggest_float("z", 0, 1)  # and afterwards each is written by itself again
    assert list(seen_elsewhere(database).params) == ["x", "z"]


def test_other_distributions_are_refused_where_they_are_suggested(study: optuna.Study) -> None:
    know(study, "x")
    trial = start(study)
    with together(trial), pytest.raises(ValueError, match="distribution"):
        trial.suggest_int("x", 0, 1)


def test_a_trial_that_has_ended_is_not_written(study: optuna.Study) -> None:
    know(study, "x")
    trial = start(study)
    with pytest.raises(UpdateFinishedTrialError), together(trial):  # noqa: PT012 - likewise
        trial.suggest_float("x", 0, 1)
        study.tell(trial.number, state=TrialState.FAIL)


@pytest.mark.parametrize("url", [None, "journal"])
def test_other_storages_write_as_they_do(url: str | None, tmp_path: Path) -> None:
    study = optuna.create_study(storage=create_storage(url and f"journal:///{tmp_path / 'kd.log'}"))
    trial = start(study)
    with together(trial):
        trial.suggest_float("x", 0, 1)
        write_trial(trial, {"a": 1})
        (there,) = study.get_trials()
        assert (list(there.params), there.user_attrs) == (["x"], {"a": 1})


@pytest.fixture
def levels(tmp_path: Path) -> tuple[optuna.Study, list[int]]:
    """A study in SQLite, and how thoroughly each of its commits was written."""
    study = optuna.create_study(storage=create_storage(f"sqlite:///{tmp_path / 'kd.db'}"))
    found: list[int] = []
    engine = backend_of(study._storage).engine
    commit = engine.dialect.do_commit

    def watched(connection: Any) -> None:
        wrote = connection.in_transaction
        commit(connection)
        if wrote:
            found.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    engine.dialect.do_commit = watched
    return study, found


def test_only_results_wait_for_the_disk(levels: tuple[optuna.Study, list[int]]) -> None:
    study, found = levels
    trial = start(study)
    found.clear()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("a", 1)
    write_trial(trial, {"b": 1})
    study._storage.record_heartbeat(trial._trial_id)
    assert set(found) == {NORMAL}
    for write in (
        lambda: trial.report(0.5, 1),
        lambda: write_trial(trial, {"c": 1}, {2: 0.5}),
        lambda: study.tell(trial, 0.5),
        lambda: study.set_user_attr("a", 1),
    ):
        found.clear()
        write()
        assert FULL in found


def test_a_server_is_asked_before_a_connection_that_has_rested_is_used(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study(storage=create_storage(postgres))
    engine = backend_of(study._storage).engine
    pings: list[Any] = []
    ping = engine.dialect.do_ping
    monkeypatch.setattr(engine.dialect, "do_ping", lambda connection: (pings.append(connection), ping(connection))[1])
    assert study.get_trials() == []
    assert pings == []  # it has just been used
    monkeypatch.setattr("optuna_kd.storages.connections.FRESH", 0.0)
    time.sleep(0.01)
    assert study.get_trials() == []
    assert len(pings) == 1
    pings[0].close()  # the server has gone away and come back
    assert study.get_trials() == []
