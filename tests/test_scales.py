"""Objectives that are compared by their logarithms."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState, create_trial

from optuna_kd import create_study
from optuna_kd.pruners import ParetoHalvingPruner
from optuna_kd.samplers.nsga.view import PopulationView
from optuna_kd.scales import LOG_OBJECTIVES, log_objectives, on_scale


def test_a_joint_study_says_which_of_its_objectives_span_orders_of_magnitude() -> None:
    study = create_study("uniads", storage=None, objectives=("latency_ms", "error", "parameters", "budget_gap"))
    assert log_objectives(study) == (True, False, True, False)
    assert log_objectives(optuna.create_study(directions=["minimize"] * 3)) == (False,) * 3


def test_logarithms_of_what_has_none() -> None:
    assert on_scale([math.e, math.e], (True, False)) == (1.0, math.e)
    assert on_scale([0.0], (True,)) == on_scale([-5.0], (True,)) == (math.log(1e-12),)
    assert on_scale([math.inf], (True,)) == (math.inf,)
    assert math.isnan(on_scale([math.nan], (True,))[0])


def study_of(values: list[list[float]], logarithmic: bool) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "minimize"])
    if logarithmic:
        study.set_user_attr(LOG_OBJECTIVES, [1])
    for pair in values:
        study.add_trial(
            create_trial(
                values=pair,
                user_attrs={"rung_values": {"1": pair}},
                intermediate_values={1: pair[0]},
                params={"x": 0.5},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            )
        )
    return study


FRONT = [[4.0, 1.0], [3.0, 10.0], [2.0, 100.0], [1.9, 400.0], [1.0, 1000.0]]


def standing(study: optuna.Study) -> list[int]:
    view = PopulationView()
    view.refresh(study)
    found: list[int] = view.verdicts.standing().tolist()
    return found


def test_the_sampler_finds_less_crowded_what_is_far_on_a_logarithmic_scale() -> None:
    plain, logarithmic = standing(study_of(FRONT, False)), standing(study_of(FRONT, True))
    assert set(plain[:2]) == set(logarithmic[:2]) == {0, 4}  # the ends of the front
    assert plain[2:] == [3, 1, 2]
    assert logarithmic[2:] == [1, 2, 3]


def test_the_pruner_too() -> None:
    for logarithmic in (False, True):
        study = study_of([], logarithmic)
        for loss, size in FRONT:
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING if size == 10 else TrialState.PRUNED,
                    user_attrs={"rung_values": {"1": [loss, size]}},
                    intermediate_values={1: loss},
                )
            )
        # Three of five go on: the ends of the front, and the least crowded one between them.
        assert ParetoHalvingPruner(1.7).prune(study, study.trials[1]) is not logarithmic


def test_a_view_reads_all_anew_when_the_scale_changes() -> None:
    study, view = study_of(FRONT, False), PopulationView()
    view.refresh(study)
    before = view.generation
    study.set_user_attr(LOG_OBJECTIVES, [1])
    view.refresh(study)
    assert view.generation == before + 1
    assert view.verdicts[1].values == (3.0, math.log(10.0))
