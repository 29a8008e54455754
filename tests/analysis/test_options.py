"""Options compared, all else being equal."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from optuna_kd.analysis import compare_options, read_table
from optuna_kd.analysis.response import Response

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from known_functions import FUNCTIONS


def gated(trials: int, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    function = FUNCTIONS["gated"]
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rng = np.random.default_rng(0)
    study.optimize(lambda trial: function.value(trial) + 0.3 * function.sd * rng.normal(), n_trials=trials)
    return study


@pytest.fixture(scope="module")
def response() -> Response:
    return Response(read_table(gated(120, optuna.samplers.TPESampler(seed=0))))


def test_means_do_not_depend_on_the_company_an_option_kept(response: Response) -> None:
    found = compare_options(response, "method")
    assert [option.value for option in found.options] == ["kl", "attention", "none"]
    for option, truth in zip(found.options, (1.0, 0.5, -1.5), strict=True):
        assert option.mean_low - 0.15 <= truth <= option.mean_high + 0.15
    kl = found.options[0]
    assert kl.observed is not None
    assert kl.observed > 1.5  # TPE gave it the best temperatures
    assert kl.best == max(trial.value for trial in response.table.trials)
    assert sum(option.visits for option in found.options) == 120
    largest = found.differences[0]
    assert (largest.better.value, largest.worse.value) == ("kl", "none")
    assert largest.gap == pytest.approx(2.5, abs=0.5)
    assert largest.low < largest.gap < largest.high
    assert largest.beyond_noise


def test_options_of_a_conditional_parameter_are_compared_in_its_branch(response: Response) -> None:
    found = compare_options(response, "power")
    assert [str(each) for each in found.branch] == ["method = attention"]
    assert [option.value for option in found.options] == ["absolute", "square"]
    assert found.options[0].visits + found.options[1].visits < 60
    assert found.differences[0].gap == pytest.approx(2.0, abs=1.0)


def test_bins_of_a_number(response: Response) -> None:
    found = compare_options(response, "temperature", bins=3)
    middle = found.options[0]
    assert middle.low is not None
    assert middle.high is not None
    assert 1.0 < middle.low < 4.0 < middle.high < 16.0
    assert sorted(option.low for option in found.options if option.low is not None)[0] == pytest.approx(1.0)
    assert sorted(option.high for option in found.options if option.high is not None)[-1] == pytest.approx(16.0)
    visits = [option.visits for option in found.options]
    assert max(visits) - min(visits) <= 2
    with pytest.raises(ValueError, match="bins must be >= 2; got 1"):
        compare_options(response, "temperature", bins=1)


def test_noise_is_not_a_difference(response: Response) -> None:
    found = compare_options(response, "momentum")
    assert not any(difference.beyond_noise for difference in found.differences)
    assert all(difference.p_value <= difference.adjusted <= 1 for difference in found.differences)


def test_a_loss_is_better_when_it_is_lower_and_each_of_few_numbers_is_an_option() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: 2.0 * trial.suggest_int("layers", 1, 5, step=2) + trial.suggest_float("x", 0, 1), n_trials=40
    )
    found = compare_options(study, "layers")
    assert [(option.low, option.high, str(option)) for option in found.options] == [
        (1.0, 1.0, "1"),
        (3.0, 3.0, "3"),
        (5.0, 5.0, "5"),
    ]
    assert [option.mean for option in found.options] == pytest.approx([2.5, 6.5, 10.5], abs=0.1)
    assert found.differences[0].gap == pytest.approx(8.0, abs=0.1)
    assert found.options[0].best == min(trial.value for trial in study.trials)
    assert found.objective.maximize is False


def test_within_a_branch() -> None:
    # x is good in one branch and bad in the other.
    def objective(trial: optuna.Trial) -> float:
        sign = {"up": 1, "down": -1}[trial.suggest_categorical("way", ["up", "down"])]
        return sign * trial.suggest_categorical("x", [0.0, 1.0])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=40)
    response = Response(read_table(study))
    assert compare_options(response, "x", within={"way": "up"}).options[0].value == 1.0
    down = compare_options(response, "x", within={"way": "down"})
    assert down.options[0].value == 0.0
    assert sum(option.visits for option in down.options) < 40


def test_options_nobody_took_constant_values_and_unknown_parameters() -> None:
    study = optuna.create_study()
    choices = optuna.distributions.CategoricalDistribution(["a", "b", "c"])
    for value, choice in ((1.0, "a"), (1.0, "b"), (math.inf, "c")):
        study.add_trial(optuna.trial.create_trial(value=value, params={"p": choice}, distributions={"p": choices}))
    found = compare_options(study, "p")
    assert {option.value: (option.visits, option.observed, option.best) for option in found.options} == {
        "a": (1, 1.0, 1.0),
        "b": (1, 1.0, 1.0),
        "c": (0, None, None),
    }
    assert all(option.mean == option.mean_low == option.mean_high == 1.0 for option in found.options)
    assert not any(difference.beyond_noise for difference in found.differences)
    with pytest.raises(ValueError, match=r"No usable trial has the parameter 'q'\. Known: p"):
        compare_options(study, "q")


def test_ranges_that_change_are_cut_by_value() -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0.0, trial.suggest_categorical("top", [1.0, 10.0]))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    found = compare_options(study, "x", bins=2)
    high, low = found.options
    assert high.low == low.high
    assert high.mean > low.mean
    assert low.mean == pytest.approx(
        np.mean([trial.value for trial in study.trials if trial.value <= low.high]), abs=0.3
    )
