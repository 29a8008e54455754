"""What a statement about a study rests on, in numbers and in words, in the unit of the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna_kd.analysis.figures.objective import name_of
from optuna_kd.analysis.figures.wording import CHOICE, count, listed, number, plain
from optuna_kd.analysis.table import TrialTable
from optuna_kd.study.settings import TASK

_POINTS = ("error",)  # objectives of ours that are shares
_UNBOUNDED = ("paper",)  # rewards of ours that are none
_NATS = "cross_entropy"


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a statement.

    Args:
        visits: What it is about, the better side first, and how many trials, pruned ones included.
        gap: How much better one side is than the other, in the unit of the objective as stored (of one that is
            compared by its logarithm, the difference of natural logarithms); None where nothing was compared.
        low: Where the 90 % interval of the gap begins.
        high: Where it ends.
        adjusted: Its two-sided p-value after the correction for all that was looked at.
    """

    visits: tuple[tuple[str, int], ...] = ()
    gap: float | None = None
    low: float | None = None
    high: float | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class Measure:
    """How differences of an objective are written.

    Args:
        name: Of the objective.
        maximize: Whether more is better.
        logarithmic: Whether differences are those of logarithms.
        unit: After the number; empty if it is not known.
        factor: From the unit of the objective to that.
    """

    name: str
    maximize: bool
    logarithmic: bool = False
    unit: str = ""
    factor: float = 1.0

    def amount(self, gap: float) -> str:
        """Write a difference that is not negative: 0.8 points, a factor of 1.3."""
        if self.logarithmic:
            return f"a factor of {self._number(gap)}"
        unit = "point" if self.unit == "points" and self._number(gap) == "1" else self.unit
        return f"{self._number(gap)} {unit}".rstrip()

    def range(self, low: float, high: float) -> str:
        """Write the interval of a difference: 0.3 to 1.2."""
        return f"{self._number(low)} to {self._number(high)}"

    def better(self, gap: float) -> str:
        """Say what something better does: raises reward by 0.8 points, lowers loss by 0.12."""
        return f"{'raises' if self.maximize else 'lowers'} {self.name} by {self.amount(gap)}"

    def _number(self, gap: float) -> str:
        # Beyond e^700 there is no such factor.
        return number(math.exp(min(gap, 700.0)), 3) if self.logarithmic else number(self.factor * gap, 2)


def measure_of(table: TrialTable, column: int) -> Measure:
    """Find out how differences of an objective are written: in points where a study of ours has shares of one."""
    objective = table.objectives[column]
    task = table.attributes.get(TASK)
    unit, factor = "", 1.0
    if isinstance(task, Mapping):
        reward = task.get("reward")
        shares = len(table.objectives) == 1 and isinstance(reward, str) and reward not in _UNBOUNDED
        if objective.name in _POINTS or shares:
            unit, factor = "points", 100.0
        elif objective.name == _NATS:
            unit = "nats"
    return Measure(name_of(table, column), objective.maximize, objective.logarithmic, unit, factor)


def numbers_text(measure: Measure, numbers: Numbers, words: tuple[str, str] = ("better", "worse")) -> str:
    """Put a difference into words: amount, interval, p-value, trials.

    Args:
        measure: The unit.
        numbers: With a gap and its interval.
        words: For a gap that is positive, and for one that is not.
    """
    gap, low, high = numbers.gap or 0.0, numbers.low or 0.0, numbers.high or 0.0
    shown = measure.range(low, high) if gap >= 0 else measure.range(-high, -low)
    tested = "" if numbers.adjusted is None else f", adjusted p {p_text(numbers.adjusted)}"
    sides = listed(f"{side} in {count(visited, 'trial')}" for side, visited in numbers.visits)
    return f"{words[gap < 0]} by {measure.amount(abs(gap))} (90 % interval {shown}){tested}; {sides}."


def p_text(p_value: float) -> str:
    """Write a p-value: 0.032, under 0.001."""
    return number(p_value, 2) if p_value >= 0.001 else "under 0.001"


class Option(Protocol):
    """An option of a parameter, or some values of a number."""

    @property
    def value(self) -> Any:
        """The choice."""

    @property
    def low(self) -> float | None:
        """The lowest of the values; None of a choice."""

    @property
    def high(self) -> float | None:
        """The highest."""


def option_text(option: Option) -> str:
    """Write an option, shortened: kl, 4, 0.01 to 0.03."""
    if option.low is None or option.high is None:
        return plain(option.value, CHOICE)
    return number(option.low) if option.low == option.high else f"{number(option.low)} to {number(option.high)}"
