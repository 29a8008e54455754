"""Trials are read as Optuna reads them, and written as Optuna writes them."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_kd.storages import claim_trial, create_storage
from optuna_kd.storages.places import write_trial
from optuna_kd.storages.urls import backend_of

pytestmark = pytest.mark.usefixtures("quiet_optuna")


UNORDERED = {"_user_attrs", "_system_attrs", "intermediate_values"}
ORDERED = sorted(create_trial(value=0.0).__dict__.keys() - UNORDERED)


@pytest.fixture
def study(database: str) -> optuna.Study:
    """A study of trials of every kind."""
    study = optuna.create_study(storage=create_storage(database), directions=["minimize", "maximize"])
    for number, value in enumerate([0.1, 1 / 3, -math.inf, math.inf, 5e-324, -1.7e308]):
        study.add_trial(
            create_trial(
                values=[value, float(number)],
                params={
                    "x": value if math.isfinite(value) else 0.0,
                    "n": number,
                    "option": ("a", None, 1.5)[number % 3],
                },
                distributions={
                    "x": FloatDistribution(-1.8e307 * 9.9, 1.0),
                    "n": IntDistribution(0, 9),
                    "option": CategoricalDistribution(["a", None, 1.5]),
                },
                user_attrs={"name": 'é"\\', "list": [1, None, {"a": 2}]},
                system_attrs={"system": number},
                intermediate_values={10: math.nan, 2: value, 30: -math.inf, 1: 0.25},
            )
        )
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: math.inf}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.enqueue_trial({"x": 0.5})
    trial = claim_trial(study, 100)
    assert trial is not None
    trial.suggest_float("y", 0, 1)
    study.enqueue_trial({"x": 0.75})
    return study


def shown(trial: FrozenTrial) -> str:
    """Everything; two that are not a number are the same, and only parameters have an order."""
    unordered = (trial.user_attrs, trial.system_attrs, trial.intermediate_values)
    return repr([trial.__dict__[name] for name in ORDERED] + [sorted(one.items()) for one in unordered])


def test_as_optuna_reads_them(study: optuna.Study, database: str) -> None:
    backend: Any = backend_of(study._storage)
    optunas = RDBStorage(database)
    expected = optunas.get_all_trials(study._study_id)
    assert len(expected) == 10
    assert [*map(shown, backend.get_all_trials(study._study_id))] == [*map(shown, expected)]
    assert [*map(shown, study.trials)] == [*map(shown, expected)]
    for trial in expected:
        assert shown(backend.get_trial(trial._trial_id)) == shown(trial)
    ids = [trial._trial_id for trial in expected]
    for states in (None, (TrialState.RUNNING,), (TrialState.COMPLETE, TrialState.FAIL)):
        for included, after in ((set(), -1), ({ids[0], ids[8]}, ids[5]), (set(ids), 10**6), ({ids[9]}, -1)):
            asked = (study._study_id, states, included, after)
            assert [*map(shown, backend._get_trials(*asked))] == [*map(shown, optunas._get_trials(*asked))]


def test_in_pieces(study: optuna.Study, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [*map(shown, create_storage(database).get_all_trials(study._study_id))]
    monkeypatch.setattr("optuna_kd.storages.rows.TRIALS", 3)
    assert [*map(shown, create_storage(database).get_all_trials(study._study_id))] == whole


def test_what_is_not_there(database: str) -> None:
    storage = create_storage(database)
    with pytest.raises(KeyError):
        storage.get_trial(12345)
    with pytest.raises(KeyError):
        storage.get_all_trials(12345)
    assert optuna.create_study(storage=storage).trials == []


def test_a_report_replaces_itself(database: str) -> None:
    study = optuna.create_study(storage=create_storage(database))
    trial = claim_trial(study, 1)
    assert trial is not None
    for value in (0.5, math.nan, math.inf, 0.25):
        write_trial(trial, {"value": repr(value)}, {3: value, 1: -value})
        (stored,) = RDBStorage(database).get_all_trials(study._study_id)
        assert repr(stored.intermediate_values) in (repr({3: value, 1: -value}), repr({1: -value, 3: value}))
        assert stored.user_attrs == {"value": repr(value)}


def test_statements_of_a_look(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for all trials, however many: one by one they are what a pruner waits for."""
    import sqlalchemy

    backend: Any = backend_of(study._storage)
    said: list[str] = []
    sqlalchemy.event.listen(
        backend.engine, "before_cursor_execute", lambda _, __, statement, *___: said.append(statement)
    )
    backend.get_all_trials(study._study_id)
    assert len(said) == 2
