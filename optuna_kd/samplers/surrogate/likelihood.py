"""The fit of the covariance: the most probable weights for what was observed, for each kind of space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from optuna_kd.samplers.surrogate.kernel import BOWL, CONSTANT, FAR, Inputs, Kernel, matern, matern_slope, prior_mean
from optuna_kd.samplers.surrogate.posterior import JITTER
from optuna_kd.samplers.surrogate.priors import KINDS, PRIORS, Priors

Array = NDArray[np.float64]

_ITERATIONS = 30
_SCALARS = ("main", "pair", "prefix", "noise", "decay", "full", "reach")


def fit(seen: Inputs, rewards: Array) -> Kernel:
    """Find the most probable kernel: maximum a posteriori by L-BFGS with exact gradients, for each kind of space.

    Args:
        seen: Observed paths; [observations].
        rewards: Mean 0 and variance 1; [observations].
    """
    likelihood = Likelihood(seen, rewards)
    best = min((likelihood.maximise(kind) for kind in KINDS), key=lambda found: found[0])
    return likelihood.kernel(best[1])


class Likelihood:
    """Negative log posterior of the logarithms of a kernel's weights, and its gradient.

    Args:
        seen: Observed paths; [observations].
        rewards: Mean 0 and variance 1; [observations].
        bowl: That of the kernel, which is given, not fitted.
    """

    def __init__(self, seen: Inputs, rewards: Array, bowl: float = BOWL) -> None:
        count, slots = seen.values.shape
        self.bowl = bowl
        self.rewards, self.count, self.slots = rewards - prior_mean(seen, bowl), count, slots
        self.constant = CONSTANT + bowl**2 * np.outer(seen.bowl(), seen.bowl())
        self.ordered = [int(slot) for slot in np.flatnonzero(seen.ordered)]
        self.distances, self.same = {}, np.zeros((slots, count, count))
        for slot in range(slots):
            column = seen.values[:, slot]
            if seen.ordered[slot]:
                there = ~np.isnan(column)
                distance = np.abs(column[:, None] - column[None, :])
                self.distances[slot] = np.where(there[:, None] & there[None, :], distance, FAR)
            else:
                self.same[slot] = column[:, None] == column[None, :]
        branches = seen.branches.T
        self.shared = (branches[:, :, None] == branches[:, None, :]) & (branches[:, :, None] != 0)
        self.shared = self.shared.reshape(len(branches), count * count).astype(float)
        active = ~np.isnan(seen.values.T)
        self.either = (active[:, :, None] | active[:, None, :]).reshape(slots, count * count).astype(float)
        self.depths = np.arange(len(branches))
        self.names = [*_SCALARS, *["relevance"] * slots, *["length"] * len(self.ordered)]
        self.use(PRIORS)

    def use(self, priors: Priors) -> None:
        """Set the priors."""
        self.middle, self.spread = np.array([priors[name] for name in self.names]).T

    def maximise(self, priors: Priors) -> tuple[float, Array]:
        """Give the loss under some priors, comparable between priors, and the logarithms that reach it."""
        self.use(priors)
        best = minimize(self, self.middle, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
        return float(best.fun + np.log(self.spread).sum()), best.x if np.isfinite(best.fun) else self.middle

    def kernel(self, logs: Array) -> Kernel:
        """Read a kernel off the logarithms of its weights."""
        main, pair, prefix, noise, _, full, reach = np.exp(logs[: len(_SCALARS)]).tolist()
        length = np.ones(self.slots)
        length[self.ordered] = np.exp(logs[len(_SCALARS) + self.slots :])
        relevance = np.exp(logs[len(_SCALARS) : len(_SCALARS) + self.slots])
        return Kernel(main, pair, prefix, float(expit(logs[4])), noise, full, reach, relevance, length, self.bowl)

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """Give the negative log posterior and its gradient."""
        k, count = self.kernel(logs), self.count
        similar, slopes = self.same.copy() if self.ordered else self.same, {}
        for slot in self.ordered:
            similar[slot] = matern(self.distances[slot], k.length[slot])
            slopes[slot] = matern_slope(self.distances[slot], k.length[slot])
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
        matrix[np.diag_indices(count)] += k.noise + JITTER
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
