"""Reporting several objectives: what is accepted, what lies in the storage, and what Optuna makes of it."""

from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FixedTrial, TrialState

from optuna_kd.pruners import ParetoHalvingPruner, reject, report, should_prune, values_at
from optuna_kd.pruners._compat import trial_id
from optuna_kd.pruners.reporting import RUNG_VALUES

pytestmark = pytest.mark.usefixtures("quiet_optuna")

NAN, INF = math.nan, math.inf


def new_study(count: int = 2, names: list[str] | None = None, **more: Any) -> optuna.Study:
    directions = ["minimize", "maximize", "minimize"][:count]
    study = optuna.create_study(directions=directions, **{"pruner": ParetoHalvingPruner(), **more})
    if names is not None:
        study.set_metric_names(names)
    return study


def stored_after(values: Any, study: optuna.Study | None = None, step: Any = 3) -> Any:
    """What a report leaves in the attribute of a fresh trial."""
    study = study or new_study()
    report(study.ask(), values, step)
    return study.trials[-1].user_attrs.get(RUNG_VALUES)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2],
        (1.0, 2),
        np.array([1, 2], dtype=np.float32),
        [np.float64(1), np.int64(2)],
        (value for value in (1, 2)),
        {"loss": 1, "gain": 2}.values(),
    ],
)
def test_values_in_the_order_of_the_directions(values: Any) -> None:
    assert stored_after(values) == {"3": [1.0, 2.0]}


def test_values_by_metric_name_in_any_order() -> None:
    study = new_study(names=["loss", "gain"])
    assert stored_after({"gain": 2, "loss": 1}, study) == {"3": [1.0, 2.0]}
    assert stored_after([1, 2], study) == {"3": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (0.5, r"expects 2 values, in the order of its directions \(minimize, maximize\); got 1: 0.5"),
        (np.array(0.5), "got 1"),
        ([0.5], r"got 1: \[0.5\]"),
        ([1, 2, 3], r"got 3: \[1, 2, 3\]"),
        ([], "got 0"),
        ({"loss": 1, "gain": 2}, r"no metric names.*\['loss', 'gain'\].*Call study.set_metric_names"),
    ],
)
def test_another_number_of_values(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report(new_study().ask(), values, 1)


@pytest.mark.parametrize("values", [{"loss": 1}, {"loss": 1, "gian": 2}, {"loss": 1, "gain": 2, "size": 3}])
def test_other_names_than_the_metrics(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"values are named \['loss'.*are \['loss', 'gain'\]; these are the names"):
        report(new_study(names=["loss", "gain"]).ask(), values, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("12", "numbers in the order of the study's directions; got '12'"),
        ({1, 2}, "in the order"),  # a set has none
        ([1, "2"], r"must be a number; got '2' \(str\)"),
        ([1, None], r"got None \(NoneType\)"),
        ([[1, 2], [3, 4]], r"got \[1, 2\] \(list\)"),
        (None, "got None"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_values_that_are_no_numbers(values: Any, message: str, count: int) -> None:
    with pytest.raises(TypeError, match=message):
        report(new_study(count).ask(), values, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_steps_are_whole_and_not_negative(count: int) -> None:
    study = new_study(count)
    with pytest.raises(TypeError, match=r"step must be an integer >= 0; got 1.5 \(float\)"):
        report(study.ask(), [1] * count, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got None \(NoneType\)"):
        report(study.ask(), [1] * count, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step must be an integer >= 0; got -1"):
        report(study.ask(), [1] * count, -1)
    trial = study.ask()
    report(trial, [1] * count, np.int64(4))
    assert list(study.trials[trial.number].intermediate_values) == [4]


@pytest.mark.parametrize("values", [0.5, [0.5], {"whatever": 0.5}, np.array(0.5)])
def test_one_objective_is_reported_to_optuna(values: Any) -> None:
    study = new_study(1)
    report(study.ask(), values, 3)
    assert study.trials[0].intermediate_values == {3: 0.5}
    assert study.trials[0].user_attrs == {}
    assert values_at(study.trials[0], 3, 1) == [0.5]


def test_one_objective_has_its_checks_too() -> None:
    with pytest.raises(ValueError, match="expects 1 values"):
        report(new_study(1).ask(), [1, 2], 1)
    with pytest.raises(ValueError, match=r"named \['gain'\].*\['loss'\]"):
        report(new_study(1, names=["loss"]).ask(), {"gain": 1}, 1)


def test_a_step_counts_once() -> None:
    study = new_study()
    trial = study.ask()
    report(trial, [1, 2], 3)
    with pytest.warns(UserWarning, match="ignored because step 3 is already reported") as caught:
        report(trial, [9, 9], 3)
    assert caught[0].filename == __file__
    assert study.trials[0].user_attrs[RUNG_VALUES] == {"3": [1.0, 2.0]}


def test_dashboards_draw_the_first_objective() -> None:
    study = new_study()
    trial = study.ask()
    for step, loss in ((3, 0.9), (12, 0.4), (6, 0.7)):  # steps may come in any order
        report(trial, [loss, 100], step)
    assert study.trials[0].intermediate_values == {3: 0.9, 6: 0.7, 12: 0.4}
    assert values_at(study.trials[0], 12, 2) == [0.4, 100.0]


def test_only_a_trial_that_is_to_stop_gets_a_mark_after_its_last_step() -> None:
    study = new_study(pruner=ParetoHalvingPruner(warmup_trials=1))
    good, bad = study.ask(), study.ask()
    for trial, value in ((good, 0.1), (bad, 0.9)):
        report(trial, [value, -value], 3)
    assert (should_prune(good), should_prune(bad)) == (False, True)
    assert should_prune(bad)  # the mark is no report
    assert study.trials[0].intermediate_values == {3: 0.1}
    assert study.trials[1].intermediate_values == pytest.approx({3: 0.9, 4: NAN}, nan_ok=True)
    report(bad, [0.2, 0.5], 4)  # it goes on all the same
    assert study.trials[1].intermediate_values == {3: 0.9, 4: 0.2}
    reject(good, "it diverged")
    assert math.isnan(study.trials[0].intermediate_values[4])


@pytest.mark.parametrize("how", ["pruned", "rejected"])
def test_the_default_sampler_goes_on_after_pruned_trials(how: str) -> None:
    """TPE asks for the one direction of a study if a pruned trial has a last intermediate value."""

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        for step in range(trial.number % 3):
            report(trial, [x, -x], step)
            if how == "pruned" and should_prune(trial):
                raise optuna.TrialPruned
        if how == "rejected" and trial.number % 2:
            raise reject(trial, "odd")
        return x, 1 - x

    study = new_study(pruner=ParetoHalvingPruner(warmup_trials=1))
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    study.optimize(objective, n_trials=30)
    assert len(study.get_trials(states=(TrialState.PRUNED,))) > 4


def test_what_lies_in_the_database_is_json_for_everybody(tmp_path: Path) -> None:
    study = new_study(storage=f"sqlite:///{tmp_path / 'kd.db'}")
    report(study.ask(), [NAN, INF], 1)
    with sqlite3.connect(tmp_path / "kd.db") as connection:
        ((text,),) = connection.execute("SELECT value_json FROM trial_user_attributes").fetchall()
    connection.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert json.loads(text, parse_constant=refuse) == {"1": ["NaN", "Infinity"]}


def test_values_are_read_where_they_were_reported_only() -> None:
    study = new_study()
    report(study.ask(), [1, 2], 3)
    (trial,) = study.trials
    assert values_at(trial, 3, 2) == [1.0, 2.0]
    assert values_at(trial, 4, 2) is None
    assert values_at(trial, 3, 3) is None  # of another number of objectives


def test_a_trial_that_runs_again_begins_anew() -> None:
    """Optuna copies the attributes of an interrupted trial, but not its intermediate values."""
    study = new_study()
    trial = study.ask()
    for step in (1, 2, 3):
        report(trial, [step, step], step)
    study.tell(trial, state=TrialState.FAIL)
    RetryHeartbeatStaleTrialCallback()(study, study.trials[0])

    again = study.ask()
    assert again.user_attrs[RUNG_VALUES].keys() == {"1", "2", "3"}
    assert values_at(study.trials[1], 3, 2) is None
    assert not should_prune(again)
    report(again, [7, 8], 1)
    assert study.trials[1].user_attrs[RUNG_VALUES] == {"1": [7.0, 8.0]}


@pytest.mark.parametrize("values", [[1, 2, 3], 0.5, {"loss": 1}])
def test_trials_without_a_study_ignore_everything(values: Any) -> None:
    for trial in (FixedTrial({"x": 1}), optuna.trial.create_trial(value=1)):
        report(trial, values, 1)
        assert should_prune(trial) is False
        assert trial.user_attrs == {}


def test_one_objective_is_judged_by_any_pruner() -> None:
    study = new_study(1, pruner=optuna.pruners.ThresholdPruner(upper=1))
    trial = study.ask()
    report(trial, 0.5, 0)
    assert not should_prune(trial)
    report(trial, 1.5, 1)
    assert should_prune(trial)


def test_nothing_is_pruned_where_nothing_is_to_be_pruned() -> None:
    trial = new_study(pruner=optuna.pruners.NopPruner()).ask()
    report(trial, [NAN, NAN], 1)
    assert should_prune(trial) is False


@pytest.mark.parametrize(
    ("pruner", "name"),
    [
        (None, "MedianPruner"),  # Optuna's own choice
        (optuna.pruners.HyperbandPruner(), "HyperbandPruner"),
        (optuna.pruners.PatientPruner(ParetoHalvingPruner(), patience=1), "PatientPruner"),
    ],
)
def test_a_pruner_for_one_objective_is_refused(pruner: optuna.pruners.BasePruner | None, name: str) -> None:
    study = new_study(pruner=pruner, study_name="mine")
    with pytest.raises(
        ValueError,
        match=f"{name} can judge one objective only; the study 'mine' has 2. Pass pruner=.*ParetoHalvingPruner",
    ):
        should_prune(study.ask())


def test_pruners_of_others_can_judge_several_objectives() -> None:
    class Ceiling(optuna.pruners.BasePruner):
        judges_several_objectives = True

        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            assert trial.last_step is not None
            values = values_at(trial, trial.last_step, len(study.directions))
            return values is not None and max(values) > 5

    trial = new_study(pruner=Ceiling()).ask()
    report(trial, [1, 5], 1)
    assert not should_prune(trial)
    report(trial, [1, 6], 2)
    assert should_prune(trial)


def test_the_private_name_is_still_there() -> None:
    study = new_study()
    assert [trial_id(study.ask()) for _ in range(2)] == [trial._trial_id for trial in study.trials]
    assert study.ask().storage.get_trial(trial_id(study.ask())).number == 3
