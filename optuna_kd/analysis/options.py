"""What an option is worth: the mean over everything else that can be chosen, and whether a difference is real.

The mean of the trials that took an option says little: a sampler gives good company to good options. Here each option
is put into the same recipes, drawn uniformly from the part of the space that has the parameter, and the functions that
the trials leave plausible (`response`) are averaged over them (the partial dependence of Friedman 2001, eq. 53, over
the space). The option of a gate brings what exists below it. Intervals hold nine tenths of the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from optuna_kd.analysis.branches import Branch, Condition, conditions_of
from optuna_kd.analysis.marginals import Cell, cut_cells, means_of, single_cells, two_sided
from optuna_kd.analysis.response import Response, interval_of, response_of
from optuna_kd.analysis.statistics import ALPHA, holm
from optuna_kd.analysis.table import Objective, TrialTable

Array = NDArray[np.float64]

_BINS = 4
# In the whole space: guidance and figures ask for the same. An `OptionComparison` does not hold its response.
_compared: WeakKeyDictionary[Response, dict[str, OptionComparison]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Option:
    """One choice of a parameter, or one bin of a number.

    Args:
        value: The choice as it was suggested; of a bin, None.
        low: The lower end of the bin, which does not belong to it; of a single number the number; of a choice that is
            no number, None.
        high: The upper end, which does; likewise.
        mean: Of the objective without noise, over uniform draws of all other choices, in its unit (its natural
            logarithm, if it is compared by that).
        mean_low: Where the 90 % interval of that begins.
        mean_high: Where it ends.
        visits: Trials that took it, pruned ones included.
        observed: Mean of their values; None where nobody took it.
        best: The best value of a complete, feasible trial that took it; None where there is none.
    """

    value: Any
    low: float | None
    high: float | None
    mean: float
    mean_low: float
    mean_high: float
    visits: int
    observed: float | None
    best: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return str(self.value)
        return f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True, eq=False)
class OptionDifference:
    """One option against another of the same parameter.

    Args:
        better: The option with the better mean.
        worse: The other one.
        gap: How much better, in the unit of the objective; not negative.
        low: Where the 90 % interval of the gap begins; below 0 the other one is better.
        high: Where it ends.
        p_value: Two-sided, from the spread of the gap over the functions.
        adjusted: The same after Holm's correction for all pairs of options of the parameter.
    """

    better: Option
    worse: Option
    gap: float
    low: float
    high: float
    p_value: float
    adjusted: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is beyond noise at 5 %, all pairs of options together."""
        return self.adjusted < ALPHA


@dataclass(frozen=True, eq=False)
class OptionComparison:
    """The options of a parameter.

    Args:
        parameter: Its name.
        objective: What they are compared by.
        branch: Where the parameter exists; empty where it always does.
        options: The best first.
        differences: Between all pairs of options, the largest gap first.
    """

    parameter: str
    objective: Objective
    branch: tuple[Condition, ...]
    options: tuple[Option, ...]
    differences: tuple[OptionDifference, ...]


def compare_options(
    source: Study | TrialTable | Response,
    parameter: str,
    objective: int | str | None = None,
    *,
    within: Mapping[str, Any] | None = None,
    bins: int = _BINS,
    seed: int = 0,
) -> OptionComparison:
    """Compare the options of a parameter, all else being equal.

    Args:
        source: A study, its table, or the response fitted to it (to ask for many parameters at the price of one fit).
        parameter: A categorical one, or a number: one with few values has each of them as an option, others are cut
            into bins that hold equally many trials.
        objective: Place or name of the objective; None is the only one.
        within: Options of gates: only the branch where they hold is looked at.
        bins: How many bins of a number, >= 2.
        seed: Of the random draws.

    Raises:
        ValueError: For an unknown parameter, objective or branch, and for less than two bins.

    Example:
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_categorical("x", [3, 1, 2]), n_trials=20)
        >>> [str(option) for option in compare_options(study, "x").options]
        ['1', '2', '3']
    """
    if bins < 2:
        raise ValueError(f"bins must be >= 2; got {bins!r}.")
    response = response_of(source, objective, seed=seed)
    if within or bins != _BINS:
        return _compare(response, parameter, within or {}, bins)
    known = _compared.setdefault(response, {})
    if parameter not in known:
        known[parameter] = _compare(response, parameter, {}, bins)
    return known[parameter]


def _compare(response: Response, parameter: str, within: Mapping[str, Any], bins: int) -> OptionComparison:
    table = response.table
    branch = Branch(response.space, table, within, (parameter,))
    cells = _cells(response, parameter, bins)
    means = means_of(response, branch, parameter, cells)
    maximize = response.objective.maximize
    visited = branch.holds(response.space.paths.positions)
    options = [_option(response, cell, draws, visited) for cell, draws in zip(cells, means, strict=True)]
    order = sorted(range(len(options)), key=lambda place: options[place].mean, reverse=maximize)
    return OptionComparison(
        parameter,
        response.objective,
        conditions_of(response.space, table, parameter),
        tuple(options[place] for place in order),
        _differences(response, [options[place] for place in order], means[order] * (1 if maximize else -1)),
    )


def _cells(response: Response, parameter: str, bins: int) -> list[Cell]:
    if singles := single_cells(response, parameter):
        return singles
    column = response.space.slots.columns[parameter]
    seen = response.space.paths.positions[:, column]
    cuts = np.unique(np.quantile(seen[~np.isnan(seen)], np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    return cut_cells(response, parameter, cuts[cuts < response.space.slots[column].high].tolist())


def _option(response: Response, cell: Cell, draws: Array, visited: NDArray[np.bool_]) -> Option:
    table = response.table
    rows = response.space.rows[visited & cell.holds(response.space.paths.positions)]
    values = response.values[visited & cell.holds(response.space.paths.positions)]
    eligible = rows[~table.pruned[rows] & table.feasible[rows]]
    best = None
    if len(eligible):
        column = table.values[eligible, response.column]
        best = float(column.max() if response.objective.maximize else column.min())
    mean, low, high = (response.amounts(_summary(draws)) + response.shift).tolist()
    return Option(
        cell.value,
        cell.low,
        cell.high,
        mean,
        low,
        high,
        len(rows),
        _mean(values, response.scale) if len(rows) else None,
        best,
    )


def _summary(draws: Array) -> Array:
    """Give the mean and the interval of some draws; [3]."""
    return np.array([draws.mean(), *interval_of(draws)])


def _mean(values: Array, scale: float) -> float:
    """Average values, of which all may be as large as floats get, and the same where there is no scale."""
    return float((values / scale).mean() * scale) if scale > 0 else float(values[0])


def _differences(response: Response, options: Sequence[Option], gains: Array) -> tuple[OptionDifference, ...]:
    """Compare all pairs; `gains` are the means in the order of the options, more is better; [options, functions]."""
    gaps = {pair: gains[pair[0]] - gains[pair[1]] for pair in combinations(range(len(options)), 2)}
    p_values = {f"{one} {other}": two_sided(gap) for (one, other), gap in gaps.items()}
    adjusted = holm(p_values)
    found = []
    for (one, other), gap in gaps.items():
        mean, low, high = response.amounts(_summary(gap)).tolist()
        pair = f"{one} {other}"
        found.append(OptionDifference(options[one], options[other], mean, low, high, p_values[pair], adjusted[pair]))
    return tuple(sorted(found, key=lambda difference: -difference.gap))
