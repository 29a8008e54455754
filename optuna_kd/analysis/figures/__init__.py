"""The figures of a search, each with its words: functions from a table of trials to a `Chart`.

`optuna_kd.visualization` has them for studies. Nothing here imports torch; plotly is imported only here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optuna_kd.analysis.figures.chart import Cell, Chart
from optuna_kd.analysis.figures.curves import draw_curves
from optuna_kd.analysis.figures.fit import Fit
from optuna_kd.analysis.figures.front import draw_front
from optuna_kd.analysis.figures.history import draw_history
from optuna_kd.analysis.figures.importance import draw_importance
from optuna_kd.analysis.figures.ledger import draw_ledger
from optuna_kd.analysis.figures.options import draw_options
from optuna_kd.analysis.figures.parallel import draw_parallel
from optuna_kd.analysis.figures.survival import draw_survival
from optuna_kd.analysis.figures.tree import draw_tree
from optuna_kd.analysis.table import TrialTable

# All of them by name, in the order in which a report has them.
CHARTS: Mapping[str, Callable[[TrialTable], Chart]] = {
    "history": draw_history,
    "front": draw_front,
    "importance": draw_importance,
    "options": draw_options,
    "parallel": draw_parallel,
    "tree": draw_tree,
    "curves": draw_curves,
    "survival": draw_survival,
    "ledger": draw_ledger,
}

_FITTED: tuple[Callable[[Fit], Chart], ...] = (draw_importance, draw_options)


def draw_all(source: TrialTable | Fit) -> dict[str, Chart]:
    """Draw all of them; what several are made of is computed once."""
    fit = source if isinstance(source, Fit) else Fit(source)
    return {name: draw(fit) if draw in _FITTED else draw(fit.table) for name, draw in CHARTS.items()}  # type: ignore[arg-type]


__all__ = [
    "CHARTS",
    "Cell",
    "Chart",
    "Fit",
    "draw_all",
    "draw_curves",
    "draw_front",
    "draw_history",
    "draw_importance",
    "draw_ledger",
    "draw_options",
    "draw_parallel",
    "draw_survival",
    "draw_tree",
]
