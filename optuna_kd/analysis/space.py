"""The space that a study searches, learned from its trials: what exists when, and uniform draws from it.

Each parameter has a latent share in [0, 1), independent of all others, and a recipe is what the shares lead to: the
objective asks for a parameter, its share picks a value of the range at hand, and so on to the end. Shares of
parameters that are not asked for lead nowhere. So a conditional space is a function of independent uniform numbers,
and uniform shares draw recipes branch by branch, each option of each parameter with the same probability, as random
search does: the distribution over which importance and means of options are taken.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optuna_kd.analysis.table import TrialTable
from optuna_kd.samplers.domains import Domain
from optuna_kd.samplers.surrogate.slots import PathLog, Paths, Slots
from optuna_kd.samplers.surrogate.structure import Structure
from optuna_kd.samplers.tree import path_of

Array = NDArray[np.float64]

_GATE_DRAWS = 256


class Space:
    """What the trials of a table tell about their space.

    Args:
        table: The trials; those without parameters tell nothing.
    """

    def __init__(self, table: TrialTable) -> None:
        self.log = PathLog(Slots())
        self.structure = Structure(self.log)
        self.rows = np.array([row for row, trial in enumerate(table.trials) if trial.distributions], np.int64)
        ended = ~table.pruned
        for row in self.rows.tolist():
            path = path_of(table.trials[row])
            columns = self.log.add(row, path)
            self.structure.add(len(self.log) - 1, path, columns, ended=bool(ended[row]))
        self.slots = self.log.slots

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def names(self) -> list[str]:
        """The parameters, in the order of the columns of shares."""
        return [slot.name for slot in self.slots]

    @property
    def paths(self) -> Paths:
        """The recipes of `rows`."""
        return self.log.paths()

    def at(self, shares: Array) -> Paths:
        """Follow shares to recipes.

        Args:
            shares: In [0, 1); [recipes, parameters].
        """
        return self.structure.walk(shares, (), fulfil=_spread)

    @cached_property
    def gates(self) -> NDArray[np.bool_]:
        """Which parameters decide whether another one exists: [gate, parameter].

        Found by drawing the share of each parameter anew, all others as they were, and looking at what appears or
        disappears.
        """
        count = len(self)
        rng = np.random.default_rng(0)
        shares = rng.random((_GATE_DRAWS, count))
        before = ~np.isnan(self.at(shares).positions)
        decides = np.zeros((count, count), bool)
        for gate in range(count):
            changed = shares.copy()
            changed[:, gate] = rng.random(_GATE_DRAWS)
            after = ~np.isnan(self.at(changed).positions)
            decides[gate] = (before != after).any(axis=0)
        # What decides is asked for first. Where trials disagree on that, the one that came first in the study does.
        return decides & ~(decides.T & np.tri(count, dtype=bool))


def _spread(domain: Domain, shares: Array) -> Array:
    return domain.spread(shares)
