"""Loss rejection: each rule at its border, and the sentence that people read."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from optuna_kd.pruners import LossRejection, reason_to_reject, reject
from optuna_kd.pruners.rejection import REJECT_REASON

pytestmark = pytest.mark.usefixtures("quiet_optuna")

LN10 = 2.302585092994046


@pytest.mark.parametrize(
    ("loss", "given", "reason"),
    [
        (2.0, {}, None),
        (math.nan, {}, "non-finite loss: the loss is nan"),
        (-math.inf, {}, "non-finite loss: the loss is -inf"),
        (math.nan, {"terms": {"kl": math.inf}}, "non-finite loss: kl is inf"),  # the culprit, not the sum
        (2.0, {"validation": math.nan}, "non-finite loss: the validation loss is nan"),
        (6.0, {"first": 2.0}, None),  # three times, not more
        (6.1, {"first": 2.0}, "exploding loss: 6.1, above 3 times the first loss of 2"),
        (6.1, {"first": 2.0, "factor": 4}, None),
        (8.1, {"first": 2.0, "factor": 4}, "exploding loss: 8.1, above 4 times the first loss of 2"),
        (1.0, {"first": 0.0}, None),  # no scale to compare with
        (-1.0, {"first": -2.0}, None),  # -1 > 3 · -2, and yet nothing explodes
        (2.0, {"first": math.nan}, None),
        (1e4, {"terms": {"kl": 1e4}}, None),
        (1e5, {"terms": {"ce": 1.0, "kl": 99999.0}}, "exploding loss: kl is 1e+05, above 10000"),
        (2.0, {"terms": {"kl": 11.0}, "term_limit": 10}, "exploding loss: kl is 11, above 10"),
        (None, {"validation": 2.30, "num_classes": 10}, None),
        (
            None,
            {"validation": 2.31, "num_classes": 10},
            "collapsed: a validation cross-entropy of 2.31, guessing has 2.3",
        ),
        (None, {"validation": 0.6, "num_classes": 2}, None),  # ln 2 is 0.693
        (
            None,
            {"validation": 0.7, "num_classes": 2},
            "collapsed: a validation cross-entropy of 0.7, guessing has 0.693",
        ),
        (None, {"validation": 99.0}, None),  # of no classification
        (None, {}, None),
    ],
)
def test_rules_by_hand(loss: float | None, given: dict[str, Any], reason: str | None) -> None:
    assert reason_to_reject(loss, **given) == reason


def test_equal_outputs_for_all_classes_are_a_collapse() -> None:
    assert reason_to_reject(validation=LN10, num_classes=10)
    assert reason_to_reject(validation=2.3025848865509033, num_classes=10)  # the same in single precision, less an ulp
    assert not reason_to_reject(validation=LN10 - 1e-4, num_classes=10)


def test_a_training_is_compared_with_its_own_first_loss() -> None:
    rejection = LossRejection(num_classes=10)
    assert rejection.step(100.0) is None
    assert rejection.step(250.0) is None
    assert rejection.step(301.0) == "exploding loss: 301, above 3 times the first loss of 100"
    assert rejection.step(1.0, {"kl": 2e4}) == "exploding loss: kl is 2e+04, above 10000"
    assert rejection.rung(2.2) is None
    assert rejection.rung(2.4) == "collapsed: a validation cross-entropy of 2.4, guessing has 2.3"
    assert LossRejection().rung(99.0) is None
    assert LossRejection().rung(math.inf) == "non-finite loss: the validation loss is inf"


def test_the_limits_are_arguments() -> None:
    rejection = LossRejection(factor=1.5, term_limit=5)
    assert rejection.step(1.0, {"kl": 4.9}) is None
    assert rejection.step(1.6) == "exploding loss: 1.6, above 1.5 times the first loss of 1"
    assert rejection.step(1.0, {"kl": 5.1}) == "exploding loss: kl is 5.1, above 5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes must be >= 2, or None to judge no rung; got 1"),
        ({"factor": 1}, "factor must be > 1; got 1"),
        ({"term_limit": 0}, "term_limit must be > 0; got 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossRejection(**arguments)


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "maximize"]])
def test_a_rejected_trial_is_pruned_with_its_reason(directions: list[str]) -> None:
    def objective(trial: optuna.Trial) -> float:
        rejection = LossRejection()
        for loss in (1.0, 2.0, 4.0):
            if reason := rejection.step(loss):
                raise reject(trial, reason)
        raise AssertionError("not rejected")

    study = optuna.create_study(directions=directions)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.user_attrs == {"reject_reason": "exploding loss: 4, above 3 times the first loss of 1"}


def test_distillation_studies_reject_in_the_same_way() -> None:
    from optuna_kd import joint_objective, objective

    assert objective.reject is joint_objective.reject is reject
    assert REJECT_REASON == "reject_reason"
