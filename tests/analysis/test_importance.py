"""Importance in conditional spaces: right on known functions, honest about what it does not know, hard to break."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import BaseImportanceEvaluator, get_param_importances
from optuna.testing.pytest_importance import (
    BasicImportanceEvaluatorTestCase,
    ConditionalImportanceEvaluatorTestCase,
    MultiObjectiveImportanceEvaluatorTestCase,
)
from optuna.trial import TrialState

from optuna_kd.analysis import ConditionalImportanceEvaluator, importances, read_table
from optuna_kd.analysis.response import Response
from optuna_kd.scales import LOG_OBJECTIVES

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from known_functions import FUNCTIONS, KnownFunction


class TestOptunaCases(
    BasicImportanceEvaluatorTestCase,
    ConditionalImportanceEvaluatorTestCase,
    MultiObjectiveImportanceEvaluatorTestCase,
):
    @pytest.fixture
    def evaluator(self) -> Callable[..., BaseImportanceEvaluator]:
        return ConditionalImportanceEvaluator


def study_of(function: KnownFunction, trials: int, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler or optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    study.optimize(lambda trial: function.value(trial) + 0.3 * function.sd * rng.normal(), n_trials=trials)
    return study


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=lambda function: function.name)
def test_known_importances_are_found(function: KnownFunction) -> None:
    rows = importances(study_of(function, 150))
    assert {row.parameter for row in rows} == set(function.truth)
    assert sum(row.share for row in rows) == pytest.approx(1)
    for row in rows:
        assert row.share == pytest.approx(function.truth[row.parameter], abs=0.08)
        assert row.low <= row.share <= row.high
        assert row.presence == pytest.approx(function.presence.get(row.parameter, 1.0), abs=0.02)
        if function.truth[row.parameter] == 0:
            assert row.low == 0


def test_the_losing_branch_has_importances_of_its_own() -> None:
    # TPE hardly goes there, and nothing of it is among the best trials.
    study = study_of(FUNCTIONS["losing branch"], 100, optuna.samplers.TPESampler(seed=1))
    rows = {row.parameter: row for row in importances(study)}
    assert rows["shift"].visits < 30
    assert rows["shift"].share > 0.15
    assert rows["shift"].inside > 0.8
    assert [str(each) for each in rows["shift"].branch] == ["branch = bad"]
    assert get_param_importances(study)["shift"] < 0.05
    assert "shift" not in get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator())


def test_overall_is_presence_times_inside_times_the_branch_s_variance() -> None:
    response = Response(read_table(study_of(FUNCTIONS["gated"], 100)))
    overall = {row.parameter: row for row in importances(response)}
    inside = {row.parameter: row for row in importances(response, within={"method": "kl"})}
    assert set(inside) == {"temperature", "learning_rate", "momentum"}
    assert sum(row.share for row in inside.values()) == pytest.approx(1)
    assert inside["temperature"].share == pytest.approx(overall["temperature"].inside, abs=0.03)
    # 36 · 4/45 of the bowl, beside 0.64 / 3 of the slope
    assert inside["temperature"].share == pytest.approx(3.2 / (3.2 + 0.64 / 3), abs=0.05)
    assert inside["temperature"].visits == overall["temperature"].visits
    assert all(row.presence == 1 for row in inside.values())
    with pytest.raises(ValueError, match="No usable trial has the parameter 'methods'"):
        importances(response, within={"methods": "kl"})


def test_unvisited_is_uncertain() -> None:
    study = study_of(FUNCTIONS["gated"], 60)
    few = {row.parameter: row for row in importances(Response(read_table(study).where(np.arange(60) < 15)))}
    many = {row.parameter: row for row in importances(study)}
    width = {name: few[name].inside_high - few[name].inside_low for name in few}
    assert np.mean([width[name] for name in few]) > 1.3 * np.mean(
        [many[name].inside_high - many[name].inside_low for name in few]
    )


def test_pruned_trials_count() -> None:
    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.report(x / 2 - 3, 1)
        if x < 0.8:
            raise optuna.TrialPruned
        return x + 0.2 * y

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    rows = {row.parameter: row for row in importances(study)}
    assert rows["x"].visits == 60
    assert rows["x"].share > 0.85
    complete = read_table(study)
    alone = {row.parameter: row for row in importances(Response(complete.where(~complete.pruned)))}
    assert alone["x"].share < rows["x"].share


def test_by_objective_and_their_mean() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    study.set_metric_names(["cost", "gain"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 3 * trial.suggest_float("y", 0, 1)), n_trials=40)
    assert importances(study, "cost")[0].parameter == "x"
    assert importances(study, 1)[0].parameter == "y"
    both = ConditionalImportanceEvaluator().evaluate(study)
    assert both == pytest.approx({"x": 0.5, "y": 0.5}, abs=0.03)
    assert ConditionalImportanceEvaluator(objective="gain").evaluate(study)["y"] > 0.9
    assert ConditionalImportanceEvaluator().evaluate(study, target=lambda trial: trial.values[0])["x"] > 0.9
    with pytest.raises(ValueError, match="has 2 objectives; name one: 'cost', 'gain'"):
        importances(study)


def test_an_objective_over_orders_of_magnitude_is_looked_at_by_its_logarithm() -> None:
    def objective(trial: optuna.Trial) -> float:
        # On the plain scale x is all; by the logarithm y is as much wherever x is small.
        return 10 ** trial.suggest_float("x", 0, 6) + 10 ** trial.suggest_float("y", 0, 4)

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    plain = {row.parameter: row.share for row in importances(study)}
    study.set_user_attr(LOG_OBJECTIVES, [0])
    logarithmic = {row.parameter: row.share for row in importances(study)}
    assert plain["y"] < 0.05
    assert logarithmic["y"] > 0.1


def test_the_same_again() -> None:
    study = study_of(FUNCTIONS["nested"], 30)
    assert importances(study) == importances(study)
    assert importances(study) != importances(study, seed=1)


def test_stock_functions_take_the_evaluator() -> None:
    study = study_of(FUNCTIONS["gated"], 40)
    evaluator = ConditionalImportanceEvaluator()
    shares = get_param_importances(study, evaluator=evaluator)
    assert list(shares) == sorted(shares, key=lambda name: -shares[name])
    assert sum(shares.values()) == pytest.approx(1)
    figure = optuna.visualization.plot_param_importances(study, evaluator=evaluator)
    assert set(figure.data[0].y) == set(shares)
    with pytest.raises(TypeError, match="list of parameter names"):
        evaluator.evaluate(study, params="x")  # type: ignore[arg-type]


def created(values: list[float], params: list[dict[str, Any]], distributions: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study()
    for value, chosen in zip(values, params, strict=True):
        used = {name: distributions[name] for name in chosen}
        study.add_trial(optuna.trial.create_trial(value=value, params=chosen, distributions=used))
    return study


UNIT = {"x": FloatDistribution(0.0, 1.0)}


def test_nothing_to_tell() -> None:
    assert importances(optuna.create_study()) == ()
    bare = optuna.create_study()
    bare.optimize(lambda trial: 1.0, n_trials=3)
    assert importances(bare) == ()
    infinite = created([math.inf, -math.inf], [{"x": 0.1}, {"x": 0.2}], UNIT)
    assert importances(infinite) == ()
    pruned = optuna.create_study()
    pruned.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, params={"x": 0.1}, distributions=UNIT))
    assert importances(pruned) == ()


def test_no_spread_is_no_importance() -> None:
    for values in ([1.0], [1.0, 1.0, 1.0], [0.1 + 0.2, 0.3]):
        study = created(values, [{"x": 0.1 * place} for place in range(len(values))], UNIT)
        (row,) = importances(study)
        assert (row.share, row.low, row.high, row.inside, row.visits) == (0.0, 0.0, 0.0, 0.0, len(values))


@pytest.mark.parametrize("factor", [1e-300, 1e-9, 1e9, 1e300])
def test_values_of_any_size(factor: float) -> None:
    params = [{"x": place / 10, "y": (place * 7 % 10) / 10} for place in range(10)]
    distributions = {**UNIT, "y": FloatDistribution(0.0, 1.0)}
    study = created([factor * chosen["x"] for chosen in params], params, distributions)
    assert importances(study)[0].parameter == "x"
    assert importances(study)[0].share > 0.8


def test_a_disaster_does_not_hide_the_rest() -> None:
    params = [{"x": place / 20, "y": (place * 7 % 20) / 20} for place in range(20)]
    values = [chosen["x"] for chosen in params]
    values[0] = 1e12
    study = created(values, params, {**UNIT, "y": FloatDistribution(0.0, 1.0)})
    rows = {row.parameter: row.share for row in importances(study)}
    assert rows["x"] > 2 * rows["y"]


def test_mixed_kinds_names_and_presence() -> None:
    with pytest.warns(UserWarning, match="Choices for a categorical"):
        kinds = optuna.distributions.CategoricalDistribution([None, (1, 2), "</script>", math.nan])
    long = "n" * 4000
    distributions = {
        "<img src=x>": kinds,
        long: optuna.distributions.IntDistribution(1, 1000, log=True),
        "step": FloatDistribution(0.0, 1.0, step=0.25),
        "single": FloatDistribution(2.0, 2.0),
    }
    rng = np.random.default_rng(0)
    params: list[dict[str, Any]] = []
    for number in range(24):
        chosen: dict[str, Any] = {"<img src=x>": kinds.choices[number % 4], "step": 0.25 * int(rng.integers(5))}
        if rng.random() < 0.5:  # nothing decides about it
            chosen |= {long: int(rng.integers(1, 1000)), "single": 2.0}
        params.append(chosen)
    study = created([chosen["step"] + (chosen["<img src=x>"] is None) for chosen in params], params, distributions)
    rows = {row.parameter: row for row in importances(study)}
    assert set(rows) == set(distributions)
    assert rows["single"].share == 0
    assert rows["<img src=x>"].share > rows[long].share
    assert rows[long].visits < 24


def test_ranges_that_change_from_trial_to_trial() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: trial.suggest_float("x", 0, trial.number + 1) + trial.suggest_float("y", 0, 1), n_trials=30
    )
    rows = {row.parameter: row.share for row in importances(study)}
    assert rows["x"] > 0.9


@pytest.mark.slow
def test_five_thousand_trials_in_seconds() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = []
    for _ in range(5000):
        trial = study.ask()
        value = FUNCTIONS["nested"].value(trial)
        frozen = study._storage.get_trial(trial._trial_id)
        trials.append(optuna.trial.create_trial(value=value, params=frozen.params, distributions=frozen.distributions))
    large = optuna.create_study(direction="maximize")
    large.add_trials(trials)
    begin = time.process_time()
    rows = importances(large)
    assert time.process_time() - begin < 20
    assert rows[0].share == pytest.approx(FUNCTIONS["nested"].truth[rows[0].parameter], abs=0.03)
