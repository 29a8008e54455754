"""Branches of a conditional space: where a parameter exists, and draws from one branch alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from scipy.stats import qmc

from optuna_kd.analysis.space import Space
from optuna_kd.analysis.table import TrialTable

Array = NDArray[np.float64]

_TRIES = 200  # draws for each that has to end in the branch


@dataclass(frozen=True)
class Condition:
    """What a gate has to be, as far as the trials tell.

    Args:
        parameter: The gate.
        options: Its options, of a categorical one; else empty.
        low: The least value seen, of a number.
        high: The largest.
    """

    parameter: str
    options: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.options:
            return f"{self.parameter} = {' or '.join(str(option) for option in self.options)}"
        return f"{self.parameter} from {self.low:g} to {self.high:g}"


def conditions_of(space: Space, table: TrialTable, name: str) -> tuple[Condition, ...]:
    """Tell where a parameter exists: what its gates are in the trials that have it; empty where it always does."""
    rows = table.parameters[name].rows
    found = []
    for place in np.flatnonzero(space.gates[:, space.slots.columns[name]]).tolist():
        gate = table.parameters[space.names[place]]
        here = np.intersect1d(rows, gate.rows)
        if not len(here):
            continue
        values = [table.trials[row].params[gate.name] for row in here.tolist()]
        distribution = gate.distributions[-1]
        if not isinstance(distribution, CategoricalDistribution):
            found.append(Condition(gate.name, low=float(min(values)), high=float(max(values))))
            continue
        taken = {int(distribution.to_internal_repr(value)) for value in values}
        if len(taken) < len(distribution.choices):
            found.append(Condition(gate.name, tuple(distribution.choices[place] for place in sorted(taken))))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Branch:
    """A part of a space: all recipes in which some gates are what they should be.

    Args:
        space: The whole.
        table: The trials that it was learned from.
        within: The categorical parameters and the options that they should have; empty is the whole space.
        existing: Other parameters that should be there.

    Raises:
        ValueError: For a parameter that is not known or not categorical, and for an option that it does not have.
    """

    space: Space
    table: TrialTable
    within: Mapping[str, Any]
    existing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.within, *self.existing):
            if name not in self.table.parameters:
                known = ", ".join(self.table.parameters) or "none"
                raise ValueError(f"No usable trial has the parameter {name!r}. Known: {known}.")
        for name in self.within:
            distribution = self.table.parameters[name].distributions[-1]
            if not isinstance(distribution, CategoricalDistribution):
                raise ValueError(
                    f"A branch is named by options of categorical parameters; {name!r} has {distribution}."
                )
            distribution.to_internal_repr(self.within[name])  # raises, and names the choices

    @property
    def wanted(self) -> dict[int, int]:
        """The columns of the gates, and the numbers of their options."""
        return {
            self.space.slots.columns[name]: int(self.table.parameters[name].distributions[-1].to_internal_repr(option))
            for name, option in self.within.items()
        }

    @property
    def entry(self) -> NDArray[np.bool_]:
        """Which parameters decide whether a recipe is in the branch; [parameters]."""
        columns = list(self.wanted)
        decides: NDArray[np.bool_] = np.asarray(self.space.gates[:, columns].any(axis=1))
        decides[columns] = True
        return decides

    def holds(self, positions: Array) -> NDArray[np.bool_]:
        """Tell which recipes are in the branch; [recipes]."""
        inside: NDArray[np.bool_] = np.ones(len(positions), bool)
        for column, option in self.wanted.items():
            inside &= positions[:, column] == option
        for name in self.existing:
            inside &= ~np.isnan(positions[:, self.space.slots.columns[name]])
        return inside

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw shares that lead into the branch; [count, parameters].

        Raises:
            ValueError: If the branch is not found.
        """
        return self._draw(count, len(self.space), rng)

    def pairs(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw independent shares, both in the branch and entered the same way.

        Raises:
            ValueError: If the branch is not found.

        Returns:
            Two arrays; [count, parameters].
        """
        width = len(self.space)
        both = self._draw(count, 2 * width, rng)
        ones, others = both[:, :width], both[:, width:]
        others[:, self.entry] = ones[:, self.entry]
        return ones, others

    def _draw(self, count: int, columns: int, rng: np.random.Generator) -> Array:
        """Draw points whose first shares lead into the branch; [count, columns]."""
        width, wanted = len(self.space), self.wanted
        points = qmc.Sobol(columns, rng=rng)
        found: list[Array] = []
        missing, tries = count, 0
        while missing > 0 and tries < _TRIES * count:
            drawn = points.random(count)
            tries += count
            for column, option in wanted.items():
                # The gate is as it should be; only whether the recipe comes to it is left to chance.
                drawn[:, column] = (option + drawn[:, column]) / self.space.slots[column].domain.children
            if wanted or self.existing:
                drawn = drawn[self.holds(self.space.at(drawn[:, :width]).positions)]
            found.append(drawn[:missing])
            missing -= len(found[-1])
        if missing > 0:
            raise ValueError(
                f"No way into the branch {dict(self.within)!r} was found; no trial, or hardly one, is there."
            )
        return np.concatenate(found)
