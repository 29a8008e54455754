"""A Gaussian process over paths: what shared choices, shared pairs and shared beginnings say about a reward.

The covariance of two paths, with κ_p = 1 for the same choice of parameter p, a Matérn 5/2 similarity for two
numbers, and 0 where one of the paths has no such parameter:

    constant + main · Σ_p r_p κ_p + pair · Σ_{p<q} r_p κ_p r_q κ_q + prefix · Σ_d decay^d [same branch to depth d]
    + full · exp(-Σ_p r_p δ_p / reach)
    + bowl² · b b'

with δ_p = 1 - κ_p, or 1 where only one of the paths has the parameter, for whole recipes can be good as their parts
do not explain; and b how far the numbers of a path are from the middles of their ranges. The mean is -bowl · b:
people choose ranges around what they expect to be good, and without that the process, most uncertain in the corners
of a space, spends its first trials there.

The first sums share evidence between branches that use the same option; the last tells branches apart. All
weights, the relevance r_p of each parameter, the length scales and the noise are the most probable ones
(maximum a posteriori) under log-normal priors for rewards of variance 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

Array = NDArray[np.float64]

_CONSTANT = 1.0  # prior variance of what all paths have in common
_JITTER = 1e-6
_ITERATIONS = 30
_BOWL = (
    0.5  # by how much a standard deviation away from the middles of the ranges lowers a reward, give or take as much
)
_FAR = 1e3  # from anything, in ranges
_SQRT5 = 5.0**0.5

# Priors: mean and standard deviation of the logarithm (of the logit, for `decay`).
Priors = Mapping[str, tuple[float, float]]
_PRIORS: Priors = {
    "main": (np.log(0.05), 1.5),
    "pair": (np.log(0.007), 1.5),
    "prefix": (np.log(0.06), 1.5),
    "noise": (np.log(0.1), 1.0),
    "decay": (1.4, 0.7),
    "full": (np.log(0.4), 1.0),
    "reach": (np.log(1.5), 0.5),
    "relevance": (0.0, 0.4),
    "length": (np.log(0.25), 0.5),
}
# What a space may be like. With few trials wide priors alone leave it open, and cost a tenth of a standard
# deviation on landscapes of one kind or the other: each kind is fitted, and the more probable one is taken.
_KINDS: tuple[Priors, ...] = (
    {  # options and their pairs count, wherever in the tree
        **_PRIORS,
        "main": (np.log(0.06), 0.7),
        "pair": (np.log(0.01), 0.7),
        "prefix": (np.log(0.005), 0.7),
    },
    {  # branches count
        **_PRIORS,
        "main": (np.log(0.04), 0.7),
        "pair": (np.log(0.001), 1.0),
        "prefix": (np.log(0.24), 0.7),
        "decay": (0.6, 0.4),
    },
)
_SCALARS = ("main", "pair", "prefix", "noise", "decay", "full", "reach")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Paths as the process sees them.

    Args:
        values: The number of a choice, or a place in [0, 1]; NaN where a path lacks the parameter; [paths, slots].
        ordered: Which parameters are places; [slots].
        branches: A number for each beginning, 0 beyond the end; [paths, depths].
    """

    values: Array
    ordered: NDArray[np.bool_]
    branches: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.values)

    def bowl(self) -> Array:
        """Tell how far from the middles of their ranges the numbers are: b, of mean 0 and variance 1; [paths]."""
        places = self.values[:, self.ordered]
        away = np.where(np.isnan(places), 0.0, (2 * places - 1) ** 2 - 1 / 3)
        return away.sum(axis=1) / np.sqrt(4 / 45 * max(places.shape[1], 1))

    def joined(self, other: Inputs) -> Inputs:
        """Append other paths over the same parameters."""
        depth = max(self.branches.shape[1], other.branches.shape[1])
        widened = [np.pad(x.branches, ((0, 0), (0, depth - x.branches.shape[1]))) for x in (self, other)]
        return replace(self, values=np.concatenate([self.values, other.values]), branches=np.concatenate(widened))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The weights of the covariance.

    Args:
        main: Variance of a term of the first sum.
        pair: Of a term of the second.
        prefix: Of the first term of the third.
        decay: By how much the prefix term shrinks from one depth to the next; in (0, 1).
        noise: Variance of one observation.
        full: Variance of the term that looks at whole recipes.
        reach: In how many differing parameters it falls by a factor e.
        relevance: r_p; [slots].
        length: Length scale of each ordered parameter, in ranges; [slots].
    """

    main: float
    pair: float
    prefix: float
    decay: float
    noise: float
    full: float
    reach: float
    relevance: Array
    length: Array

    @classmethod
    def typical(cls, slots: int) -> Kernel:
        """The kernel before any evidence: the middle of the priors."""
        middle = {name: float(np.exp(mean)) for name, (mean, _) in _PRIORS.items()}
        return cls(
            **{name: middle[name] for name in ("main", "pair", "prefix", "noise", "full", "reach")},
            decay=float(expit(_PRIORS["decay"][0])),
            relevance=np.full(slots, middle["relevance"]),
            length=np.full(slots, middle["length"]),
        )

    def variances(self, paths: Inputs) -> Array:
        """Prior variance of each path; [paths]."""
        active = ~np.isnan(paths.values)
        total, squares = active @ self.relevance, active @ self.relevance**2
        weights = self.decay ** np.arange(paths.branches.shape[1])
        prefix = self.prefix * ((paths.branches != 0) @ weights)
        return (
            _CONSTANT
            + self.full
            + self.main * total
            + self.pair * (total**2 - squares) / 2
            + prefix
            + (_BOWL * paths.bowl()) ** 2
        )

    def against(self, paths: Inputs) -> Covariance:
        """Prepare the covariances of other paths with these."""
        return Covariance(self, paths)


class Covariance:
    """Covariances of any paths with some fixed ones; what can be computed once, is.

    Args:
        kernel: The weights.
        fixed: The fixed paths.
    """

    def __init__(self, kernel: Kernel, fixed: Inputs) -> None:
        self.kernel, self.fixed = kernel, fixed
        self._ordered = np.flatnonzero(fixed.ordered)
        self._levels: list[tuple[int, Array, int]] = []  # slot, its choices among the fixed paths, first column
        columns: list[Array] = []
        for slot in np.flatnonzero(~fixed.ordered).tolist():
            column = fixed.values[:, slot]
            levels = np.unique(column[~np.isnan(column)])
            if len(levels):
                self._levels.append((slot, levels, len(columns)))
                relevance = kernel.relevance[slot]
                for level in levels:
                    same = column == level
                    columns.append(np.concatenate([relevance * same, relevance**2 * same]))
        self._shared_choices = np.array(columns).reshape(len(columns), 2 * len(fixed))
        self._places = np.where(np.isnan(fixed.values[:, self._ordered]), -_FAR, fixed.values[:, self._ordered])
        self._active = ~np.isnan(fixed.values)
        self._bowl = _BOWL**2 * fixed.bowl()
        # Each branch of the fixed paths, one path that takes it, and how deep any two paths go together.
        there = fixed.branches != 0
        self._branches, first = np.unique(fixed.branches[there], return_index=True)
        self._taken_by = np.nonzero(there)[0][first]
        self._together = np.zeros((len(fixed), len(fixed)), np.int16)
        for depth in range(fixed.branches.shape[1]):
            column = np.where(there[:, depth], fixed.branches[:, depth], np.arange(len(fixed), dtype=np.uint64))
            self._together += column[:, None] == column[None, :]
        steps = np.concatenate([[0.0], kernel.decay ** np.arange(fixed.branches.shape[1])])
        self._weights = kernel.prefix * np.cumsum(steps)

    def __call__(self, paths: Inputs) -> Array:
        """Compute the covariances; [paths, fixed]."""
        kernel, count = self.kernel, len(self.fixed)
        chosen = np.zeros((len(paths), len(self._shared_choices)))
        rows = np.arange(len(paths))
        for slot, levels, first in self._levels:
            column = paths.values[:, slot]
            place = np.minimum(np.searchsorted(levels, column), len(levels) - 1)
            chosen[rows, first + place] = levels[place] == column
        sums = chosen @ self._shared_choices
        total, squares = sums[:, :count], sums[:, count:]
        for index, slot in enumerate(self._ordered.tolist()):
            # Paths that differ in another parameter share this one's values: the exponentials are few.
            places, which = np.unique(paths.values[:, slot], return_inverse=True)
            places = np.where(np.isnan(places), _FAR, places)
            similar = _matern(np.abs(places[:, None] - self._places[None, :, index]), kernel.length[slot])
            similar *= kernel.relevance[slot]
            total += similar[which]
            similar *= similar
            squares += similar[which]
        active = ~np.isnan(paths.values)
        shared = (active * kernel.relevance) @ self._active.T
        alike = total - (active @ kernel.relevance)[:, None] - (self._active @ kernel.relevance)[None, :] + shared
        alike /= kernel.reach
        np.exp(alike, out=alike)
        covariance = total * total
        covariance -= squares
        covariance *= kernel.pair / 2
        covariance += kernel.main * total
        alike *= kernel.full
        covariance += alike
        covariance += _CONSTANT
        covariance += np.outer(paths.bowl(), self._bowl)
        if len(self._branches) and paths.branches.shape[1]:
            covariance += self._shared_branches(paths)
        return covariance

    def _shared_branches(self, paths: Inputs) -> Array:
        """Weigh the depth down to which paths share their branch with the fixed ones; [paths, fixed]."""
        branches = paths.branches
        place = np.minimum(np.searchsorted(self._branches, branches), len(self._branches) - 1)
        depths = ((self._branches[place] == branches) & (branches != 0)).sum(axis=1)  # all above it is shared too
        leaving = place[np.arange(len(branches)), np.maximum(depths - 1, 0)]
        together = self._together[self._taken_by[leaving]]
        return self._weights[np.minimum(together, depths[:, None])]


class Posterior:
    """What is known about any path after some observations.

    Args:
        kernel: The weights.
        seen: The observed paths; [observations].
        rewards: What was observed, with mean 0 and variance 1; [observations].

    Raises:
        numpy.linalg.LinAlgError: Never with finite rewards: the noise keeps the matrix positive.
    """

    def __init__(self, kernel: Kernel, seen: Inputs, rewards: Array) -> None:
        self.kernel = kernel
        self._covariance = kernel.against(seen)
        covariance = self._covariance(seen)
        matrix = covariance + (kernel.noise + _JITTER) * np.eye(len(seen))
        factor = np.linalg.cholesky(matrix)
        root = solve_triangular(factor, np.eye(len(seen)), lower=True, check_finite=False)
        self._precision = root.T @ root
        self._weights = self._precision @ (rewards - _mean(seen))
        self.expected = _mean(seen) + covariance @ self._weights  # posterior means of the observed paths

    def __call__(self, paths: Inputs) -> tuple[Array, Array]:
        """Give mean and standard deviation of the noise-free reward of each path; [paths] each."""
        covariance = self._covariance(paths)
        explained = np.einsum("ij,ij->i", covariance @ self._precision, covariance)
        variance = self.kernel.variances(paths) - explained
        return _mean(paths) + covariance @ self._weights, np.sqrt(np.maximum(variance, 1e-12))


def fit(seen: Inputs, rewards: Array) -> Kernel:
    """Find the most probable kernel: maximum a posteriori by L-BFGS with exact gradients, for each kind of space.

    Args:
        seen: Observed paths; [observations].
        rewards: Mean 0 and variance 1; [observations].
    """
    likelihood = _Likelihood(seen, rewards)
    best = min((likelihood.maximise(kind) for kind in _KINDS), key=lambda found: found[0])
    return likelihood.kernel(best[1])


class _Likelihood:
    """Negative log posterior of the logarithms of a kernel's weights, and its gradient."""

    def __init__(self, seen: Inputs, rewards: Array) -> None:
        count, slots = seen.values.shape
        self.rewards, self.count, self.slots = rewards - _mean(seen), count, slots
        self.constant = _CONSTANT + _BOWL**2 * np.outer(seen.bowl(), seen.bowl())
        self.ordered = [int(slot) for slot in np.flatnonzero(seen.ordered)]
        self.distances, self.same = {}, np.zeros((slots, count, count))
        for slot in range(slots):
            column = seen.values[:, slot]
            if seen.ordered[slot]:
                there = ~np.isnan(column)
                distance = np.abs(column[:, None] - column[None, :])
                self.distances[slot] = np.where(there[:, None] & there[None, :], distance, _FAR)
            else:
                self.same[slot] = column[:, None] == column[None, :]
        branches = seen.branches.T
        self.shared = (branches[:, :, None] == branches[:, None, :]) & (branches[:, :, None] != 0)
        self.shared = self.shared.reshape(len(branches), count * count).astype(float)
        active = ~np.isnan(seen.values.T)
        self.either = (active[:, :, None] | active[:, None, :]).reshape(slots, count * count).astype(float)
        self.depths = np.arange(len(branches))
        self.names = [*_SCALARS, *["relevance"] * slots, *["length"] * len(self.ordered)]
        self.use(_PRIORS)

    def use(self, priors: Priors) -> None:
        self.middle, self.spread = np.array([priors[name] for name in self.names]).T

    def maximise(self, priors: Priors) -> tuple[float, Array]:
        """Give the loss under some priors, comparable between priors, and the logarithms that reach it."""
        self.use(priors)
        best = minimize(self, self.middle, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
        return float(best.fun + np.log(self.spread).sum()), best.x if np.isfinite(best.fun) else self.middle

    def kernel(self, logs: Array) -> Kernel:
        main, pair, prefix, noise, _, full, reach = np.exp(logs[: len(_SCALARS)]).tolist()
        length = np.ones(self.slots)
        length[self.ordered] = np.exp(logs[len(_SCALARS) + self.slots :])
        relevance = np.exp(logs[len(_SCALARS) : len(_SCALARS) + self.slots])
        return Kernel(main, pair, prefix, float(expit(logs[4])), noise, full, reach, relevance, length)

    def __call__(self, logs: Array) -> tuple[float, Array]:
        k, count = self.kernel(logs), self.count
        similar, slopes = self.same.copy() if self.ordered else self.same, {}
        for slot in self.ordered:
            similar[slot] = _matern(self.distances[slot], k.length[slot])
            slopes[slot] = _matern_slope(self.distances[slot], k.length[slot])
        flat = similar.reshape(self.slots, -1)
        total = (k.relevance @ flat).reshape(count, count)
        pairs = (total**2 - (k.relevance**2 @ flat**2).reshape(count, count)) / 2
        decays = k.decay**self.depths
        apart = (k.relevance @ (self.either - flat)).reshape(count, count) / k.reach
        whole = k.full * np.exp(-apart)
        matrix = (
            self.constant + k.main * total + k.pair * pairs + k.prefix * (decays @ self.shared).reshape(count, count)
        )
        matrix += whole
        matrix[np.diag_indices(count)] += k.noise + _JITTER
        try:
            factor = cho_factor(matrix, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(logs)
        precision = cho_solve(factor, np.eye(count), check_finite=False)
        weights = precision @ self.rewards
        loss = 0.5 * self.rewards @ weights + np.log(np.diag(factor[0])).sum()

        by_matrix = 0.5 * (precision - np.outer(weights, weights))  # ∂loss/∂matrix
        by_total = by_matrix * total
        by_depth = self.shared @ by_matrix.ravel()
        gradient = np.empty_like(logs)
        gradient[0] = k.main * by_total.sum()
        gradient[1] = k.pair * (by_matrix * pairs).sum()
        gradient[2] = k.prefix * (decays @ by_depth)
        gradient[3] = k.noise * np.trace(by_matrix)
        by_whole = by_matrix * whole
        gradient[5] = by_whole.sum()
        gradient[6] = (by_whole * apart).sum()
        gradient[4] = k.prefix * (1 - k.decay) * ((self.depths * decays) @ by_depth)
        alone, crossed, squared = flat @ by_matrix.ravel(), flat @ by_total.ravel(), flat**2 @ by_matrix.ravel()
        differing = (self.either - flat) @ by_whole.ravel() / k.reach
        first = len(_SCALARS)
        gradient[first : first + self.slots] = k.relevance * (
            k.main * alone + k.pair * (crossed - k.relevance * squared) - differing
        )
        for index, slot in enumerate(self.ordered):
            relevance = k.relevance[slot]
            by_similar = k.main * by_matrix + k.pair * (by_total - relevance * by_matrix * similar[slot])
            by_similar += by_whole / k.reach
            gradient[first + self.slots + index] = relevance * (by_similar * slopes[slot]).sum()
        away = (logs - self.middle) / self.spread
        return loss + 0.5 * away @ away, gradient + away / self.spread


def _mean(paths: Inputs) -> Array:
    """Give the prior mean of each path."""
    return -_BOWL * paths.bowl()


def _matern(distance: Array, length: float) -> Array:
    """Matérn 5/2."""
    scaled = distance * (_SQRT5 / length)
    decay = np.exp(-scaled)
    similar = scaled * scaled
    similar /= 3
    similar += scaled
    similar += 1
    similar *= decay
    return similar


def _matern_slope(distance: Array, length: float) -> Array:
    """Its derivative by the logarithm of the length."""
    scaled = distance * (_SQRT5 / length)
    return scaled**2 * (1 + scaled) / 3 * np.exp(-scaled)


def standardised(rewards: Sequence[float] | Array) -> tuple[Array, float, float]:
    """Shift and scale to mean 0 and variance 1; returns the result, the mean and the standard deviation."""
    values = np.asarray(rewards, float)
    mean, deviation = float(values.mean()), float(values.std())
    deviation = deviation if deviation > 1e-12 else 1.0
    return (values - mean) / deviation, mean, deviation
