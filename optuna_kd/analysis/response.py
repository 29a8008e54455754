"""What any recipe of a space is worth, as far as the trials tell: functions that agree with them, drawn at random.

The surrogate is the Gaussian process of the samplers (`optuna_kd.samplers.surrogate`): branches that use the same
option share evidence, and a parameter has an effect only where it exists. Two things differ. Which parameters matter
is left more open here, for that is the question. And not the best guess is asked for, but functions drawn from all
that are plausible: where few trials went they differ, and so whatever is computed from each of them gets an interval
that says so. Far from all trials a function falls back to the mean of all; nothing is extrapolated but that effects
seen elsewhere may hold there.

The plausible functions come from several kernels, each drawn from the posterior of its weights (Laplace's
approximation in the logarithms, MacKay 1992), and several functions from each kernel: with the weights taken as known,
intervals at 50 trials hold the truth in 70 % of cases instead of 90.

The process is kept in finite features (Nyström's: covariances with some recipes, those of trials and others drawn from
the space), so that all trials count, a function is a vector of weights, and its values anywhere are a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from optuna_kd.analysis.space import Space
from optuna_kd.analysis.table import Target, TrialTable, fenced, read_table
from optuna_kd.samplers.surrogate.belief import inputs_of
from optuna_kd.samplers.surrogate.kernel import Inputs, Kernel
from optuna_kd.samplers.surrogate.likelihood import Likelihood
from optuna_kd.samplers.surrogate.posterior import JITTER
from optuna_kd.samplers.surrogate.priors import PRIORS
from optuna_kd.samplers.surrogate.slots import Paths
from optuna_kd.scales import on_scale

Array = NDArray[np.float64]

# One parameter may matter ten times as much as another. In the samplers, which must choose after ten trials, less.
_PRIORS = {**PRIORS, "relevance": (0.0, 0.7), "full": (math.log(0.1), 1.0)}
LEVEL = 0.9  # of all intervals

_KERNELS = 8
_FUNCTIONS = 32  # of each kernel
_FITTED_TO = 256  # trials at most: the cost of the fit grows with their square, and with the parameters
_FITTED_SLOTS = 15  # up to so many parameters; with more, fewer trials
_INDUCING, _ADDED = 448, 192  # recipes of trials, and of the space, that make the features
_STEP = 1e-3  # in the logarithms of the weights, for second derivatives


@dataclass(frozen=True, eq=False)
class World:
    """Some functions that agree with the trials: one kernel, several draws.

    Args:
        response: What it belongs to.
        kernel: The weights.
        anchors: The recipes that make the features.
        root: Cholesky factor of their covariance.
        weights: Of the features, one function in each column; [features, functions].
    """

    response: Response
    kernel: Kernel
    anchors: Inputs
    root: Array
    weights: Array

    def __call__(self, paths: Paths) -> Array:
        """Give the values of all functions at some recipes; [recipes, functions]."""
        return self.response.amounts(self.standard(paths)) + self.response.shift

    def standard(self, paths: Paths) -> Array:
        """Give the same in standard deviations from the mean of the trials: squares of these do not overflow."""
        _, first, which = np.unique(paths.keys, return_index=True, return_inverse=True)
        inputs = inputs_of(self.response.space.slots, paths.take(first))
        found: Array = _features(self.kernel, self.anchors, self.root, inputs) @ self.weights
        return found[which]


class Response:
    """The plausible functions behind one objective of a study.

    Args:
        table: The trials.
        objective: The column of the table to look at.
        seed: Of all draws: the same trials and the same seed give the same functions.

    Attributes:
        column: Of the objective in the table.
        space: What the trials tell of the space; those with infinite values are left out.
        values: What they are worth, in the unit of the objective (its logarithm, if it is compared by that); beyond
            three interquartile ranges from the worse quartile all are equally bad; [rows of space].
        worlds: The functions; empty where all values are the same.
        evidence: The natural logarithm of how much more probable the values are with an effect of the parameters than
            as noise alone, by the median kernel; below 0 where noise explains them better. Kernels are fitted, so it
            is a little more than a Bayes factor: of 150 studies of pure noise with 20 and 60 trials and 1 to 8
            parameters one came above 3, and the median was -3.
    """

    def __init__(self, table: TrialTable, objective: int = 0, *, seed: int = 0) -> None:
        self.objective, self.column = table.objectives[objective], objective
        self.table = table.where(np.isfinite(table.values[:, objective]))
        self.seed = seed
        self.space = Space(self.table)
        gains = _gains(self.table, objective)
        sign = 1.0 if self.objective.maximize else -1.0
        self.values = sign * fenced(gains)[self.space.rows]
        self.shift, self.scale = _moments(self.values)
        self.evidence = -math.inf
        self.worlds: tuple[World, ...] = self._draw_worlds(self.rng(0)) if self.scale > 0 else ()

    def rng(self, role: int) -> np.random.Generator:
        """Give a source of draws for a purpose, the same each time."""
        return np.random.default_rng([self.seed, role])

    def amounts(self, standard: Array) -> Array:
        """Give standard deviations of the trials in the unit of the objective; infinite beyond the largest float."""
        with np.errstate(over="ignore"):
            return np.asarray(standard) * self.scale

    def _draw_worlds(self, rng: np.random.Generator) -> tuple[World, ...]:
        seen, targets = inputs_of(self.space.slots, self.space.paths), (self.values - self.shift) / self.scale
        rows = _fitted_rows(seen, rng)
        kernels = _plausible_kernels(seen.take(rows), targets[rows], rng)
        self.evidence = _evidence(kernels, seen.take(rows), targets[rows])
        anchors = self._anchors(rng)
        return tuple(self._world(kernel, anchors, seen, targets, rng) for kernel in kernels)

    def _anchors(self, rng: np.random.Generator) -> Inputs:
        seen = self.space.paths
        _, first = np.unique(seen.keys, return_index=True)
        first = np.sort(first if len(first) <= _INDUCING else rng.choice(first, _INDUCING, replace=False))
        drawn = self.space.at(rng.random((_ADDED, len(self.space))))
        _, new = np.unique(drawn.keys, return_index=True)
        new = new[~np.isin(drawn.keys[new], seen.keys[first])]
        slots = self.space.slots
        return inputs_of(slots, seen.take(first)).joined(inputs_of(slots, drawn.take(new)))

    def _world(self, kernel: Kernel, anchors: Inputs, seen: Inputs, targets: Array, rng: np.random.Generator) -> World:
        covariance = kernel.against(anchors)(anchors)
        root = np.linalg.cholesky(covariance + JITTER * np.trace(covariance) / len(anchors) * np.eye(len(anchors)))
        features = _features(kernel, anchors, root, seen)
        # What the features do not show of a trial's value is noise to them (Snelson and Ghahramani 2006).
        unseen = np.maximum(kernel.variances(seen) - (features**2).sum(axis=1), 0.0)
        weighted = features / (kernel.noise + unseen)[:, None]
        factor = cho_factor(np.eye(len(anchors)) + weighted.T @ features, lower=True)
        drawn = rng.normal(size=(len(anchors), _FUNCTIONS))
        weights = cho_solve(factor, weighted.T @ targets)[:, None] + solve_triangular(
            factor[0], drawn, lower=True, trans=1
        )
        return World(self, kernel, anchors, root, weights)


def response_of(
    source: Study | TrialTable | Response,
    objective: int | str | None = None,
    *,
    target: Target | None = None,
    seed: int = 0,
) -> Response:
    """Fit the functions behind one objective of a study, unless that has been done.

    Args:
        source: A study, its table, or the response itself, which is given back.
        objective: Place or name; None is the only one.
        target: Instead of an objective; see `read_table`.
        seed: Of all draws.

    Raises:
        ValueError: If there is no such objective, or there are several and none is named.
    """
    if isinstance(source, Response):
        return source
    table = source if isinstance(source, TrialTable) else read_table(source, target=target)
    if objective is None and len(table.objectives) > 1:
        names = ", ".join(repr(each.name) for each in table.objectives)
        raise ValueError(f"The study {table.study_name!r} has {len(table.objectives)} objectives; name one: {names}.")
    return Response(table, table.place_of(objective or 0), seed=seed)


def interval_of(draws: Array) -> tuple[float, float]:
    """Give what nine tenths of some draws lie in."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _gains(table: TrialTable, objective: int) -> Array:
    """Give the values so that more is better, by their logarithm where they are compared by that."""
    if not table.objectives[objective].logarithmic:
        return table.gains(objective)
    logarithms = np.array([on_scale([value], [True])[0] for value in table.values[:, objective]], float)
    return logarithms if table.objectives[objective].maximize else -logarithms


def _moments(values: Array) -> tuple[float, float]:
    """Give mean and standard deviation; 0 for one that is nothing but rounding."""
    peak = float(np.abs(values).max(initial=0.0)) or 1.0
    if not len(values):
        return 0.0, 0.0
    mean, deviation = float((values / peak).mean()), float((values / peak).std())  # so that no square overflows
    return mean * peak, deviation * peak if deviation > 1e-14 else 0.0


def _fitted_rows(seen: Inputs, rng: np.random.Generator) -> NDArray[np.int64]:
    most = int(_FITTED_TO * min(1.0, math.sqrt(_FITTED_SLOTS / max(seen.values.shape[1], 1))))
    return np.arange(len(seen)) if len(seen) <= most else np.sort(rng.choice(len(seen), most, replace=False))


def _plausible_kernels(seen: Inputs, targets: Array, rng: np.random.Generator) -> list[Kernel]:
    """Draw kernels: the most probable one, and others from the normal distribution around it, in the logarithms."""
    likelihood = Likelihood(seen, targets, bowl=0.0)
    _, best = likelihood.maximise(_PRIORS)
    # In units of the prior, whose own curvature is 1: no direction is less certain than it was before the trials.
    unit = likelihood.spread
    slope = likelihood(best)[1]
    curvature = np.array([likelihood(best + _STEP * unit * axis)[1] - slope for axis in np.eye(len(best))])
    curvature *= unit / _STEP
    found, directions = np.linalg.eigh((curvature + curvature.T) / 2)
    spread = directions / np.sqrt(np.maximum(found, 1.0))
    others = [best + unit * (spread @ rng.normal(size=len(best))) for _ in range(_KERNELS - 1)]
    return [likelihood.kernel(logs) for logs in (best, *others)]


def _evidence(kernels: Sequence[Kernel], seen: Inputs, targets: Array) -> float:
    """Compare the likelihoods of the kernels with that of noise alone, of mean 0 and variance 1."""
    found = []
    for kernel in kernels:
        covariance = kernel.against(seen)(seen) + (kernel.noise + JITTER) * np.eye(len(seen))
        root = np.linalg.cholesky(covariance)
        whitened = solve_triangular(root, targets, lower=True)
        found.append(0.5 * float(targets @ targets - whitened @ whitened) - float(np.log(np.diag(root)).sum()))
    return float(np.median(found))


def _features(kernel: Kernel, anchors: Inputs, root: Array, paths: Inputs) -> Array:
    """Describe recipes by their covariances with the anchors, made independent; [recipes, features]."""
    covariance = kernel.against(anchors)(paths)
    found: Array = solve_triangular(root, covariance.T, lower=True, check_finite=False).T
    return found
