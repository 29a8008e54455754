"""Trials of several objectives in order: non-dominated ranks and crowding distances. Needs numpy alone.

Everything here minimises; negate what is to be maximised.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ParetoOrder(NamedTuple):
    """Where each trial stands: by rank, the lower the better, and within a rank by crowding, the higher the better.

    Args:
        ranks: Front of each trial, [N]; 0 is the best.
        crowding: Crowding distance of each trial within its front, [N]; infinite at the ends of a front.
    """

    ranks: Integers
    crowding: Floats


def pareto_order(values: ArrayLike, violations: ArrayLike | None = None) -> ParetoOrder:
    """Rank trials by constrained dominance, and give their crowding distances (Deb et al. 2002, NSGA-II).

    A smaller violation comes first, whatever the values; among equal violations (of all feasible trials it is 0)
    the ranks are those of non-dominated sorting. Equal trials have equal ranks and equal crowding distances.

    O(N log N) for one and two objectives, O(N²) for more.

    Args:
        values: What is minimised, [N, objectives]; infinite ones are allowed.
        violations: By how much each trial violates its constraints in total, [N]; 0 and less are feasible, and
            None is all of them.

    Raises:
        ValueError: For other shapes, and for NaN, which has no place in an order.

    Example:
        >>> pareto_order([[1, 3], [2, 2], [3, 1], [3, 3]]).ranks.tolist()
        [0, 0, 0, 1]
    """
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"values must have the shape [trials, objectives]; got {list(points.shape)}.")
    excess = np.zeros(len(points)) if violations is None else np.asarray(violations, dtype=np.float64)
    if excess.shape != (len(points),):
        raise ValueError(f"violations must have the shape [{len(points)}], as the values; got {list(excess.shape)}.")
    if np.isnan(points).any() or np.isnan(excess).any():
        raise ValueError(
            "values and violations must hold no NaN, which has no place in an order; leave such trials out."
        )
    if len(points) == 0:
        return ParetoOrder(np.zeros(0, dtype=np.int64), np.zeros(0))
    # The violation, then the objectives: whatever dominates a row stands before it.
    rows = np.column_stack([np.maximum(excess, 0), points])
    order = np.lexsort(rows.T[::-1])
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.cumsum(is_new) - 1
    distinct = rows[order[is_new]]
    ranks = _ranks(distinct[:, 0], distinct[:, 1:])
    # Paper: of two equal trials one may count as the end of the front, the other as crowded. Here: among distinct
    # trials, because equal ones are to be judged alike.
    crowding = _crowding(ranks, distinct[:, 1:])
    return ParetoOrder(ranks[place], crowding[place])


def by_knee(values: ArrayLike) -> list[int]:
    """Order the points of a front by their distance to the ideal point, the knee first.

    The ideal point has the lowest value of each objective; every objective counts from 0 to 1 over the front.

    Args:
        values: What is minimised, [N, objectives], finite; of objectives that span orders of magnitude, logarithms.

    Returns:
        The rows, the nearest first.

    Example:
        >>> by_knee([[0, 10], [1, 1], [10, 0]])
        [1, 0, 2]
    """
    points = np.asarray(values, dtype=np.float64)
    width = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
    order: list[int] = np.argsort(np.linalg.norm(scaled, axis=1), kind="stable").tolist()
    return order


def _ranks(violations: Floats, points: Floats) -> Integers:
    """Rank distinct points, sorted by violation and then by their values."""
    objectives = points.shape[1]
    if objectives == 1:
        return np.arange(len(points))
    starts = np.flatnonzero(np.append(True, violations[1:] != violations[:-1]))
    ranks = np.empty(len(points), dtype=np.int64)
    below = 0
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        group = points[start:end]
        ranks[start:end] = _sweep(group[:, 1].tolist()) if objectives == 2 else _longest_chains(group)
        ranks[start:end] += below
        below = int(ranks[start:end].max()) + 1
    return ranks


def _sweep(seconds: Sequence[float]) -> list[int]:
    # In the order of the first objective, the last point of a front has its lowest second value. A point belongs
    # to the first front whose last point does not dominate it, and these last values rise from front to front.
    lowest: list[float] = []
    ranks = []
    for second in seconds:
        front = bisect_right(lowest, second)
        lowest[front : front + 1] = [second]
        ranks.append(front)
    return ranks


def _longest_chains(points: Floats) -> Integers:
    # The front of a point is the length of the longest chain of points of which each dominates the next.
    columns = np.ascontiguousarray(points.T)[1:]  # by the first objective they are sorted
    ranks = np.zeros(len(points), dtype=np.int64)
    for index in range(1, len(points)):
        dominates = np.ones(index, dtype=bool)
        for column in columns:
            dominates &= column[:index] <= column[index]
        ranks[index] = ranks[:index][dominates].max(initial=-1) + 1
    return ranks


def _crowding(ranks: Integers, points: Floats) -> Floats:
    """Sum, over the objectives, the gaps between the neighbours of a point, relative to the width of its front."""
    crowding = np.zeros(len(points))
    for objective in range(points.shape[1]):
        others = [other for other in range(points.shape[1]) if other != objective]
        order = np.lexsort((*points[:, others].T, points[:, objective], ranks))
        column = _finite(points[:, objective])[order] / 2  # halved, so that no difference overflows
        first = np.flatnonzero(np.diff(ranks[order], prepend=-1))
        last = np.append(first[1:], len(order)) - 1
        width = np.repeat(column[last] - column[first], last - first + 1)
        gap = np.zeros(len(order))
        gap[1:-1] = column[2:] - column[:-2]
        gap[first] = gap[last] = np.inf
        # A column without width tells nobody apart.
        crowding[order] += np.divide(gap, width, out=np.zeros(len(order)), where=width > 0)
    crowding[np.bincount(ranks)[ranks] == 1] = np.inf
    return crowding


def _finite(column: Floats) -> Floats:
    """Put infinite values where the farthest finite ones are, so that they have a distance."""
    finite = column[np.isfinite(column)]
    return np.clip(column, finite.min(), finite.max()) if len(finite) else np.zeros(len(column))
