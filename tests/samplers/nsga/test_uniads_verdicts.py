"""Who stands before whom: complete, pruned, infeasible and failed trials, and what the surrogate is told of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optuna_kd.samplers.nsga.verdicts import Outcome, Verdicts, outcome_of

COMPLETE = math.inf


def verdicts(*outcomes: Outcome) -> Verdicts:
    found = Verdicts(2)
    for number, outcome in enumerate(outcomes):
        found.add(number, outcome)
    return found


def outcome(
    *values: float,
    rung: float = COMPLETE,
    reports: dict[int, tuple[float, ...]] | None = None,
    constraints: dict[str, float] | None = None,
) -> Outcome:
    return Outcome(values or None, rung, reports or {}, constraints or {})


def test_fronts_come_first_then_crowding_then_the_number() -> None:
    found = verdicts(
        outcome(5, 5),  # 0: the second front
        outcome(1, 4),  # 1: an end of the first
        outcome(2, 3),  # 2: between 1 and 3, gaps (4 - 1) / 3 + (4 - 1) / 3 = 2
        outcome(4, 1),  # 3: the other end
    )
    assert found.standing().tolist() == [1, 3, 2, 0]


def test_pruned_trials_stand_behind_the_survivors_of_later_rungs() -> None:
    found = verdicts(
        outcome(1, 1, rung=3),  # dominates all, but was stopped first
        outcome(2, 2, rung=6),
        outcome(9, 9),
        outcome(1, 0, rung=3),
        outcome(),  # nobody knows
    )
    assert found.standing().tolist() == [2, 1, 3, 0]
    assert found.failed().tolist() == [0, 1, 3, 4]  # pruned or failed; 2 of the judged four is in the upper half


def test_the_lower_half_fails() -> None:
    found = verdicts(*(outcome(value, value) for value in (3, 1, 2, 0, 4)))
    assert found.failed().tolist() == [0, 4]  # of five, the worst two


def test_infeasible_trials_stand_behind_all_feasible_ones_by_their_violation() -> None:
    found = verdicts(
        outcome(0, 0, constraints={"size": 2.0}),
        outcome(0, 0, constraints={"size": 0.5, "time": 0.5}),
        outcome(9, 9, constraints={"size": 0.0}),
        outcome(8, 8, rung=3),  # pruned before its constraints were known
        outcome(0, 0),  # complete, and silent about them
    )
    assert found.standing().tolist() == [2, 3, 1, 0, 4]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_are_turned_so_that_less_is_better(sign: float) -> None:
    trial = create_trial(values=[3.0, 4.0])
    assert outcome_of(trial, (sign, 1.0)).values == (3.0 * sign, 4.0)


def pruned(attribute: Any = None, intermediate: dict[int, float] | None = None) -> optuna.trial.FrozenTrial:
    attributes = {} if attribute is None else {"rung_values": attribute}
    return create_trial(state=TrialState.PRUNED, user_attrs=attributes, intermediate_values=intermediate or {})


def test_a_pruned_trial_counts_by_its_last_rung() -> None:
    found = outcome_of(pruned({"3": [5, 6], "12": [1, 2], "6": [3, 4]}), (1.0, -1.0))
    assert found.rung == 12
    assert found.values == (1.0, -2.0)
    assert found.reports == {3: (5.0, -6.0), 12: (1.0, -2.0), 6: (3.0, -4.0)}


def test_values_that_are_no_numbers_are_the_worst_in_either_direction() -> None:
    found = outcome_of(pruned({"3": [None, "NaN"]}), (1.0, -1.0))
    assert found.values == (math.inf, math.inf)
    assert outcome_of(pruned({"3": ["Infinity", "-Infinity"]}), (1.0, -1.0)).values == (math.inf, math.inf)


@pytest.mark.parametrize("attribute", [{}, {"3": [1.0]}, {"three": [1.0, 2.0]}, {"3": 1.0}, {"3": ["much", 1]}, [1, 2]])
def test_an_attribute_that_makes_no_sense_is_no_evidence(attribute: Any) -> None:
    assert outcome_of(pruned(attribute), (1.0, 1.0)).values is None


def test_reports_of_a_killed_run_do_not_count_for_the_next_one() -> None:
    again = pruned({"3": [1, 1], "6": [2, 2]}, {3: 1.0})
    assert outcome_of(again, (1.0, 1.0)).rung == 3


def test_one_objective_falls_back_on_intermediate_values() -> None:
    found = outcome_of(pruned(intermediate={1: 5.0, 4: 3.0, 6: math.nan}), (-1.0,))
    assert (found.rung, found.values) == (4, (-3.0,))
    assert outcome_of(pruned(), (1.0,)).values is None
    assert outcome_of(pruned(intermediate={1: 5.0}), (1.0, 1.0)).values is None  # which objective would it be?


def test_failed_trials_have_no_standing() -> None:
    trial = create_trial(state=TrialState.FAIL, intermediate_values={1: 0.0})
    assert outcome_of(trial, (1.0,)).values is None


def test_the_surrogate_sees_pruned_trials_as_if_they_had_gone_on() -> None:
    # From rung 3 to the end the first objective fell by 1 and by 3: by 2 in the median. The second stood still.
    found = verdicts(
        outcome(4.0, 10.0, reports={3: (5.0, 10.0)}),
        outcome(2.0, 20.0, reports={3: (5.0, 20.0)}),
        outcome(6.0, 15.0, rung=3, reports={3: (6.0, 15.0)}),
    )
    # Of 4, 2 and 6 - 2 = 4 the least is best; of 10, 20 and 15 too.
    assert found.rewards(0).tolist() == [0.0, 1.0, 0.0]
    assert found.rewards(1).tolist() == [1.0, 0.0, 0.5]


def test_an_unjudged_trial_is_bad_but_not_the_worst() -> None:
    found = verdicts(*(outcome(value, 0.0) for value in range(11)), outcome())
    assert found.rewards(0)[:11] == pytest.approx(np.linspace(1, 0, 11))
    assert found.rewards(0)[11] == pytest.approx(0.1)


def test_without_any_judged_trial_all_are_equal() -> None:
    assert verdicts(outcome(), outcome()).rewards(1).tolist() == [0.0, 0.0]


def test_slack_counts_in_the_constraints_own_sizes() -> None:
    found = verdicts(
        outcome(0, 0, constraints={"size": 10.0}),
        outcome(0, 0, constraints={"size": -20.0}),
        outcome(0, 0, constraints={"size": -1000.0}),
        outcome(0, 0, rung=3),
    )
    # The typical size is 20; the pruned trial gets the median of -0.5, 1 and 3 (for 50, beyond the limit).
    assert found.slack().tolist() == [-0.5, 1.0, 3.0, 1.0]
