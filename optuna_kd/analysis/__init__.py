"""What a search shows, on any Optuna study: a table of its trials, statistics. Nothing here imports torch.

The names are imported when they are first used, so that none costs more than it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna_kd.analysis.statistics import (
        Comparison,
        bootstrap_interval,
        compare,
        detectable_difference,
        holm,
        mean_interval,
        wilcoxon_p,
    )
    from optuna_kd.analysis.table import Objective, Parameter, TrialTable, read_table
    from optuna_kd.analysis.verdict import judge

__all__ = [
    "Comparison",
    "Objective",
    "Parameter",
    "TrialTable",
    "bootstrap_interval",
    "compare",
    "detectable_difference",
    "holm",
    "judge",
    "mean_interval",
    "read_table",
    "wilcoxon_p",
]

_HOMES = {
    "Comparison": "statistics",
    "Objective": "table",
    "Parameter": "table",
    "TrialTable": "table",
    "bootstrap_interval": "statistics",
    "compare": "statistics",
    "detectable_difference": "statistics",
    "holm": "statistics",
    "judge": "verdict",
    "mean_interval": "statistics",
    "read_table": "table",
    "wilcoxon_p": "statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
