"""The shrinking space: weights by hand, draws that follow them, and a table to read."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from optuna_kd.samplers import UniADSSampler
from optuna_kd.samplers.domains import domain_of
from optuna_kd.samplers.nsga.shrinkage import Tally, shrunk


def test_weights_are_those_of_the_formula() -> None:
    # (1 + 0) / 2, (1 + 2 - 0) / 4, (1 + 2 - 2) / 4, (1 + 98 - 98) / 100 = 0.01, but at least 0.05
    assert shrunk(np.array([0, 2, 2, 98]), np.array([0, 0, 2, 98])).tolist() == [0.5, 0.75, 0.25, 0.05]


def test_table_by_hand() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    distances = CategoricalDistribution(["kl", "l2", "cosine"])
    for choice, value in [("kl", 1.0), ("kl", 2.0), ("l2", 3.0), ("l2", 4.0)]:
        study.add_trial(create_trial(params={"d": choice}, distributions={"d": distances}, values=[value, 0.0]))
    study.add_trial(create_trial(params={"d": "kl"}, distributions={"d": distances}, state=TrialState.FAIL))
    study.add_trial(create_trial(params={"d": "l2"}, distributions={"d": distances}, state=TrialState.PRUNED))
    # Of the four that are judged the last two are the lower half.
    assert UniADSSampler.shrinkage(study) == {
        "d": [
            {"option": "kl", "visits": 3, "failures": 1, "weight": 3 / 5},
            {"option": "l2", "visits": 3, "failures": 3, "weight": 1 / 5},
            {"option": "cosine", "visits": 0, "failures": 0, "weight": 1 / 2},
        ]
    }


def test_options_of_numbers_are_values_or_intervals() -> None:
    study = optuna.create_study()
    distributions = {"depth": IntDistribution(1, 7, step=2), "rate": FloatDistribution(1e-4, 1.0, log=True)}
    study.add_trial(create_trial(params={"depth": 5, "rate": 0.9}, distributions=distributions, value=0.0))
    table = UniADSSampler.shrinkage(study)
    assert [(row["option"], row["visits"]) for row in table["depth"]] == [(1, 0), (3, 0), (5, 1), (7, 0)]
    assert [row["visits"] for row in table["rate"]] == [0, 0, 0, 0, 0, 0, 0, 1]
    assert table["rate"][0]["option"] == "0.0001 to 0.0003162"
    assert table["rate"][7]["option"] == "0.3162 to 1"


def test_a_study_without_trials_has_an_empty_table() -> None:
    assert UniADSSampler.shrinkage(optuna.create_study()) == {}


def test_draws_follow_the_weights() -> None:
    tally = Tally(domain_of(CategoricalDistribution("abc")), np.array([0, 2, 2]), np.array([0, 0, 2]))
    assert tally.probabilities == pytest.approx([1 / 3, 1 / 2, 1 / 6])
    drawn = tally.draw(6000, np.random.default_rng(0))
    assert np.bincount(drawn.astype(int)) / 6000 == pytest.approx([1 / 3, 1 / 2, 1 / 6], abs=0.03)


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(1, 16, log=True),
        IntDistribution(0, 1000),
        FloatDistribution(-3, 5),
        FloatDistribution(0, 1, step=0.25),
    ],
)
def test_without_evidence_draws_are_uniform_over_the_range(distribution: optuna.distributions.BaseDistribution) -> None:
    domain = domain_of(distribution)
    nothing = np.zeros(domain.children, np.int64)
    rng = np.random.default_rng(0)
    drawn = Tally(domain, nothing, nothing).draw(8000, rng)
    expected = [domain.position(domain.coordinate(domain.draw(domain.cell(None), rng))) for _ in range(8000)]
    deciles = np.linspace(0.1, 0.9, 9)
    width = domain.bounds()[1] - domain.bounds()[0]
    assert np.quantile(drawn, deciles) / width == pytest.approx(
        np.quantile(expected, deciles) / width, abs=0.26 if domain.children < 6 else 0.1
    )
    assert drawn.mean() / width == pytest.approx(np.mean(expected) / width, abs=0.02)
    assert (domain.nearest(drawn) == drawn).all()


def test_random_trials_avoid_what_fails() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["good", "bad"]) == "bad":
            raise ArithmeticError
        return trial.suggest_float("x", 0, 1)

    study = optuna.create_study(sampler=UniADSSampler(0, startup_trials=200))
    study.optimize(objective, n_trials=60, catch=ArithmeticError)
    bad = sum(trial.params["kind"] == "bad" for trial in study.trials[20:])
    assert 0 < bad < 12  # a half without shrinkage, 1/12 at the end with it: about 5 of the 40
