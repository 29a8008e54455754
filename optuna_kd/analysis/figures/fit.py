"""The fit that the figures of importance and of options share, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from optuna_kd.analysis.figures.objective import column_of
from optuna_kd.analysis.figures.wording import count
from optuna_kd.analysis.importance import Importance, importances
from optuna_kd.analysis.options import OptionComparison, compare_options
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.table import TrialTable

FEWEST = 4  # trials, below which nothing can be told apart


@dataclass(frozen=True, eq=False)
class Fit:
    """The functions that agree with the trials, and what matters to them; computed once.

    Args:
        table: The trials.
        objective: The place or the name of the objective; None is the first.
        within: Options of gates, such as {"method": "kl"}: only the branch where they hold is looked at.
        seed: Of the random draws.

    Raises:
        ValueError: If the study does not have the objective.
    """

    table: TrialTable
    objective: int | str | None = None
    within: Mapping[str, Any] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        column_of(self.table, self.objective)

    @property
    def column(self) -> int:
        """The column of the objective."""
        return column_of(self.table, self.objective)

    @property
    def obstacle(self) -> str:
        """Why there is no fit; empty where there is one."""
        rows = np.flatnonzero(np.isfinite(self.table.values[:, self.column]))
        known = sum(bool(self.table.trials[row].distributions) for row in rows.tolist())
        if known >= FEWEST:
            return ""
        return f"{count(known, 'trial')} with parameters and a finite value: at least {FEWEST} are needed to compare."

    @cached_property
    def response(self) -> Response:
        """The functions."""
        return Response(self.table, self.column, seed=self.seed)

    @cached_property
    def importances(self) -> tuple[Importance, ...]:
        """What each parameter explains, the most important first.

        Raises:
            ValueError: For a branch that does not exist.
        """
        return importances(self.response, within=self.within)

    def compare(self, parameter: str) -> OptionComparison:
        """Compare the options of a parameter; once.

        Raises:
            ValueError: For an unknown parameter, and for a branch that does not exist.
        """
        if parameter not in self._compared:
            self._compared[parameter] = compare_options(self.response, parameter, within=self.within)
        return self._compared[parameter]

    @cached_property
    def _compared(self) -> dict[str, OptionComparison]:
        return {}


Source = TrialTable | Fit


def fit_of(source: Source, objective: int | str | None, within: Mapping[str, Any] | None, seed: int) -> Fit:
    """Fit a table, unless that has been done."""
    return source if isinstance(source, Fit) else Fit(source, objective, within, seed)
