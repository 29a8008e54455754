"""The tree search of one trial: simulated walks from where it stands, scored by the surrogate instead of training.

Each simulation is a path down to a leaf. Its score is the expected improvement over the best path known,
which counts for every node on the path by maximum; selection follows the best score from child to child. The
simulated paths come from a policy: some are drawn uniformly, others differ in one option from the best paths
observed, and then, round by round, from the best paths simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from optuna_kd.samplers.surrogate.belief import Belief
from optuna_kd.samplers.surrogate.slots import Paths, Slots
from optuna_kd.samplers.surrogate.structure import Structure, Successor
from optuna_kd.samplers.tree import Step

_RANDOM = 128  # uniform simulations
_ELITE = 4  # observed paths whose neighbours are simulated
_BEAM = 3  # simulated paths whose neighbours are simulated next
_ROUNDS = 4
_OPTIONS = 12  # of one parameter among the neighbours; of longer lists, that many at random
_STEPS = np.array([0.02, 0.1, 0.1, 0.3])  # how far one number moves, in ranges
_JOINT = 32  # neighbours of each path in which several numbers move at once
_JOINT_STEPS = (0.01, 0.2)
_LAST = 1e6  # larger than any difference of two scores

Array = NDArray[np.float64]


def search(
    belief: Belief,
    structure: Structure,
    fixed: Sequence[Step],
    first: Successor,
    pinned: Mapping[int, float],
    tried: NDArray[np.uint64],
    rng: np.random.Generator,
) -> Paths:
    """Find the path to try next.

    Args:
        belief: The surrogate.
        structure: Which parameter follows which.
        fixed: The path so far.
        first: The parameter that is asked for.
        pinned: Positions of parameters to come that are decided already.
        tried: Keys of paths that need no repetition while another one is to be had.
        rng: The source of all draws.

    Returns:
        The path, in one row.
    """
    slots = belief.slots
    moving = [c for c in slots.canonical if c not in pinned and slots[c].name not in {step.name for step in fixed}]
    uniform = _uniform(slots, _RANDOM, rng)
    uniform[:, list(pinned)] = list(pinned.values())
    elite = _elite(belief)
    filled = np.where(np.isnan(elite), uniform[: len(elite)], elite)
    filled[:, list(pinned)] = list(pinned.values())
    wishes = np.concatenate([uniform, filled, _neighbours(slots, filled, ~np.isnan(elite), moving, rng)])
    best = _Pool(len(slots))
    for _ in range(_ROUNDS):
        paths = structure.walk(wishes, fixed, first)
        mean, deviation = belief.predict(paths)
        scores = log_augmented_improvement(mean, deviation, belief.expected.max(), belief.noise)
        # A repetition is the last resort: everything else that was simulated goes before it.
        scores -= _LAST * np.isin(paths.keys, tried)
        best.add(np.where(np.isnan(paths.positions), wishes, paths.positions), paths, scores)
        wishes = _neighbours(slots, best.wishes, best.active, moving, rng)
        if not len(wishes):
            break
    return best.paths.take(np.array([0]))


class _Pool:
    """The best few different paths simulated so far."""

    def __init__(self, slots: int) -> None:
        self.wishes = np.empty((0, slots))
        self.paths = Paths(np.empty((0, slots)), np.empty((0, 0), np.uint64), np.empty(0, np.uint64))
        self._scores = np.empty(0)

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which parameters each path has; [paths, slots]."""
        return ~np.isnan(self.paths.positions)

    def add(self, wishes: Array, paths: Paths, scores: Array) -> None:
        wishes = np.concatenate([self.wishes, wishes])
        paths = Paths.joined([self.paths, paths], wishes.shape[1])
        scores = np.concatenate([self._scores, scores])
        order = np.argsort(-scores, kind="stable")
        _, firsts = np.unique(paths.keys[order], return_index=True)
        kept = order[np.sort(firsts)[:_BEAM]]
        self.wishes, self.paths, self._scores = wishes[kept], paths.take(kept), scores[kept]


def log_augmented_improvement(mean: Array, deviation: Array, best: float, noise: float) -> Array:
    """Logarithm of the augmented expected improvement (Huang et al. 2006, eq. 12), without underflow.

    E[max(f - best, 0)] · (1 - √(noise / (noise + deviation²))): where the noise-free reward f is nearly known,
    another noisy observation brings little.

    Args:
        mean: Of the noise-free reward; any shape.
        deviation: Its standard deviation; the same shape.
        best: The highest posterior mean of a path observed.
        noise: Variance of one observation.
    """
    z = (mean - best) / deviation
    with np.errstate(divide="ignore"):
        near = np.log(np.maximum(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi) + z * ndtr(z), 1e-300))
    far = -0.5 * z * z - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-z, 1.0))
    return np.log(deviation) + np.where(z > -10, near, far) + np.log1p(-np.sqrt(noise / (noise + deviation**2)))


def _uniform(slots: Slots, count: int, rng: np.random.Generator) -> Array:
    wishes = np.empty((count, len(slots)))
    for column in slots.canonical:
        low, high = slots[column].domain.bounds()
        share = rng.random(count)
        if slots[column].is_categorical:
            wishes[:, column] = np.floor(share * (high + 1))
        else:
            wishes[:, column] = (1 - share) * low + share * high
    return wishes


def _elite(belief: Belief) -> Array:
    """Give the observed paths with the highest posterior means; [paths, slots]."""
    order = np.argsort(-belief.expected, kind="stable")
    _, firsts = np.unique(belief.seen.keys[order], return_index=True)
    positions = belief.seen.positions[order[np.sort(firsts)[:_ELITE]]]
    return np.pad(positions, ((0, 0), (0, len(belief.slots) - positions.shape[1])), constant_values=np.nan)


def _neighbours(
    slots: Slots, wishes: Array, active: NDArray[np.bool_], moving: Sequence[int], rng: np.random.Generator
) -> Array:
    """Change each path: one parameter in every way that is tried, or several numbers at once; [neighbours, slots]."""
    blocks = [np.empty((0, len(slots)))]
    numbers = []
    for column in moving:
        rows = wishes[active[:, column]]
        low, high = slots[column].domain.bounds()
        if not len(rows) or low == high:
            continue
        if slots[column].is_categorical:
            choices = int(high) + 1
            options = np.arange(choices) if choices <= _OPTIONS else rng.integers(choices, size=_OPTIONS)
            block = np.repeat(rows, len(options), axis=0)
            block[:, column] = np.tile(options, len(rows))
        else:
            numbers.append(column)
            block = np.repeat(rows, len(_STEPS), axis=0)
            block[:, column] = _moved(slots, column, block, rng.normal(size=len(block)) * np.tile(_STEPS, len(rows)))
        blocks.append(block)
    if len(numbers) > 1:
        block = np.repeat(wishes, _JOINT, axis=0)
        low, high = _JOINT_STEPS
        steps = np.exp(rng.uniform(math.log(low), math.log(high), size=len(block)))
        for column in numbers:
            moves = steps * rng.normal(size=len(block)) * (rng.random(len(block)) < 0.5)
            block[:, column] = _moved(slots, column, block, moves)
        blocks.append(block)
    return np.concatenate(blocks)


def _moved(slots: Slots, column: int, rows: Array, moves: Array) -> Array:
    """Move the positions of one number by shares of its range, not beyond its ends; [paths]."""
    low, high = slots[column].domain.bounds()
    with np.errstate(over="ignore"):  # the widest ranges: infinity is cut off like anything beyond the ends
        return np.clip(rows[:, column] + moves * high - moves * low, low, high)
