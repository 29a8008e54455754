"""Fewer points than trials, where there are many, and the note that says so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optuna_kd.analysis.figures.style import POINTS
from optuna_kd.analysis.figures.wording import count

Rows = NDArray[np.int64]


def thin(rows: Rows, limit: int = POINTS, keep: Rows | None = None) -> Rows:
    """Take evenly spaced rows where there are more than `limit`, and those in `keep` in any case; ascending."""
    if len(rows) <= limit:
        return rows
    places = np.unique(np.linspace(0, len(rows) - 1, limit).astype(np.int64))
    kept = rows[:0] if keep is None else np.intersect1d(keep, rows)
    return np.union1d(rows[places], kept)


def thinned(drawn: int, known: int, noun: str = "trial") -> list[str]:
    """Say how many are drawn, if not all are."""
    return [f"{drawn:,} of {count(known, noun)} are drawn, evenly spaced."] if drawn < known else []
