"""Losses that cannot be used, students that guess, and what is pruned at a rung."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from joint_trials import FAMILY, PROXY, Make, Stub, build, enqueue, new_study, space
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from optuna_kd import front, joint_objective
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.recipe import DistillerConfig, OpConfig, Recipe, TermConfig
from optuna_kd.rewards import Metrics
from optuna_kd.study import space_of
from optuna_kd.training import ImageClassification, LossRejected
from optuna_kd.training.lesson import Rung
from optuna_kd.training.trainer import StudentTraining

LN_10 = math.log(10)


def test_a_rejected_loss_ends_its_trial_and_not_the_study(make_open: Make) -> None:
    study = new_study()
    study.optimize(
        JointDistillationObjective(make_open(student=build, optimizer="sgd", lr=1e6), proxy=PROXY), n_trials=2
    )
    for trial in study.trials:
        assert trial.state == TrialState.PRUNED
        assert "loss" in trial.user_attrs[REJECT_REASON] or "finite" in trial.user_attrs[REJECT_REASON]
        assert "seconds" in trial.user_attrs


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cross_entropy_that_is_not_finite_is_rejected(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(StudentTraining, "evaluate", lambda training: Metrics(0.1, value, 0.5, 0.5, 10))
    study = new_study()
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert "non-finite" in trial.user_attrs[REJECT_REASON]
    with pytest.raises(ValueError, match="no complete, feasible trial yet"):
        front(study)


def test_a_loss_that_is_rejected_later_leaves_its_first_rung(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exploding:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def lessons(self) -> Iterator[Rung]:
            yield Rung(1, Metrics(0.5, 1.25, 0.5, 0.5, 10))
            raise LossRejected("exploding loss: features is 1e+05")

    monkeypatch.setattr(joint_objective, "StudentTraining", Exploding)
    study = new_study()
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[REJECT_REASON] == "exploding loss: features is 1e+05"
    assert trial.user_attrs[RUNG_VALUES] == {"1": [1.25, trial.user_attrs["parameters"]]}
    assert (trial.user_attrs["epochs"], trial.user_attrs["cross_entropy"]) == (1, 1.25)


def test_a_student_no_better_than_guessing_is_rejected_among_better_ones(
    open_task: ImageClassification, stub: Stub
) -> None:
    stub.scores = iter([(1.0, 0.9)] * 5 + [(LN_10 + 0.1, 0.1)])
    study = new_study(pruner=NopPruner())
    enqueue(study, *[FAMILY.all()[0]] * 5, FAMILY.all()[-1])
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=6)
    last = study.trials[-1]
    assert last.state == TrialState.PRUNED
    assert last.user_attrs[REJECT_REASON].startswith("collapsed: a validation cross-entropy of 2.4, guessing has 2.3")
    assert last.user_attrs["epochs"] == 1
    assert [trial.state for trial in study.trials[:5]] == [TrialState.COMPLETE] * 5


def test_a_rung_at_which_everybody_guesses_says_nothing(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = itertools.repeat((LN_10 + 0.1, 1.0))
    study = new_study(pruner=NopPruner())
    enqueue(study, *[FAMILY.all()[0]] * 6, FAMILY.all()[-1])
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=6)
    assert [trial.state for trial in study.trials[:6]] == [TrialState.COMPLETE] * 6
    stub.scores = itertools.repeat((LN_10 + 0.1, LN_10 + 0.1))  # but at the second rung they did not
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    assert study.trials[-1].user_attrs[REJECT_REASON].startswith("collapsed")
    assert study.trials[-1].user_attrs["epochs"] == 2


def test_a_small_student_may_guess_longer_than_larger_ones(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = iter([(1.0, 0.9)] * 5 + [(LN_10 + 0.1, 0.1)])
    study = new_study(pruner=NopPruner())
    enqueue(study, *[FAMILY.all()[-1]] * 5, FAMILY.all()[0])
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=6)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_a_trial_is_pruned_at_its_rung(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = iter([(1.0, 0.9)] * 4 + [(2.0, 0.1)])
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, small, small, small, small, large)  # worse, and larger
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=5)
    last = study.trials[-1]
    assert last.state == TrialState.PRUNED
    assert REJECT_REASON not in last.user_attrs
    assert (last.user_attrs["epochs"], last.user_attrs["cross_entropy"]) == (1, 2.0)
    assert list(last.user_attrs[RUNG_VALUES]) == ["1"]


def test_a_smaller_student_goes_on_though_it_is_worse(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = iter([(1.0, 0.9)] * 4 + [(2.0, 1.9)])
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, large, large, large, large, small)
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=5)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_a_chain_that_does_not_fit_the_maps_is_rejected(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_objective, "probe_points", lambda *_: {})
    study = new_study(space=space(chain=2))
    # The coarsest scale of 4x4 maps is 1x1, which has no patches.
    terms = tuple(
        TermConfig(kind, OpConfig("mse"), 1.0, ("multiscale", "local") if kind == "features" else ())  # type: ignore[arg-type]
        for kind in ("features", "embeddings", "logits")
    )
    study.enqueue_trial(space_of(study).params(Recipe(DistillerConfig(terms), FAMILY.all()[0])))
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[REJECT_REASON].startswith("cannot teach: ")
    assert "multiscale" in trial.user_attrs[REJECT_REASON]
