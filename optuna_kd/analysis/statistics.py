"""Is it real? Paired tests over seeds, and what so many seeds can detect at all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """One method against another, seed by seed.

    Args:
        other: What it is compared with.
        difference: Mean of the paired differences, in the unit of the values.
        sd: Standard deviation of the differences.
        n: Pairs.
        p_value: Two-sided paired t-test.
        adjusted: The same after Holm's correction for all comparisons made.
        detectable: The smallest true difference that n pairs with this sd show with a power of 80 %, at the
            strictest level of the correction; infinite where the values show no spread.
    """

    other: str
    difference: float
    sd: float
    n: int
    p_value: float
    adjusted: float
    detectable: float

    @property
    def significant(self) -> bool:
        """Whether the difference is beyond noise at 5 %, all comparisons together."""
        return self.adjusted < ALPHA


def compare(values: Sequence[float], others: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare `values` with each of `others`, paired by position, with Holm's correction.

    Raises:
        ValueError: If a comparison has another number of values.
    """
    raw: dict[str, tuple[float, float, float]] = {}
    n = len(values)
    for name, other in others.items():
        if len(other) != n:
            raise ValueError(f"A paired test needs equally many values; got {n} and {len(other)} for {name!r}.")
        differences = np.asarray(values, dtype=float) - np.asarray(other, dtype=float)
        sd = float(differences.std(ddof=1)) if n > 1 else math.nan
        raw[name] = (float(differences.mean()), sd, _paired_p(differences))
    adjusted = holm({name: p for name, (_, _, p) in raw.items()})
    return {
        name: Comparison(name, mean, sd, n, p, adjusted[name], detectable_difference(sd, n, ALPHA / len(raw)))
        for name, (mean, sd, p) in raw.items()
    }


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (Holm 1979): p-values that may be compared with one level together."""
    adjusted: dict[str, float] = {}
    running = 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for position, (name, p) in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - position) * p))
        adjusted[name] = running
    return adjusted


def detectable_difference(sd: float, n: int, alpha: float = ALPHA) -> float:
    """The true mean difference that a two-sided paired t-test finds with a power of 80 %.

    Solved with the non-central t distribution.

    Args:
        sd: Of the paired differences.
        n: Pairs.
        alpha: Level of the test; under Holm's correction of k comparisons the strictest is 5 % / k.

    Returns:
        Infinity for fewer than two pairs, and where the spread is 0: so few values do not show theirs.
    """
    if n < 2 or sd == 0:
        return math.inf
    if math.isnan(sd):
        return math.nan
    return _detectable_effect(n, alpha) * sd / math.sqrt(n)


@functools.cache
def _detectable_effect(n: int, alpha: float) -> float:
    """The same in standard errors: at 5 % between 2.8 (many pairs) and 16.4 (two pairs)."""
    return float(optimize.brentq(lambda noncentrality: _power(noncentrality, n, alpha) - POWER, 1.0, 200.0))


def _power(noncentrality: float, n: int, alpha: float = ALPHA) -> float:
    """Chance that a two-sided test with n pairs finds a true difference of so many standard errors."""
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    upper = stats.nct.sf(critical, n - 1, noncentrality)
    # Far out scipy gives NaN for the wrong-signed tail, which is 0 to all digits there.
    lower = np.nan_to_num(stats.nct.cdf(-critical, n - 1, noncentrality))
    return float(upper + lower)


def _paired_p(differences: np.ndarray) -> float:
    if len(differences) < 2:
        return 1.0
    if np.ptp(differences) == 0:
        # Accuracies are counted in whole images: few seeds agree by chance, and their spread cannot be estimated.
        return 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
