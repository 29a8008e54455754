"""A search for a recipe, small enough for a test."""

from __future__ import annotations

from typing import Any

from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.result import SearchResult

SMALL: dict[str, Any] = {
    "trials": 4,
    "epochs": 1,
    "seeds": 2,
    "confirm": (2, 1),
    "proxy": ProxyConfig(epochs=2, rungs=(1, 2)),
    "study_name": "small",
    "progress": False,
}


def figures(result: SearchResult) -> list[tuple[str, str | None, tuple[float, ...]]]:
    return [(row.method, row.recipe, row.accuracies) for row in result.rows]
