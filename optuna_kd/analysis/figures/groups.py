"""Trials in groups by the options of one parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.wording import CHOICE, plain
from optuna_kd.analysis.table import TrialTable

MOST = len(style.SERIES)
OTHERS = "others"
_SMALLEST, _SMALLEST_SHARE = 3, 0.05  # a smaller group says nothing of its own
_COVERED = 0.5  # of the trials have to be in larger groups


def telling_parameter(table: TrialTable, column: int) -> str | None:
    """Find the parameter whose options tell the values apart best; None if there is none with two larger groups.

    By the variance between its options as a share of all, less what chance would explain (Wherry 1931), among the
    trials that have it.
    """
    values = table.values[:, column]
    finite = np.isfinite(values)
    best, found = 0.0, None
    for name, parameter in table.parameters.items():
        rows = parameter.rows[finite[parameter.rows]]
        groups = [group for group in _by_option(table, name, rows) if len(group) >= _least(table)]
        used = np.array(sorted(row for group in groups for row in group), np.int64)
        if not 2 <= len(groups) < MOST or len(used) <= max(len(groups), _COVERED * len(table)):
            continue
        known = values[used] / (np.abs(values[used]).max() or 1.0)  # so that no square overflows
        mean, total = known.mean(), float(((known - known.mean()) ** 2).sum())
        within = sum(
            float(((part - part.mean()) ** 2).sum())
            for part in (known[np.searchsorted(used, group)] for group in groups)
        )
        if not total > 0 or not np.isfinite(mean):
            continue
        explained = 1 - within / (len(used) - len(groups)) * (len(used) - 1) / total
        explained *= len(used) / len(table)  # a parameter that few trials have says little about all
        if explained > best:
            best, found = explained, name
    return found


def branches_by(table: TrialTable, name: str | None) -> Mapping[str, Sequence[int]]:
    """Give the rows of each option of a parameter, the most frequent first; small groups together as "others"."""
    if name is None:
        return {"all trials": list(range(len(table)))}
    groups = sorted(_by_option(table, name, table.parameters[name].rows), key=lambda rows: (-len(rows), rows))
    kept = [rows for rows in groups if len(rows) >= _least(table)][: MOST - 1] or groups[: MOST - 1]
    named = {plain(table.trials[rows[0]].params[name], CHOICE): rows for rows in kept}
    others = sorted(set(range(len(table))).difference(*named.values()))
    return {**named, OTHERS: others} if others else named


def _by_option(table: TrialTable, name: str, rows: np.ndarray) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        # By its text: choices may be anything, and 1, 1.0 and True are different ones.
        groups.setdefault(repr(table.trials[row].params[name]), []).append(row)
    return list(groups.values())


def _least(table: TrialTable) -> float:
    return max(_SMALLEST, _SMALLEST_SHARE * len(table))
