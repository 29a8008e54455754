"""Some options of a parameter against others, wherever in the space both can be chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optuna_kd.analysis.branches import Branch
from optuna_kd.analysis.evidence import option_text
from optuna_kd.analysis.figures.wording import listed, number
from optuna_kd.analysis.marginals import Cell, cut_cells, means_of, single_cells
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.table import TrialTable

Array = NDArray[np.float64]

_PRESENCE = 1024  # recipes that tell how often a parameter is there
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Some:
    """Some values of a parameter: options by name or number, or all numbers in a range.

    Args:
        options: The options; empty for a range.
        low, high: The range, both ends included.
    """

    options: tuple[Any, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if self.options:
            return "/".join(map(str, self.options))
        if math.isinf(self.low):
            return f"{number(self.high)} or less"
        return f"{number(self.low)} or more" if math.isinf(self.high) else f"{number(self.low)} to {number(self.high)}"

    def holds(self, cell: Cell) -> bool:
        """Whether all that a cell holds is among these."""
        if self.options:
            return cell.single in self.options
        low, high = (cell.value, cell.value) if cell.low is None else (cell.low, cell.high)
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return False
        return low >= self.low - _ROUNDING * abs(low) and high <= self.high + _ROUNDING * abs(high)

    @property
    def ends(self) -> list[float]:
        """Where a range has to be cut."""
        return [] if self.options else [end for end in (self.low, self.high) if math.isfinite(end)]


@dataclass(frozen=True, eq=False)
class Contrast:
    """Options against options.

    Args:
        gaps: By how much each option of the one side is better than each of the other; [functions].
        visits: Trials of each side.
    """

    gaps: dict[tuple[str, str], Array]
    visits: tuple[tuple[str, int], tuple[str, int]]


def contrast(
    response: Response, factors: Sequence[str], inside: Some, than: Some | None, given: tuple[str, Some] | None = None
) -> Contrast | str:
    """Compare options wherever they can be chosen, or say why they cannot be compared.

    Args:
        response: The functions.
        factors: The parameters; of several the mean counts, each as much as it is there.
        inside: The one side.
        than: The other; None is all that is not inside.
        given: Another parameter, and where it is to be.
    """
    table = response.table
    places: list[Cell | None] = [None]
    if given is not None:
        there, at = given
        places = [cell for cell in _cells(response, there, at) if at.holds(cell)] if there in table.parameters else []
        if not places:
            return f"Not searched here: {there} {at}."
    names = [name for variants in present(table, factors).values() for name in variants]
    if not names:
        return f"Not searched here: {factor_names(factors)}."
    sides = (str(inside), "others" if than is None else str(than))
    parts: dict[str, tuple[list[Cell], list[Cell]]] = {}
    for name in names:
        cells = _cells(response, name, inside, than)
        ones = [cell for cell in cells if inside.holds(cell)]
        others = [cell for cell in cells if (not inside.holds(cell) if than is None else than.holds(cell))]
        if ones and others:
            parts[name] = ones, others
    if not parts:
        return f"Not searched here: {sides[0]} beside {sides[1]} as {factor_names(factors, table)}."
    visits = [sum(_visits(response, part[side], places) for part in parts.values()) for side in (0, 1)]
    if 0 in visits:
        where = "" if given is None else f" with {given[0]} {given[1]}"
        return f"Never tried here: {sides[visits.index(0)]} as {factor_names(factors, table)}{where}."
    presence = _presence(response)
    gathered: dict[tuple[str, str], list[tuple[float, Array]]] = {}
    for name, (ones, others) in parts.items():
        for pair, gap in _gaps(response, name, ones, others, places) if presence[name] > 0 else ():
            gathered.setdefault(pair, []).append((presence[name], gap))
    if not gathered:
        return f"No recipe comes to both {sides[0]} and {sides[1]} as {factor_names(factors, table)}."
    gaps = {
        pair: np.average([gap for _, gap in found], axis=0, weights=[weight for weight, _ in found])
        for pair, found in gathered.items()
    }
    return Contrast(gaps, ((sides[0], visits[0]), (sides[1], visits[1])))


def present(table: TrialTable, factors: Sequence[str]) -> dict[str, list[str]]:
    """Find the parameters of each factor: its own, and those of places where only some options are left."""
    found = {
        factor: [name for name in table.parameters if name == factor or name.startswith(f"{factor}__")]
        for factor in factors
    }
    return {factor: names for factor, names in found.items() if names}


def _gaps(
    response: Response, name: str, ones: Sequence[Cell], others: Sequence[Cell], places: Sequence[Cell | None]
) -> Iterator[tuple[tuple[str, str], Array]]:
    """Compare each option of one side with each of the other, where recipes come to both."""
    branch = Branch(response.space, response.table, {}, (name,))
    cells = [*ones, *others]
    means = np.mean([means_of(response, branch, name, cells, given=place) for place in places], axis=0)
    gains = response.amounts(means if response.objective.maximize else -means)
    for one, other in product(range(len(ones)), range(len(ones), len(cells))):
        gap = gains[one] - gains[other]
        if np.isfinite(gap).all():
            yield (option_text(cells[one]), option_text(cells[other])), gap


def _cells(response: Response, parameter: str, *sides: Some | None) -> list[Cell]:
    if singles := single_cells(response, parameter):
        return singles
    slot = response.space.slots[response.space.slots.columns[parameter]]
    ends = {end for side in sides if side is not None for end in side.ends}
    log = getattr(slot.domain, "log", False)
    cuts = {math.log(end) if log else end for end in ends if end > 0 or not log}
    return cut_cells(response, parameter, sorted(cut for cut in cuts if slot.low < cut < slot.high))


def _presence(response: Response) -> dict[str, float]:
    space = response.space
    positions = space.at(response.rng(3).random((_PRESENCE, len(space)))).positions
    return dict(zip(space.names, (~np.isnan(positions)).mean(axis=0).tolist(), strict=True))


def _visits(response: Response, cells: Sequence[Cell], places: Sequence[Cell | None]) -> int:
    positions = response.space.paths.positions
    there = np.zeros(len(positions), bool)
    for place in places:
        there |= np.ones(len(positions), bool) if place is None else place.holds(positions)
    return int(sum((cell.holds(positions) & there).sum() for cell in cells))


def factor_names(factors: Sequence[str], table: TrialTable | None = None) -> str:
    """Name some factors, of a study those that it has."""
    known = list(factors) if table is None else list(present(table, factors))
    return listed(known)
