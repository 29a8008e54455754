"""Pareto ranks and crowding distances: by hand, against a slow reference, and their properties."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_kd.pareto import pareto_order

INF = math.inf


@pytest.mark.parametrize(
    ("values", "ranks"),
    [
        ([[1, 1]], [0]),
        ([[1, 3], [2, 2], [3, 1]], [0, 0, 0]),
        ([[1, 3], [2, 2], [3, 1], [3, 3], [2, 3], [4, 4]], [0, 0, 0, 2, 1, 3]),
        ([[1, 2], [1, 3], [0, 3]], [0, 1, 0]),  # equal in one objective, worse in the other: dominated
        ([[1, 1], [2, 2], [1, 1], [2, 2]], [0, 1, 0, 1]),  # equal trials have equal ranks
        ([[-INF, 5], [5, INF], [0, 0], [INF, INF]], [0, 1, 0, 2]),
        ([[0.0, -0.0], [-0.0, 0.0]], [0, 0]),
        ([[3], [1], [2], [1]], [2, 0, 1, 0]),  # one objective: the order of the values
        ([[1, 1, 2], [1, 2, 1], [2, 1, 1], [2, 2, 2], [1, 1, 3]], [0, 0, 0, 1, 1]),
        ([[1, 1, 1], [2, 2, 2], [3, 3, 3]], [0, 1, 2]),
    ],
)
def test_ranks_by_hand(values: list[list[float]], ranks: list[int]) -> None:
    assert pareto_order(values).ranks.tolist() == ranks


@pytest.mark.parametrize(
    ("values", "crowding"),
    [
        ([[7, 7]], [INF]),
        ([[0, 10], [10, 0]], [INF, INF]),
        # (6 - 0)/10 + (10 - 3)/10, and (10 - 2)/10 + (8 - 0)/10
        ([[0, 10], [2, 8], [6, 3], [10, 0]], [INF, 1.3, 1.6, INF]),
        ([[0, 10], [2, 8], [2, 8], [6, 3], [10, 0]], [INF, 1.3, 1.3, 1.6, INF]),  # equal trials count once
        ([[0, 1], [1, 0], [5, 6], [6, 5], [5.5, 5.5]], [INF, INF, INF, INF, 2.0]),  # each front by itself
        ([[1], [2], [2], [3]], [INF, INF, INF, INF]),  # one objective: fronts of one value
        ([[0, INF], [1, 8], [2, 4], [3, 0]], [INF, 2 / 3 + 0.5, 2 / 3 + 1.0, INF]),  # as if the infinite were 8
    ],
)
def test_crowding_by_hand(values: list[list[float]], crowding: list[float]) -> None:
    assert pareto_order(values).crowding.tolist() == pytest.approx(crowding)


@pytest.mark.parametrize(
    ("violations", "ranks"),
    [
        (None, [0, 1, 0]),
        ([0, 0, 0], [0, 1, 0]),
        ([-1, -5, 0], [0, 1, 0]),  # satisfied with room to spare is satisfied
        ([1, 0, 0], [2, 1, 0]),  # behind all that are feasible
        ([2, 0, 1], [2, 0, 1]),  # by violation, whatever the values
        ([1, 1, 1], [0, 1, 0]),  # equal violations: by dominance
        ([INF, 0, 2], [2, 0, 1]),
        ([INF, INF, 0], [1, 2, 0]),
    ],
)
def test_violations_by_hand(violations: list[float] | None, ranks: list[int]) -> None:
    assert pareto_order([[1, 3], [3, 3], [3, 1]], violations).ranks.tolist() == ranks


@pytest.mark.parametrize(
    ("values", "violations", "message"),
    [
        ([1, 2, 3], None, r"values must have the shape \[trials, objectives\]; got \[3\]"),
        (np.zeros((3, 0)), None, r"got \[3, 0\]"),
        ([[1, 2], [3, 4]], [0], r"violations must have the shape \[2\], as the values; got \[1\]"),
        ([[1, math.nan]], None, "no NaN"),
        ([[1, 2]], [math.nan], "no NaN"),
    ],
)
def test_what_has_no_order(values: Any, violations: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pareto_order(values, violations)


def test_no_trials_have_an_order() -> None:
    ranks, crowding = pareto_order(np.zeros((0, 2)))
    assert ranks.shape == crowding.shape == (0,)


def slow_ranks(values: np.ndarray, violations: np.ndarray) -> list[int]:
    """Peel fronts off, each what is dominated by nothing that is left."""

    def dominates(a: int, b: int) -> bool:
        if violations[a] != violations[b]:
            return bool(violations[a] < violations[b])
        return bool((values[a] <= values[b]).all() and (values[a] < values[b]).any())

    ranks = [-1] * len(values)
    left = set(range(len(values)))
    for rank in range(len(values)):
        front = {b for b in left if not any(dominates(a, b) for a in left)}
        for index in front:
            ranks[index] = rank
        left -= front
    return ranks


def slow_crowding(values: np.ndarray, ranks: list[int]) -> list[float]:
    """Deb et al. 2002, crowding-distance-assignment, for two objectives, on the distinct points of each front."""
    crowding = [0.0] * len(values)
    for rank in set(ranks):
        members = [index for index in range(len(values)) if ranks[index] == rank]
        for objective in (0, 1):
            column = sorted({values[index][objective] for index in members})
            for index in members:
                place = column.index(values[index][objective])
                if place in (0, len(column) - 1):
                    crowding[index] = INF
                else:
                    crowding[index] += (column[place + 1] - column[place - 1]) / (column[-1] - column[0])
    return crowding


@st.composite
def trials(draw: st.DrawFn, objectives: tuple[int, ...] = (1, 2, 3, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Few different values, so that ties are common."""
    count, columns = draw(st.integers(1, 25)), draw(st.sampled_from(objectives))
    value = st.one_of(st.integers(-4, 4), st.sampled_from([-INF, INF, 0.5]))
    values = draw(st.lists(st.lists(value, min_size=columns, max_size=columns), min_size=count, max_size=count))
    violations = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2.5, INF]), min_size=count, max_size=count))
    return np.array(values, dtype=float), np.array(violations, dtype=float)


@settings(max_examples=200, deadline=None)
@given(trials())
def test_ranks_agree_with_the_slow_reference(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, violations = case
    assert pareto_order(values, violations).ranks.tolist() == slow_ranks(values, violations)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=30))
def test_crowding_agrees_with_the_slow_reference(points: list[tuple[int, int]]) -> None:
    values = np.array(points, dtype=float)
    order = pareto_order(values)
    assert order.crowding.tolist() == pytest.approx(slow_crowding(values, order.ranks.tolist()))


@settings(max_examples=100, deadline=None)
@given(trials(), st.randoms(use_true_random=False))
def test_the_order_of_the_trials_does_not_matter(case: tuple[np.ndarray, np.ndarray], random: Any) -> None:
    values, violations = case
    shuffled = random.sample(range(len(values)), len(values))
    before, after = pareto_order(values, violations), pareto_order(values[shuffled], violations[shuffled])
    assert before.ranks[shuffled].tolist() == after.ranks.tolist()
    assert before.crowding[shuffled].tolist() == after.crowding.tolist()


@settings(max_examples=100, deadline=None)
@given(trials(), st.sampled_from([np.arctan, np.cbrt, lambda x: 3 * x - 7]))
def test_the_scale_of_an_objective_does_not_matter_for_ranks(case: tuple[np.ndarray, np.ndarray], rising: Any) -> None:
    values, violations = case
    bent = values.copy()
    bent[:, -1] = rising(bent[:, -1])
    assert pareto_order(bent, violations).ranks.tolist() == pareto_order(values, violations).ranks.tolist()


@settings(max_examples=100, deadline=None)
@given(trials())
def test_equal_trials_stand_in_the_same_place(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, violations = case
    single = pareto_order(values, violations)
    double = pareto_order(np.concatenate([values, values]), np.concatenate([violations, violations]))
    assert double.ranks.tolist() == single.ranks.tolist() * 2
    assert double.crowding.tolist() == single.crowding.tolist() * 2
    assert not np.isnan(double.crowding).any()


@pytest.mark.parametrize("kind", ["cloud", "one front", "one chain"])
def test_ten_thousand_trials_take_no_time(kind: str) -> None:
    line = np.arange(10_000.0)
    values = {
        "cloud": np.random.default_rng(0).random((10_000, 2)),
        "one front": np.column_stack([line, -line]),
        "one chain": np.column_stack([line, line]),
    }[kind]
    took = []
    for _ in range(3):
        start = time.perf_counter()
        pareto_order(values)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.1
