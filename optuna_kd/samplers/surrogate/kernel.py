"""The covariance of paths: what shared choices, shared pairs and shared beginnings say about a reward.

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
weights, the relevance r_p of each parameter, the length scales and the noise are fitted (`likelihood`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from optuna_kd.samplers.surrogate.priors import PRIORS

Array = NDArray[np.float64]

CONSTANT = 1.0  # prior variance of what all paths have in common
# By how much a standard deviation away from the middles of the ranges lowers a reward, give or take as much.
BOWL = 0.5
FAR = 1e3  # from anything, in ranges
_SQRT5 = 5.0**0.5


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

    def take(self, rows: NDArray[np.intp]) -> Inputs:
        """Keep some rows."""
        return replace(self, values=self.values[rows], branches=self.branches[rows])


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
        bowl: By how much a standard deviation away from the middles lowers a reward, a priori.
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
    bowl: float = BOWL

    @classmethod
    def typical(cls, slots: int) -> Kernel:
        """The kernel before any evidence: the middle of the priors."""
        middle = {name: float(np.exp(mean)) for name, (mean, _) in PRIORS.items()}
        return cls(
            **{name: middle[name] for name in ("main", "pair", "prefix", "noise", "full", "reach")},
            decay=float(expit(PRIORS["decay"][0])),
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
            CONSTANT
            + self.full
            + self.main * total
            + self.pair * (total**2 - squares) / 2
            + prefix
            + (self.bowl * paths.bowl()) ** 2
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
        self._places = np.where(np.isnan(fixed.values[:, self._ordered]), -FAR, fixed.values[:, self._ordered])
        self._active = ~np.isnan(fixed.values)
        self._bowl = kernel.bowl**2 * fixed.bowl()
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
            places = np.where(np.isnan(places), FAR, places)
            similar = matern(np.abs(places[:, None] - self._places[None, :, index]), kernel.length[slot])
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
        covariance += CONSTANT
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


def prior_mean(paths: Inputs, bowl: float = BOWL) -> Array:
    """Give the prior mean of each path."""
    return -bowl * paths.bowl()


def matern(distance: Array, length: float) -> Array:
    """Compute the Matérn 5/2 similarity of two numbers."""
    scaled = distance * (_SQRT5 / length)
    decay = np.exp(-scaled)
    similar = scaled * scaled
    similar /= 3
    similar += scaled
    similar += 1
    similar *= decay
    return similar


def matern_slope(distance: Array, length: float) -> Array:
    """Compute its derivative by the logarithm of the length."""
    scaled = distance * (_SQRT5 / length)
    return scaled**2 * (1 + scaled) / 3 * np.exp(-scaled)
