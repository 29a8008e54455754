"""What a part of a parameter is worth: the mean over everything else that can be chosen, in every plausible function.

A part is an option, or some values of a number. It is put into the same recipes, drawn uniformly from the part of the
space that has the parameter; what it brings along (the branch below a gate) comes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from scipy.stats import norm

from optuna_kd.analysis.branches import Branch
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.space import Space
from optuna_kd.samplers.domains import Choices, Grid

Array = NDArray[np.float64]

_RECIPES, _EVALUATIONS = (256, 128, 64), 2048  # for each kernel; of many options fewer recipes
_VALUES = 8  # of a number, up to which each counts as an option
_LADDER = 64  # shares that are tried


@dataclass(frozen=True, eq=False)
class Cell:
    """A part of a parameter's positions, (below, above].

    Args:
        value: The choice; None of a number.
        low, high: The ends of a number's part, twice the same of a single one; None of a choice.
        below, above: Positions.
        column: Of the parameter.
    """

    value: Any
    low: float | None
    high: float | None
    below: float
    above: float
    column: int

    @property
    def single(self) -> Any:
        """The only value that it holds; None where there may be more."""
        return self.value if self.low is None else self.low if self.low == self.high else None

    def holds(self, positions: Array) -> NDArray[np.bool_]:
        """Tell which recipes have such a value; [recipes]."""
        column = positions[:, self.column]
        inside: NDArray[np.bool_] = (column > self.below) & (column <= self.above)
        return inside


def single_cells(response: Response, parameter: str) -> list[Cell]:
    """Give each option of a parameter, or each value of a number that has few; else nothing."""
    space = response.space
    column = space.slots.columns[parameter]
    domain, distributions = space.slots[column].domain, response.table.parameters[parameter].distributions
    if isinstance(distributions[-1], CategoricalDistribution):
        return [
            Cell(choice, None, None, place - 0.5, place + 0.5, column)
            for place, choice in enumerate(distributions[-1].choices)
        ]
    if len(distributions) > 1 or not isinstance(domain, Grid) or not domain.enumerable or domain.count > _VALUES:
        return []
    values = [domain.position(place) for place in range(domain.count)]
    ends = [-np.inf, *((one + other) / 2 for one, other in pairwise(values)), np.inf]
    return [
        Cell(None, domain.value(place), domain.value(place), ends[place], ends[place + 1], column)
        for place in range(domain.count)
    ]


def cut_cells(response: Response, parameter: str, cuts: Sequence[float]) -> list[Cell]:
    """Cut the range of a number at some positions, ascending and inside of it."""
    space = response.space
    column = space.slots.columns[parameter]
    slot, unchanged = space.slots[column], len(response.table.parameters[parameter].distributions) == 1
    domain = slot.domain
    log = not isinstance(domain, Choices) and domain.log
    shown = [
        float(domain.internal(cut) if unchanged else np.exp(cut) if log else cut)
        for cut in (slot.low, *cuts, slot.high)
    ]
    return [
        Cell(None, shown[place], shown[place + 1], below, above, column)
        for place, (below, above) in enumerate(pairwise([-np.inf, *cuts, np.inf]))
    ]


def means_of(
    response: Response, branch: Branch, parameter: str, cells: Sequence[Cell], *, given: Cell | None = None
) -> Array:
    """Average all functions over recipes that take a value from each cell; [cells, functions].

    Args:
        response: The functions.
        branch: What the recipes are drawn from; it has the parameter.
        parameter: Its name.
        cells: Of the parameter.
        given: Of another parameter: where the recipes are to be.

    Returns:
        The means, in standard deviations from the mean of the trials (see `Response.amounts`); NaN for a cell that no
        recipe comes to.
    """
    if not response.worlds:
        return np.zeros((len(cells), 1))
    space, rng = response.space, response.rng(2)
    column = space.slots.columns[parameter]
    recipes = next((count for count in _RECIPES if count * len(cells) <= _EVALUATIONS), _RECIPES[-1])
    found = []
    for world in response.worlds:
        ones = branch.draw(recipes, rng)
        if given is not None:
            [ones] = _placed(space, ones, given.column, [given], rng)
        placed = _placed(space, ones, column, cells, rng)
        values = np.split(
            world.standard(space.at(np.concatenate(placed))), np.cumsum([len(shares) for shares in placed])[:-1]
        )
        nowhere = np.full(world.weights.shape[1], np.nan)
        found.append([each.mean(axis=0) if len(each) else nowhere for each in values])
    return np.concatenate(found, axis=1)


def two_sided(draws: Array) -> float:
    """Give the p-value of a difference from its spread over the functions."""
    spread = float(draws.std())
    return float(2 * norm.sf(abs(float(draws.mean())) / spread)) if spread > 0 else 1.0


def _placed(space: Space, ones: Array, column: int, cells: Sequence[Cell], rng: np.random.Generator) -> list[Array]:
    """Give the recipes with a value from each cell, as shares; those that come to one.

    The recipes are the same but for what the value decides. The share of the parameter is found by trying many: which
    value a share stands for may depend on the recipe, where ranges change.
    """
    steps = max(_LADDER, 4 * len(cells))
    tried = (np.arange(steps) + rng.random((len(ones), steps))) / steps
    positions = space.at(_replaced(ones, column, tried)).positions
    found = []
    for cell in cells:
        fitting = cell.holds(positions).reshape(tried.shape)
        drawn = np.where(fitting, rng.random(tried.shape), -1.0).argmax(axis=1)
        shares = np.take_along_axis(tried, drawn[:, None], axis=1)
        found.append(_replaced(ones, column, shares)[fitting.any(axis=1)])
    return found


def _replaced(shares: Array, column: int, by: Array) -> Array:
    """Repeat each recipe with every one of its new shares of one parameter; [recipes * new, parameters]."""
    repeated = np.repeat(shares, by.shape[1], axis=0)
    repeated[:, column] = by.ravel()
    return repeated
