"""Which of many children is worth a trial: a surrogate for each objective, and the improvement it promises.

Two objectives: the expected hypervolume improvement over the front that the surrogates see, in closed form. One: the
expected improvement. More: the expected improvement of a random weighted Chebyshev distance, other weights for every
trial (Knowles 2006, ParEGO).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from optuna_kd.pareto import pareto_order
from optuna_kd.samplers.nsga.beliefs import SLACK, Belief, Beliefs
from optuna_kd.samplers.nsga.verdicts import Verdicts
from optuna_kd.samplers.surrogate.planner import log_augmented_improvement
from optuna_kd.samplers.surrogate.slots import PathLog, Paths

_MARGIN = 0.5  # of the width of the front: how far the reference point lies behind it
_DRAWS = 32
_LINEAR = 0.05  # weight of the sum beside the maximum: of two equal maxima the one with less else is better
_TINY = 1e-300

Array = NDArray[np.float64]


def screen_of(beliefs: Beliefs, log: PathLog, verdicts: Verdicts, running: Paths, rng: np.random.Generator) -> Screen:
    """Learn from the finished trials.

    Args:
        beliefs: The kernels so far.
        log: The paths of the trials; at least one.
        verdicts: What they are worth.
        running: The paths of unfinished trials, which count as if they had turned out as expected.
        rng: The source of all draws.
    """
    objectives = [beliefs.believe(log, verdicts, objective, running) for objective in range(verdicts.objectives)]
    allowed = beliefs.believe(log, verdicts, SLACK, running) if verdicts.constrained else None
    leading = [verdicts[n].rung == math.inf and verdicts[n].violation <= 0 for n in objectives[0].trials.tolist()]
    known = np.stack([belief.expected[leading] for belief in objectives], axis=1)
    if len(running):
        known = np.concatenate([known, np.stack([belief.predict(running)[0] for belief in objectives], axis=1)])
    weights, draws = rng.dirichlet(np.ones(len(objectives))), rng.normal(size=(_DRAWS, len(objectives)))
    return Screen(objectives, allowed, -known, weights, draws)


@dataclass(frozen=True, slots=True)
class Screen:
    """The surrogates, ready to judge children.

    Args:
        beliefs: For each objective.
        allowed: About the slack of the constraints; None: there are none.
        known: What is expected of the best trials, less is better; [leaders, objectives].
        weights: Of the objectives in the scalarisation; [objectives].
        draws: Standard normal; [draws, objectives].
    """

    beliefs: list[Belief]
    allowed: Belief | None
    known: Array
    weights: Array
    draws: Array

    def scores(self, paths: Paths) -> Array:
        """Score children: the logarithm of what they promise; [paths]."""
        predicted = [belief.predict(paths) for belief in self.beliefs]
        means = -np.stack([mean for mean, _ in predicted], axis=1)
        deviations = np.stack([deviation for _, deviation in predicted], axis=1)
        noise = np.array([belief.noise for belief in self.beliefs])
        known = self.known if len(self.known) else means
        if len(self.beliefs) == 1:
            promise = log_augmented_improvement(-means[:, 0], deviations[:, 0], -known.min(), float(noise[0]))
        else:
            if len(self.beliefs) == 2:
                front = known[pareto_order(known).ranks == 0]
                promise = expected_hypervolume_improvement(means, deviations, front, reference_of(front))
            else:
                promise = self._chebyshev_improvement(known, means, deviations)
            promise = np.log(np.maximum(promise, _TINY))
            # Huang et al. 2006, eq. 12: where both values are nearly known, another noisy look brings little.
            promise += np.log1p(-np.sqrt(noise / (noise + deviations**2)).prod(axis=1))
        if self.allowed is not None:
            slack, deviation = self.allowed.predict(paths)
            border = -self.allowed.mean / self.allowed.deviation  # a slack of 0, standardised
            promise = promise + log_ndtr((slack - border) / np.maximum(deviation, 1e-9))
        return promise

    def _chebyshev_improvement(self, known: Array, means: Array, deviations: Array) -> Array:
        ideal = known.min(axis=0)
        scale = self.weights / np.maximum(known.max(axis=0) - ideal, 1e-9)

        def distance(points: Array) -> Array:
            scaled = (points - ideal) * scale
            return scaled.max(axis=-1) + _LINEAR * scaled.sum(axis=-1)

        drawn = distance(means[None] + deviations[None] * self.draws[:, None, :])
        return np.maximum(distance(known).min() - drawn, 0.0).mean(axis=0)


def reference_of(front: Array) -> Array:
    """Give the point behind a front, by half of its width, up to which hypervolume counts; [objectives]."""
    worst, best = front.max(axis=0), front.min(axis=0)
    return worst + _MARGIN * np.maximum(worst - best, 1.0)


def expected_hypervolume_improvement(means: Array, deviations: Array, front: Array, reference: Array) -> Array:
    """Give the expected growth of the dominated area by each of some independent normal points; less is better.

    The area is cut into strips by the first objective of the front. A point (y, z) adds to a strip from a to b, free
    below h, the area (b - max(y, a))⁺ (h - z)⁺; with ψ(a) = E[(a - y)⁺], the first factor is ψ(b) - ψ(a).

    Args:
        means: Of the points; [points, 2].
        deviations: Their standard deviations, positive; [points, 2].
        front: Points that do not dominate each other; [members, 2].
        reference: Up to where the area counts; [2].
    """
    inside = front[(front < reference).all(axis=1)]
    inside = inside[np.argsort(inside[:, 0])]
    edges = np.append(inside[:, 0], reference[0])
    heights = np.append(reference[1], inside[:, 1])
    lengths = np.diff(_shortfall(edges, means[:, :1], deviations[:, :1]), axis=1, prepend=0.0)
    return (lengths * _shortfall(heights, means[:, 1:], deviations[:, 1:])).sum(axis=1)


def _shortfall(levels: Array, means: Array, deviations: Array) -> Array:
    """Give E[(level - y)⁺] of normal y; [points, levels]."""
    z = (levels[None, :] - means) / deviations
    return deviations * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))
