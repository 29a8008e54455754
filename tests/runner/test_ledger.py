"""Ledgers: companion studies that keep results by key."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optuna_kd.runner.ledger import KEY, SEED_SPACE, Ledger
from optuna_kd.storages import create_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def test_what_is_put_can_be_got() -> None:
    ledger = Ledger(None, "s/controls", metric="reward")
    assert ledger.get("kl@4*1") is None
    ledger.put("kl@4*1", 0.75, {"reward": 0.75, "gaps": {"2": 0.5}})
    assert ledger.get("kl@4*1") == {"reward": 0.75, "gaps": {"2": 0.5}, KEY: "kl@4*1"}
    assert ledger.get("another") is None


def test_the_first_result_of_a_key_stays() -> None:
    ledger = Ledger(None, "s", metric="reward")
    ledger.put("a", 0.1, {"reward": 0.1})
    ledger.put("a", 0.9, {"reward": 0.9})
    assert (ledger.get("a") or {})["reward"] == 0.1
    again = Ledger(ledger.study._storage, "s", metric="reward")
    assert (again.get("a") or {})["reward"] == 0.1


def test_two_ledgers_of_one_study_see_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    one, two = (Ledger(create_storage(url), "s/full", metric="accuracy") for _ in range(2))
    assert two.get("a") is None
    one.put("a", 0.5, {"seed": 0})
    assert (two.get("a") or {})["seed"] == 0
    two.put("b", 0.6, {"seed": 1})
    assert (one.get("b") or {})["seed"] == 1
    assert (Ledger(create_storage(url), "s/full", metric="accuracy").get("b") or {})["seed"] == 1


def test_trials_that_others_added_do_no_harm() -> None:
    ledger = Ledger(None, "s", metric="reward")
    ledger.study.add_trial(optuna.trial.create_trial(value=0.0))
    ledger.study.ask()
    assert ledger.get("a") is None
    ledger.put("a", 0.5, {})
    assert ledger.get("a") == {KEY: "a"}


def test_a_ledger_is_a_study_that_the_dashboard_can_show(tmp_path: Path) -> None:
    storage = create_storage(f"sqlite:///{tmp_path / 'kd.db'}")
    ledger = Ledger(storage, "s/full", metric="accuracy")
    for seed, value in enumerate((0.5, 0.7, 0.6)):
        ledger.put(f"x/{seed}", value, {"seconds": 1.0}, params={"seed": seed}, distributions=SEED_SPACE)
    study = optuna.load_study(study_name="s/full", storage=storage)
    assert study.metric_names == ["accuracy"]
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [(trial.state, trial.value, trial.params) for trial in study.trials] == [
        (TrialState.COMPLETE, 0.5, {"seed": 0}),
        (TrialState.COMPLETE, 0.7, {"seed": 1}),
        (TrialState.COMPLETE, 0.6, {"seed": 2}),
    ]
    assert study.best_trial.user_attrs[KEY] == "x/1"
    assert set(optuna.importance.get_param_importances(study)) == {"seed"}
