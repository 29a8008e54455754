"""Is it real? Paired tests over seeds, and what so many seeds can detect at all."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8
LEAST_FOR_WILCOXON = 6  # pairs: with five its two-sided p-value cannot go below 0.06
LEAST_FOR_BOOTSTRAP = 10  # pairs: from fewer, resampled means are far too sure of themselves
RESAMPLES = 10_000
_ROUNDING = 1e-12  # of the largest value: less than that between two differences is nothing but rounding


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
        differences: Of each pair.
    """

    other: str
    difference: float
    sd: float
    n: int
    p_value: float
    adjusted: float
    detectable: float
    differences: tuple[float, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether the difference is beyond noise at 5 %, all comparisons together."""
        return self.adjusted < ALPHA

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the difference, of the t distribution; of this comparison alone."""
        return mean_interval(self.differences)

    @cached_property
    def wilcoxon(self) -> float | None:
        """Two-sided p-value of Wilcoxon's signed-rank test, beside the deciding t-test; None below 6 pairs."""
        return wilcoxon_p(self.differences)

    @cached_property
    def bootstrap(self) -> tuple[float, float] | None:
        """95 % bootstrap-t interval of the difference, likewise beside it; None below 10 pairs."""
        return bootstrap_interval(self.differences)

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers as JSON knows them: None for what is not finite; without `other`, which is its key."""
        numbers = {key: value for key, value in asdict(self).items() if key not in ("other", "differences")}
        numbers |= {"interval": self.interval, "wilcoxon": self.wilcoxon, "bootstrap": self.bootstrap}
        return {
            key: [_finite(end) for end in value] if isinstance(value, tuple) else _finite(value)
            for key, value in numbers.items()
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def compare(values: Sequence[float], others: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare `values` with each of `others`, paired by position, with Holm's correction.

    Raises:
        ValueError: If a comparison has another number of values.
    """
    n = len(values)
    pairs: dict[str, np.ndarray] = {}
    for name, other in others.items():
        if len(other) != n:
            raise ValueError(f"A paired test needs equally many values; got {n} and {len(other)} for {name!r}.")
        pairs[name] = _paired(np.asarray(values, dtype=float), np.asarray(other, dtype=float))
    p_values = {name: _paired_p(differences) for name, differences in pairs.items()}
    adjusted = holm(p_values)
    found = {}
    for name, differences in pairs.items():
        sd = _spread(differences) if n > 1 else math.nan
        found[name] = Comparison(
            name,
            float(differences.mean()),
            sd,
            n,
            p_values[name],
            adjusted[name],
            detectable_difference(sd, n, ALPHA / len(pairs)),
            differences=tuple(differences.tolist()),
        )
    return found


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % confidence interval of a mean, of the t distribution; infinite for fewer than two values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return -math.inf, math.inf
    reach = stats.t.ppf(1 - ALPHA / 2, len(values) - 1) * _spread(values) / math.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def wilcoxon_p(differences: Sequence[float] | np.ndarray) -> float | None:
    """Two-sided p-value of Wilcoxon's signed-rank test; None for fewer than 6 pairs, 1 where no pair differs.

    Over all signs that the differences could have, exactly for any number of pairs, because tables know no ties, and
    accuracies counted in whole images have many. Pairs that do not differ keep their ranks (Pratt 1959): they are
    evidence against a difference.
    """
    differences = np.asarray(differences, dtype=float)
    if len(differences) < LEAST_FOR_WILCOXON:
        return None
    if not differences.any():
        return 1.0
    doubled = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)  # those of ties end in a half
    chances = np.ones(1)  # of each sum of the positive ranks, with every sign as likely as the other
    for rank in doubled[differences != 0].tolist():
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    found = int(doubled[differences > 0].sum())
    return float(min(1.0, 2 * min(chances[: found + 1].sum(), chances[found:].sum())))


def bootstrap_interval(differences: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """95 % bootstrap-t interval of a mean (Efron & Tibshirani 1993, ch. 12.5); None for fewer than 10 values.

    The resampled t statistics take the place of the t distribution's quantiles. The percentile method, which most
    programs mean by "bootstrap", is too narrow by a sixth at ten values, and grossly so at five.
    """
    differences = np.asarray(differences, dtype=float)
    n = len(differences)
    if n < LEAST_FOR_BOOTSTRAP:
        return None
    mean, error = differences.mean(), _spread(differences) / math.sqrt(n)
    if error == 0:
        return float(mean), float(mean)
    drawn = differences[np.random.default_rng(0).integers(n, size=(RESAMPLES, n))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    varied = errors > 0  # a resample of one value only has no t statistic
    low, high = np.quantile((drawn[varied].mean(axis=1) - mean) / errors[varied], (ALPHA / 2, 1 - ALPHA / 2))
    return float(mean - high * error), float(mean - low * error)


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


def _paired(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Give the differences, those that are alike but for rounding exactly alike: 318/360 - 317/360 is not 1/360.

    Sizes and not numbers are made alike, for ranks of both signs tie as well, and so is one of nearly 0 exactly 0.
    """
    differences = values - others
    known = np.abs(np.concatenate([values, others]))
    least = _ROUNDING * known[np.isfinite(known)].max(initial=0.0)
    sizes = np.abs(differences)
    ordered = np.sort(np.append(sizes[np.isfinite(sizes)], 0.0))
    firsts = ordered[np.append(True, np.diff(ordered) > least)]  # each begins a group of sizes that are alike
    alike = np.sign(differences) * firsts[np.searchsorted(firsts, sizes, side="right") - 1]
    return np.where(np.isfinite(differences), alike, differences)


def _spread(values: np.ndarray) -> float:
    """Give the standard deviation of two values at least: 0 where all are the same, of which the mean may round."""
    return 0.0 if np.ptp(values) == 0 else float(values.std(ddof=1))


def _paired_p(differences: np.ndarray) -> float:
    if len(differences) < 2:
        return 1.0
    if _spread(differences) == 0:
        # Accuracies are counted in whole images: few seeds agree by chance, and their spread cannot be estimated.
        return 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)
