"""A study as a table: what has a row, what has none, and pruned trials in their place."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.analysis import read_table
from optuna_kd.analysis.table import COMPLETE, place
from optuna_kd.pruners import ParetoHalvingPruner, report, should_prune
from optuna_kd.scales import LOG_OBJECTIVES

X = {"x": FloatDistribution(0.0, 1.0)}


def add(
    study: Study,
    values: float | list[float] | None,
    state: TrialState = TrialState.COMPLETE,
    reports: Mapping[int, float] | None = None,
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    **more: Any,
) -> None:
    trial = optuna.trial.create_trial(
        state=state,
        values=[values] if isinstance(values, int | float) else values,
        params=dict(params or {"x": 0.5}),
        distributions=dict(distributions or X),
        intermediate_values=dict(reports or {}),
        **more,
    )
    study.add_trial(trial)


def test_rows_and_reasons() -> None:
    study = optuna.create_study(direction="maximize", study_name="<b>&")
    add(study, 1.0, reports={1: 0.5})
    add(study, None, TrialState.FAIL)
    add(study, None, TrialState.PRUNED)
    add(study, None, TrialState.PRUNED, {1: 0.4, 2: math.nan})
    add(study, None, TrialState.PRUNED, {1: 0.3})
    study.enqueue_trial({"x": 0.1})
    study.ask()
    study.enqueue_trial({"x": 0.2})
    add(study, math.inf)
    table = read_table(study)
    assert table.study_name == "<b>&"
    assert table.numbers.tolist() == [0, 4, 7]
    assert table.rungs.tolist() == [COMPLETE, 1, COMPLETE]
    assert table.pruned.tolist() == [False, True, False]
    assert table.reported[:, 0].tolist() == [1.0, 0.3, math.inf]
    assert table.left_out == {
        "failed": 1,
        "pruned without a report": 1,
        "value is not a number": 1,
        "still running": 1,
        "waiting to run": 1,
    }
    assert len(table) == 3
    assert table.params[0] == {"x": 0.5}


def test_a_complete_trial_without_a_number_has_no_row() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: math.nan, n_trials=1)  # Optuna fails it
    assert read_table(study).left_out == {"failed": 1}


def test_empty_and_single() -> None:
    study = optuna.create_study()
    table = read_table(study)
    assert (len(table), table.values.shape, table.left_out) == (0, (0, 1), {})
    assert table.seconds.shape == table.violations.shape == (0,)
    study.optimize(lambda trial: trial.suggest_int("n", 1, 3), n_trials=1)
    assert len(read_table(study)) == 1
    assert read_table(study).seconds[0] >= 0


def test_pruned_trials_are_put_on_the_scale_of_final_values() -> None:
    # Reports at rung 1 are a tenth of final values minus 3: the line through mean and deviation finds that.
    ends = np.array([4.0, 6.0, 7.0, 8.0, 10.0, np.nan, np.nan])
    reports = [{1: value / 10 - 3} for value in (4.0, 6.0, 7.0, 8.0, 10.0, 2.0, 5.0)]
    rungs = np.array([COMPLETE] * 5 + [1, 1])
    placed = place(np.where(np.isnan(ends), -2.8, ends), rungs, reports)
    assert placed == pytest.approx([4, 6, 7, 8, 10, 2, 5])


def test_a_rung_is_placed_by_those_that_went_on_even_if_they_were_pruned_later() -> None:
    # Rung 2 is half of the end, rung 1 a quarter. The trials pruned at 2 help to place the one pruned at 1.
    ends = [4.0, 6.0, 8.0, 10.0, 12.0]
    reports = [{1: value / 4, 2: value / 2} for value in ends] + [{1: 0.5, 2: 1.0}, {1: 0.25}]
    rungs = np.array([COMPLETE] * 5 + [2, 1])
    placed = place(np.array([*ends, 1.0, 0.25]), rungs, reports)
    assert placed == pytest.approx([*ends, 2.0, 1.0])


def test_few_pairs_shift_and_none_leaves_the_place_open() -> None:
    rungs = np.array([COMPLETE, COMPLETE, 1, 2])
    placed = place(np.array([5.0, 7.0, 1.0, 9.0]), rungs, [{1: 2.0}, {1: 4.0}, {1: 1.0}, {2: 9.0}])
    assert placed[:3] == pytest.approx([5.0, 7.0, 4.0])
    assert math.isnan(placed[3])


def test_where_all_are_pruned_the_highest_rung_is_the_end() -> None:
    study = optuna.create_study(direction="minimize")
    add(study, None, TrialState.PRUNED, {1: 3.0, 2: 2.0})
    add(study, None, TrialState.PRUNED, {1: 4.0})
    table = read_table(study)
    assert table.values[:, 0] == pytest.approx([2.0, 3.0])
    assert table.reported[:, 0].tolist() == [2.0, 4.0]


def test_gains_are_higher_where_it_is_better() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.set_metric_names(["loss", "accuracy"])
    study.set_user_attr(LOG_OBJECTIVES, [0])
    add(study, [1.0, 2.0])
    table = read_table(study)
    assert (table.gains(0)[0], table.gains(1)[0]) == (-1.0, 2.0)
    assert [each.logarithmic for each in table.objectives] == [True, False]
    only = read_table(study, "accuracy")
    assert [each.name for each in only.objectives] == ["accuracy"]
    assert only.values.tolist() == [[2.0]]
    assert read_table(study, 1).values.tolist() == [[2.0]]
    with pytest.raises(ValueError, match=r"'speed'\. Known: loss, accuracy, or a place, 0 to 1\."):
        read_table(study, "speed")
    with pytest.raises(ValueError, match="Unknown objective 2"):
        read_table(study, 2)


def test_several_objectives_with_our_pruner() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], pruner=ParetoHalvingPruner(2, warmup_trials=2))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0.0, 1.0)
        report(trial, [x / 2, x], 1)
        if should_prune(trial):
            raise optuna.TrialPruned
        return x, x

    for x in (0.5, 0.9, 0.95, 0.99):
        study.enqueue_trial({"x": x})
    study.optimize(objective, n_trials=4)
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.PRUNED, params={"x": 0.1}, distributions=X, user_attrs={"rung_values": {"1": [0.0, 2.0]}}
        )
    )
    table = read_table(study)
    assert table.values.shape == (5, 2)
    assert table.reported[4].tolist() == [0.0, 2.0]
    assert table.rungs[4] == 1
    assert table.values[4, 0] < table.values[:4, 0].min()
    assert table.values[4, 1] > table.values[:4, 1].max()


def test_a_target_is_computed_of_complete_trials() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    add(study, [1.0, 2.0])
    add(study, None, TrialState.PRUNED)
    add(study, [3.0, 4.0], params={"x": 0.0})
    table = read_table(study, target=lambda trial: trial.values[0] + trial.values[1])
    assert table.values[:, 0].tolist() == [3.0, 7.0]
    assert table.left_out == {"pruned": 1}
    assert read_table(study, target=lambda trial: math.nan).left_out == {"value is not a number": 2, "pruned": 1}
    with pytest.raises(ValueError, match="not both"):
        read_table(study, 0, target=lambda trial: 0.0)


def test_feasibility() -> None:
    study = optuna.create_study()
    for excess in (0.0, -1.0, 0.5):
        trial = study.ask(X)
        trial.set_constraint("size", excess)
        trial.set_constraint("time", -3.0)
        study.tell(trial, 1.0)
    study.tell(study.ask(X), 1.0)  # says nothing of the constraints
    table = read_table(study)
    assert table.violations.tolist() == [0.0, 0.0, 0.5, math.inf]
    assert table.feasible.tolist() == [True, True, False, False]
    free = optuna.create_study()
    free.tell(free.ask(X), 1.0)
    assert read_table(free).feasible.all()


def test_parameters_of_any_kind() -> None:
    long, odd = "n" * 5000, "<script>alert(1)</script>"
    study = optuna.create_study()
    with pytest.warns(UserWarning, match="Choices for a categorical"):
        choices = CategoricalDistribution([None, True, 1.5, "a", ("t", 1), [1, 2], math.nan])
    for choice in choices.choices:
        add(
            study, 1.0, params={long: choice, odd: 3}, distributions={long: choices, odd: IntDistribution(1, 9, step=2)}
        )
    add(study, 1.0, params={odd: 8}, distributions={odd: IntDistribution(8, 12)})
    table = read_table(study)
    assert list(table.parameters) == [long, odd]
    assert table.parameters[long].visits == 7
    assert table.parameters[long].rows.tolist() == list(range(7))
    assert len(table.parameters[long].distributions) == 1
    assert table.parameters[odd].distributions == (IntDistribution(1, 9, step=2), IntDistribution(8, 12))
    assert table.params[5][long] == [1, 2]


def test_attributes_that_are_numbers() -> None:
    study = optuna.create_study()
    add(study, 1.0, user_attrs={"epochs": 3, "recipe": "kl", "ok": True})
    add(study, 1.0, user_attrs={"epochs": 4.5})
    table = read_table(study)
    assert table.attribute("epochs").tolist() == [3.0, 4.5]
    assert np.isnan(table.attribute("recipe")).all()
    assert table.attribute_names() == {"epochs": 2, "ok": 1}


def test_some_rows_of_a_table() -> None:
    study = optuna.create_study()
    add(study, 1.0)
    add(study, 2.0, params={"y": 0.0}, distributions={"y": FloatDistribution(0, 1)})
    add(study, 3.0)
    part = read_table(study).where(np.array([False, False, True]))
    assert part.numbers.tolist() == [2]
    assert list(part.parameters) == ["x"]
    assert part.parameters["x"].rows.tolist() == [0]
    assert part.values.tolist() == [[3.0]]


def test_ten_thousand_trials_are_read_in_seconds_and_ranges_may_all_differ() -> None:
    study = optuna.create_study()
    trials = [
        optuna.trial.create_trial(
            value=float(number),
            params={f"p{place}": 0.5 for place in range(8)} | {"moving": 0.0},
            distributions={f"p{place}": FloatDistribution(0, 1) for place in range(8)}
            | {"moving": FloatDistribution(0.0, number + 1.0)},
            intermediate_values={1: 0.0, 2: 1.0},
        )
        for number in range(10_000)
    ]
    study._storage = _Listed(study._storage, trials)
    begin = time.process_time()
    table = read_table(study)
    assert time.process_time() - begin < 5
    assert len(table) == 10_000
    assert len(table.parameters["moving"].distributions) == 10_000


class _Listed:
    """A storage that can only be read, and hands out a list of trials."""

    def __init__(self, storage: Any, trials: list[optuna.trial.FrozenTrial]) -> None:
        self._trials, self._storage = trials, storage

    def get_all_trials(self, *_: Any, **__: Any) -> list[optuna.trial.FrozenTrial]:
        return self._trials

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("get_", "read_")):
            raise AssertionError(f"wrote with {name}")
        return getattr(self._storage, name)
