"""How the space shrinks towards options that do not fail: the sampling weights of UniADS.

Of each option of each parameter, its visits n and failures r are counted, and it is drawn with a probability
proportional to max(ε, (1 + n - r) / (2 + n)). The options of a number are its values where there are few, else
intervals, and their probability is also proportional to their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from optuna_kd.samplers.domains import Choices, Domain, Grid
from optuna_kd.samplers.surrogate.slots import Slot

EPSILON = 0.05  # nothing disappears for good

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """What became of the options of one parameter.

    Args:
        domain: The latest domain of the parameter.
        visits: Finished trials that took each option; [options].
        failures: Those of them that were rejected or pruned, or ended in the lower half; [options].
    """

    domain: Domain
    visits: NDArray[np.int64]
    failures: NDArray[np.int64]

    @classmethod
    def of(cls, slot: Slot, positions: Array, failed: NDArray[np.bool_]) -> Tally:
        """Count.

        Args:
            slot: The parameter.
            positions: Where each trial has it, NaN where it has not; [trials].
            failed: Which trials failed; [trials].
        """
        there = ~np.isnan(positions)
        domain = slot.domain
        children = domain.children_at(domain.nearest(positions[there]))
        count = domain.children
        visits = np.bincount(children, minlength=count)
        return cls(domain, visits, np.bincount(children, weights=failed[there], minlength=count).astype(np.int64))

    @property
    def weights(self) -> Array:
        """The weight of each option; [options]."""
        return shrunk(self.visits, self.failures)

    @cached_property
    def probabilities(self) -> Array:
        """The probability of each option; [options]."""
        weighted = self.weights * _widths(self.domain)
        return weighted / weighted.sum()

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw positions; [count]."""
        lows, highs = _ends(self.domain)
        children = np.minimum(
            np.searchsorted(np.cumsum(self.probabilities), rng.random(count), side="right"), len(lows) - 1
        )
        share = rng.random(count)
        return self.domain.nearest((1 - share) * lows[children] + share * highs[children])


def rows_of(tally: Tally, distribution: BaseDistribution) -> list[dict[str, Any]]:
    """Describe a tally as plain data.

    Args:
        tally: Of a parameter.
        distribution: Its latest distribution.
    """
    counted = zip(tally.visits.tolist(), tally.failures.tolist(), tally.weights.tolist(), strict=True)
    return [
        {"option": _name(tally.domain, option, distribution), "visits": visits, "failures": failures, "weight": weight}
        for option, (visits, failures, weight) in enumerate(counted)
    ]


def _name(domain: Domain, option: int, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[option]
    low, high = (domain.internal(domain.position(end)) for end in domain.cell(option))
    if domain.enumerable:
        return distribution.to_external_repr(low)
    return f"{low:.4g} to {high:.4g}"


def shrunk(visits: NDArray[np.int64], failures: NDArray[np.int64]) -> Array:
    """Give the weights of options by their visits and failures."""
    return np.maximum(EPSILON, (1 + visits - failures) / (2 + visits))


@lru_cache(maxsize=1024)
def _ends(domain: Domain) -> tuple[Array, Array]:
    """Give the lowest and the highest position of each option."""
    cells = [domain.cell(child) for child in range(domain.children)]
    lows, highs = (np.array([domain.position(getattr(cell, end)) for cell in cells], float) for end in ("low", "high"))
    return lows, highs


@lru_cache(maxsize=1024)
def _widths(domain: Domain) -> Array:
    """Give the probability of each option under a uniform draw, in log space for a logarithmic range."""
    count = domain.children
    if isinstance(domain, Choices):
        return np.full(count, 1 / count)
    cells = [domain.cell(child) for child in range(count)]
    if isinstance(domain, Grid):
        if domain.log:
            widths = [np.log((domain.value(cell.high) + 0.5) / (domain.value(cell.low) - 0.5)) for cell in cells]
        else:
            widths = [cell.high - cell.low + 1 for cell in cells]
    else:
        low, high = domain.bounds()
        if high <= low:
            return np.full(count, 1 / count)
        # In halves, because the width of the widest ranges overflows.
        widths = [(cell.high / 2 - cell.low / 2) / (high / 2 - low / 2) for cell in cells]
    found = np.array(widths, float)
    return found / found.sum()
