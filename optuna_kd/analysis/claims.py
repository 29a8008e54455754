"""Claims about what is better, in terms of parameters, that the trials of a study can be held against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.analysis.contrasts import Some, contrast, factor_names, present
from optuna_kd.analysis.evidence import Measure, Numbers, measure_of, numbers_text
from optuna_kd.analysis.importance import drawn_shares
from optuna_kd.analysis.marginals import two_sided
from optuna_kd.analysis.response import Response, interval_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tested:
    """What the trials say of a claim.

    Args:
        draws: By how much it holds in each plausible function, positive where it does; [functions].
        p_value: Two-sided.
        holds: Which of both sides the trials are on.
        subject: What is better, in words.
        measure: The unit of the draws.
        visits: Trials of each side.
        words: For draws that are positive, and for others.
    """

    draws: Array
    p_value: float
    holds: bool
    subject: str
    measure: Measure
    visits: tuple[tuple[str, int], ...]
    words: tuple[str, str] = ("is better", "is worse")  # with an amount: "... by 0.8 points"

    def numbers(self, adjusted: float | None) -> Numbers:
        """Give the mean of the draws, its interval, and the trials."""
        return Numbers(self.visits, float(self.draws.mean()), *interval_of(self.draws), adjusted)

    def text(self, adjusted: float | None) -> str:
        """Put them into words."""
        return f"{self.subject} {numbers_text(self.measure, self.numbers(adjusted), self.words)}"


class Claim(ABC):
    """Something that can be true or not of an objective."""

    @abstractmethod
    def test(self, response: Response) -> Tested | str:
        """Hold the trials against it; a text says why that cannot be done."""


@dataclass(frozen=True)
class Better(Claim):
    """Some options are better than others, on average over both.

    Args:
        factors: Parameters, also under names of their own in places where some options are left out (`name__where`);
            of several the mean counts, each as much as it is there.
        inside: The options that are better.
        than: Those that are worse; None is all others.
    """

    factors: tuple[str, ...]
    inside: Some
    than: Some | None = None

    def test(self, response: Response) -> Tested | str:
        """Compare the means of both sides."""
        found = contrast(response, self.factors, self.inside, self.than)
        if isinstance(found, str):
            return found
        draws = np.mean(list(found.gaps.values()), axis=0)
        subject = f"{self.inside} as {factor_names(self.factors, response.table)}"
        return Tested(draws, two_sided(draws), bool(draws.mean() > 0), subject, _measure(response), found.visits)


@dataclass(frozen=True)
class Best(Claim):
    """The best option is one of some.

    It holds beyond noise where each of the others is worse than one of these, and fails where each of these is worse
    than one of the others: the p-value is the largest of those that have to hold together (intersection-union test,
    Berger 1982), each the smallest of its alternatives after Bonferroni's correction.

    Args:
        factors, inside: As of `Better`.
    """

    factors: tuple[str, ...]
    inside: Some

    def test(self, response: Response) -> Tested | str:
        """Compare the best of both sides."""
        found = contrast(response, self.factors, self.inside, None)
        if isinstance(found, str):
            return found
        ones, others = (list(dict.fromkeys(pair[side] for pair in found.gaps)) for side in (0, 1))
        gaps = {pair: float(draws.mean()) for pair, draws in found.gaps.items()}
        best = max(ones, key=lambda one: np.mean([gap for pair, gap in gaps.items() if pair[0] == one]))
        rival = min(others, key=lambda other: np.mean([gap for pair, gap in gaps.items() if pair[1] == other]))
        draws = found.gaps.get((best, rival), np.zeros(1))
        holds = float(draws.mean()) > 0
        p_values = {pair: two_sided(found.gaps[pair]) for pair, gap in gaps.items() if (gap > 0) == holds}
        losers, winners, side = (others, ones, 1) if holds else (ones, others, 0)
        beaten = [min((p for pair, p in p_values.items() if pair[side] == loser), default=1.0) for loser in losers]
        subject = f"{best} as {factor_names(self.factors, response.table)}, against {rival}, the best of the others,"
        return Tested(draws, min(1.0, len(winners) * max(beaten)), holds, subject, _measure(response), found.visits)


@dataclass(frozen=True)
class Depends(Claim):
    """An option is worth more where another parameter is in one place than where it is in another.

    Args:
        factors, inside, than: As of `Better`.
        where: The other parameter.
        more: Where the option is worth more.
        less: Where it is worth less.
        either: The claim is only that it is not worth the same: then it can hold, and not fail.
    """

    factors: tuple[str, ...]
    inside: Some
    than: Some
    where: str
    more: Some
    less: Some
    either: bool = False

    def test(self, response: Response) -> Tested | str:
        """Compare what the option is worth in both places."""
        found = [
            contrast(response, self.factors, self.inside, self.than, (self.where, at)) for at in (self.more, self.less)
        ]
        more, less = found
        if isinstance(more, str) or isinstance(less, str):
            return more if isinstance(more, str) else str(less)
        draws = np.mean(list(more.gaps.values()), axis=0) - np.mean(list(less.gaps.values()), axis=0)
        subject = (
            f"{self.inside} rather than {self.than} as {factor_names(self.factors, response.table)}, "
            f"with {self.where} {self.more} compared with {self.less},"
        )
        visits = tuple(
            (f"{name} with {self.where} {at}", visited)
            for at, sides in ((self.more, more), (self.less, less))
            for name, visited in sides.visits
        )
        holds = self.either or float(draws.mean()) > 0
        return Tested(draws, two_sided(draws), holds, subject, _measure(response), visits)


@dataclass(frozen=True)
class MattersMore(Claim):
    """Some parameters explain more of the differences than others, each on average.

    Args:
        more: Those that explain more.
        less: Those that explain less.
    """

    more: tuple[str, ...]
    less: tuple[str, ...]

    def test(self, response: Response) -> Tested | str:
        """Compare the mean shares of both."""
        sides = [present(response.table, factors) for factors in (self.more, self.less)]
        for factors, variants in zip((self.more, self.less), sides, strict=True):
            if not variants:
                return f"Not searched here: {factor_names(factors)}."
        shares = drawn_shares(response)
        more, less = (
            np.mean([np.sum([shares[name] for name in names], axis=0) for names in each.values()], axis=0)
            for each in sides
        )
        draws = more - less
        ones, others = (factor_names(tuple(each)) for each in sides)
        visits = tuple(
            (label, max(response.table.parameters[name].visits for variants in each.values() for name in variants))
            for label, each in zip((ones, others), sides, strict=True)
        )
        measure = Measure("share", maximize=True, unit="% of the differences", factor=100.0)
        return Tested(
            draws, two_sided(draws), float(draws.mean()) > 0, f"Than {others}, {ones}", measure, visits,
            ("explains more", "explains less"),
        )  # fmt: skip


def _measure(response: Response) -> Measure:
    return measure_of(response.table, response.column)
