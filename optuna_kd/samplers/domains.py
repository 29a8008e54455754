"""How one parameter becomes the children of a tree node: choices, single grid values, or intervals.

A range is cut by halving it (in log space where the distribution is logarithmic). A grid of up to
`MAX_VALUES` points is cut down to its single points; everything larger is halved `HALVINGS` times, and
`halves` can cut further.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

MAX_VALUES = 16
HALVINGS = 3


class Cell(NamedTuple):
    """A piece of a domain from `low` to `high`, in the coordinates of the domain, both ends included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Choices:
    """A categorical parameter; a coordinate is the index of a choice."""

    children: int

    @property
    def enumerable(self) -> bool:
        """Whether each child stands for exactly one value."""
        return True

    def coordinate(self, internal: float) -> float:
        """Map Optuna's internal representation of a value to a coordinate."""
        return internal

    def child_at(self, coordinate: float) -> int:
        """Find the child that holds `coordinate`."""
        return int(coordinate)

    def cell(self, child: int | None) -> Cell:
        """Return the cell of a child, or of the whole domain."""
        return Cell(0, self.children - 1) if child is None else Cell(child, child)

    def halves(self, cell: Cell) -> tuple[Cell, Cell] | None:
        """Choices have no order to cut along."""
        return None

    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest position."""
        return 0.0, self.children - 1.0

    def position(self, coordinate: float) -> float:
        """Map a coordinate to a position: comparable between all domains of one parameter."""
        return float(coordinate)

    def internal(self, position: float) -> float:
        """Map a position to Optuna's internal representation of the nearest value."""
        return float(self.nearest(np.array([position]))[0])

    def nearest(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the nearest positions that exist."""
        return np.clip(np.rint(positions), 0, self.children - 1)

    def spread(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map shares, uniform in [0, 1), to positions as uniform as those that are drawn."""
        return np.floor(shares * self.children)

    def children_at(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the children that hold the positions."""
        return positions.astype(np.int64)

    def draw(self, cell: Cell, rng: np.random.Generator) -> float:
        """Draw uniformly from a cell; returns Optuna's internal representation."""
        return cell.low + int(rng.random() * (cell.high - cell.low + 1))


@dataclass(frozen=True, slots=True)
class Grid:
    """An integer, or a float with a step; a coordinate is the index of a grid point, from 0."""

    low: float
    high: float
    step: float
    log: bool

    @property
    def count(self) -> int:
        """Number of grid points."""
        return round((self.high - self.low) / self.step) + 1

    @property
    def enumerable(self) -> bool:
        """Whether each child stands for exactly one value."""
        return self.count <= MAX_VALUES

    @property
    def children(self) -> int:
        """Number of children."""
        return len(_cells(self))

    def value(self, index: float) -> float:
        """Return the value of a grid point."""
        return min(self.low + index * self.step, self.high)

    def coordinate(self, internal: float) -> float:
        """Map a value to the nearest grid point, also one that was enqueued from outside the range."""
        return min(max(round((internal - self.low) / self.step), 0), self.count - 1)

    def child_at(self, coordinate: float) -> int:
        """Find the child that holds `coordinate`."""
        return int(coordinate) if self.enumerable else _find(_cells(self), coordinate)

    def cell(self, child: int | None) -> Cell:
        """Return the cell of a child, or of the whole domain."""
        return Cell(0, self.count - 1) if child is None else _cells(self)[child]

    def halves(self, cell: Cell) -> tuple[Cell, Cell] | None:
        """Cut a cell into two that each hold a grid point; None for a single point."""
        if cell.low >= cell.high:
            return None
        middle = (cell.low + cell.high) // 2
        if self.log:
            bounds = self.value(cell.low) - 0.5, self.value(cell.high) + 0.5
            # Clipped: a cell without any grid point would stay unvisited, and be chosen, for ever.
            middle = int(math.sqrt(bounds[0]) * math.sqrt(bounds[1]) - self.low)
            middle = min(max(middle, cell.low), cell.high - 1)
        return Cell(cell.low, middle), Cell(middle + 1, cell.high)

    def draw(self, cell: Cell, rng: np.random.Generator) -> float:
        """Draw uniformly from a cell, in log space for a logarithmic grid; returns a value."""
        share = rng.random()
        if self.log:
            bounds = math.log(self.value(cell.low) - 0.5), math.log(self.value(cell.high) + 0.5)
            index = round(math.exp(bounds[0] + share * (bounds[1] - bounds[0])) - self.low)
        else:
            index = int(cell.low) + int(share * (cell.high - cell.low + 1))
        return self.value(min(max(index, cell.low), cell.high))

    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest position."""
        return self.position(0), self.position(self.count - 1)

    def position(self, coordinate: float) -> float:
        """Map a coordinate to a position, the value or its logarithm: comparable between domains."""
        return math.log(self.value(coordinate)) if self.log else float(self.value(coordinate))

    def internal(self, position: float) -> float:
        """Map a position to the nearest value."""
        return self.value(int(self._indices(np.array([position]))[0]))  # exact for large integers too

    def nearest(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the nearest positions that exist."""
        values = np.minimum(self.low + self._indices(positions) * self.step, self.high)
        return np.log(values) if self.log else values

    def spread(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map shares, uniform in [0, 1), to positions as uniform as those that are drawn."""
        if not self.log:
            return np.minimum(self.low + np.floor(shares * self.count) * self.step, self.high)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return self.nearest((1 - shares) * low + shares * high)

    def children_at(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the children that hold the positions."""
        indices = self._indices(positions)
        return (indices if self.enumerable else _find_all(self, indices)).astype(np.int64)

    def _indices(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.exp(positions) if self.log else positions
        return np.clip(np.rint((values - self.low) / self.step), 0, self.count - 1)


@dataclass(frozen=True, slots=True)
class Continuous:
    """A float without a step; a coordinate is the value, or its logarithm."""

    low: float
    high: float
    log: bool

    @property
    def enumerable(self) -> bool:
        """Whether each child stands for exactly one value."""
        return False

    @property
    def children(self) -> int:
        """Number of children."""
        return len(_cells(self))

    def coordinate(self, internal: float) -> float:
        """Map a value to its coordinate."""
        return math.log(internal) if self.log else internal

    def child_at(self, coordinate: float) -> int:
        """Find the child that holds `coordinate`."""
        return _find(_cells(self), coordinate)

    def cell(self, child: int | None) -> Cell:
        """Return the cell of a child, or of the whole domain."""
        if child is None:
            return Cell(self.coordinate(self.low), self.coordinate(self.high))
        return _cells(self)[child]

    def halves(self, cell: Cell) -> tuple[Cell, Cell] | None:
        """Cut a cell in the middle; None where floating point has no middle left."""
        middle = cell.low / 2 + cell.high / 2
        if not cell.low < middle < cell.high:
            return None
        return Cell(cell.low, middle), Cell(middle, cell.high)

    def draw(self, cell: Cell, rng: np.random.Generator) -> float:
        """Draw uniformly from a cell, in log space for a logarithmic range; returns a value."""
        share = rng.random()
        coordinate = (1 - share) * cell.low + share * cell.high  # no difference: high - low can overflow
        return self.internal(coordinate)

    def bounds(self) -> tuple[float, float]:
        """Return the lowest and the highest position."""
        return self.cell(None)

    def position(self, coordinate: float) -> float:
        """Return the coordinate, the value or its logarithm: it is comparable between domains."""
        return coordinate

    def internal(self, position: float) -> float:
        """Map a position to a value."""
        value = math.exp(position) if self.log else position
        return min(max(value, self.low), self.high)

    def nearest(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the nearest positions that exist."""
        return np.clip(positions, *self.bounds())

    def spread(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map shares, uniform in [0, 1), to positions, which are uniform too."""
        low, high = self.bounds()
        return (1 - shares) * low + shares * high  # no difference: high - low can overflow

    def children_at(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the children that hold the positions."""
        return _find_all(self, positions)


Domain = Choices | Grid | Continuous


def domain_of(distribution: BaseDistribution) -> Domain:
    """Return how a distribution is cut.

    Raises:
        TypeError: For a distribution that is neither categorical, integer nor float.
    """
    if isinstance(distribution, CategoricalDistribution):
        return Choices(len(distribution.choices))
    if isinstance(distribution, IntDistribution):
        return Grid(distribution.low, distribution.high, distribution.step, distribution.log)
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None:
            return Continuous(distribution.low, distribution.high, distribution.log)
        return Grid(distribution.low, distribution.high, distribution.step, log=False)
    raise TypeError(f"MCTSSampler knows categorical, int and float distributions; got {distribution!r}.")


@lru_cache(maxsize=1024)
def _cells(domain: Grid | Continuous) -> tuple[Cell, ...]:
    if isinstance(domain, Grid) and domain.enumerable:
        return tuple(Cell(index, index) for index in range(domain.count))
    cells = [domain.cell(None)]
    for _ in range(HALVINGS):
        cells = [piece for cell in cells for piece in (domain.halves(cell) or (cell,))]
    return tuple(cells)


def _find(cells: tuple[Cell, ...], coordinate: float) -> int:
    return max(bisect.bisect_right(cells, coordinate, key=lambda cell: cell.low) - 1, 0)


def _find_all(domain: Grid | Continuous, coordinates: NDArray[np.float64]) -> NDArray[np.int64]:
    lows = np.array([cell.low for cell in _cells(domain)])
    return np.maximum(np.searchsorted(lows, coordinates, side="right") - 1, 0)
