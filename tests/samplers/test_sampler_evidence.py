"""Rewards: completed, pruned and failed trials on one scale."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.evidence import Evidence, rank_rewards, rescale, rung_ranks


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE, **reports: float) -> FrozenTrial:
    frozen = optuna.create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        intermediate_values={int(rung[1:]): report for rung, report in reports.items()},
    )
    frozen.number = number
    return frozen


def rewards(trials: list[FrozenTrial], *, maximize: bool = True) -> list[float]:
    evidence = Evidence(maximize=maximize)
    for item in trials:
        evidence.add(item)
    return evidence.rewards().tolist()


def test_rescaling_by_hand() -> None:
    np.testing.assert_allclose(rescale(np.array([1.0, 3.0, 2.0])), [0, 1, 0.5])
    np.testing.assert_allclose(rescale(np.array([7.0, 7.0])), [0.5, 0.5])
    np.testing.assert_allclose(rescale(np.array([1.0, np.inf, -np.inf, 3.0, np.nan])), [0, 1, 0, 1, 0])
    np.testing.assert_allclose(rescale(np.array([np.inf, -np.inf])), [1, 0])
    assert rescale(np.empty(0)).shape == (0,)


def test_one_diverged_value_does_not_press_the_others_together() -> None:
    values = np.array([*np.linspace(0, 1, 9), -1e6])
    rescaled = rescale(values)
    assert rescaled[-1] == 0
    assert rescaled[8] - rescaled[0] > 0.2


@given(arrays(float, st.integers(1, 20), elements=st.floats(allow_nan=False)))
def test_rescaling_keeps_the_order_within_zero_and_one(values: np.ndarray) -> None:
    rescaled = rescale(values)
    assert ((rescaled >= 0) & (rescaled <= 1)).all()
    assert (np.diff(rescaled[np.argsort(values)]) >= 0).all()


def test_ranks_count_the_share_beaten() -> None:
    reported = np.array([1.0, 2.0, 2.0, 5.0])
    np.testing.assert_allclose(rung_ranks(reported, np.array([1.0, 2.0, 5.0])), [0, 0.5, 1])
    np.testing.assert_allclose(rung_ranks(np.array([1.0]), np.array([1.0])), [0.5])


def test_pruned_rewards_rise_with_the_rank_up_to_the_median() -> None:
    completed = np.array([0.0, 0.6, 1.0])
    np.testing.assert_allclose(rank_rewards(np.array([0.0, 0.5, 1.0]), completed), [0, 0.3, 0.6])
    np.testing.assert_allclose(rank_rewards(np.array([1.0]), np.empty(0)), [0.5])


@pytest.mark.parametrize("maximize", [True, False])
def test_every_state_by_hand(maximize: bool) -> None:
    sign = 1 if maximize else -1
    trials = [
        trial(0, sign * 10.0, r1=sign * 4.0),
        trial(1, sign * 20.0, r1=sign * 5.0),
        trial(2, sign * 30.0, r1=sign * 6.0),
        trial(3, None, TrialState.PRUNED, r1=sign * 4.5),  # beats one of three others
        trial(4, None, TrialState.PRUNED),
        trial(5, None, TrialState.FAIL, r1=sign * 99.0),
    ]
    np.testing.assert_allclose(rewards(trials, maximize=maximize), [0, 0.5, 1, 0.5 / 3, 0, 0])


def test_the_raw_value_of_a_pruned_trial_never_counts() -> None:
    def study(scale: float) -> list[float]:
        return rewards(
            [
                trial(0, 1.0, r1=1.0 * scale),
                trial(1, 2.0, r1=2.0 * scale),
                trial(2, None, TrialState.PRUNED, r1=1.5 * scale),
            ]
        )

    assert study(1.0) == study(1e6)


def test_a_pruned_trial_is_ranked_at_its_own_last_rung() -> None:
    trials = [
        trial(0, 1.0, r1=9.0, r2=1.0),
        trial(1, 2.0, r1=9.0, r2=2.0),
        trial(2, None, TrialState.PRUNED, r1=0.0, r2=3.0),
        trial(3, None, TrialState.PRUNED, r1=float("nan")),
    ]
    assert rewards(trials)[2:] == [0.5, 0.0]  # the median reward, and nothing for a NaN


def test_rewards_do_not_depend_on_the_order_of_arrival() -> None:
    trials = [
        trial(0, 0.1, r1=0.3),
        trial(1, 0.7, r1=0.1),
        trial(2, None, TrialState.PRUNED, r1=0.2),
        trial(3, None, TrialState.PRUNED, r1=0.05),
    ]
    expected = rewards(trials)
    assert all(rewards(list(order)) == expected for order in itertools.permutations(trials))


@pytest.mark.parametrize("maximize", [True, False])
def test_the_evidence_of_some_trials_is_as_if_there_were_no_others(maximize: bool) -> None:
    trials = [
        trial(0, 0.1, r1=0.3),
        trial(1, None, TrialState.PRUNED, r1=0.2),
        trial(2, 0.7, r1=0.1),
        trial(3, None, TrialState.FAIL),
        trial(4, 9.0, r1=-5.0),
    ]
    whole = Evidence(maximize=maximize)
    for item in trials:
        whole.add(item)
    whole.rewards()
    assert whole.of(range(4)).rewards().tolist() == rewards(trials[:4], maximize=maximize)
    assert whole.of([2, 0]).rewards().tolist() == rewards([trials[2], trials[0]], maximize=maximize)
    assert whole.rewards().tolist() == rewards(trials, maximize=maximize)


def test_what_there_is_to_warn_of_is_counted() -> None:
    evidence = Evidence(maximize=False)
    assert (evidence.failures, evidence.infinite, evidence.completed()) == (0, None, [])
    for item in (trial(4, 1.0), trial(0, float("-inf")), trial(2, None, TrialState.FAIL), trial(1, 2.0)):
        evidence.add(item)
    assert (evidence.failures, evidence.infinite, evidence.completed()) == (1, 0, [0, 1, 4])
    assert len(evidence) == 4
    assert 2 in evidence
    assert 3 not in evidence
