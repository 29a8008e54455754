"""Figures of any Optuna study, in the manner of `optuna.visualization`: `plot_...(study)` gives a plotly figure.

They show studies of one or several objectives, with conditional parameters, pruned, failed and running trials. What a
study has nothing to show of becomes a figure with one line that says what is missing.

To look at one: `figure.show()`. To keep it: `figure.write_html("history.html")`, or, as an image,
`figure.write_image("history.svg")` (also .png, .pdf; `width=900` in pixels), which needs Kaleido
(`pip install "optuna-kd[images]"`) and a Chromium or Chrome; `plotly_get_chrome` gets one.

`optuna_kd.analysis.figures` has the same figures with their words: a sentence for those who do not see them, and the
table of numbers behind each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.study import Study

from optuna_kd.analysis import figures
from optuna_kd.analysis.table import read_table

__all__ = [
    "plot_learning_curves",
    "plot_optimization_history",
    "plot_option_heatmap",
    "plot_parallel_coordinate",
    "plot_param_importances",
    "plot_pareto_front",
    "plot_rung_survival",
    "plot_search_tree",
    "plot_time_ledger",
]


def plot_optimization_history(study: Study, *, objective: int | str | None = None) -> go.Figure:
    """Draw what each trial was worth, how far it went, and the best value so far.

    Args:
        study: Any study.
        objective: The place or the name of the objective; None is the first.

    Raises:
        ValueError: For an objective that the study does not have.

    Example:
        >>> plot_optimization_history(study).show()
    """
    return figures.draw_history(read_table(study), objective).figure


def plot_pareto_front(study: Study, *, axes: Sequence[int | str] | None = None) -> go.Figure:
    """Draw two objectives of the complete trials, their Pareto front, its knee, and what breaks a constraint.

    Args:
        study: Any study of two or more objectives; the front is over all of them.
        axes: Two objectives, by place or by name: across, and up. None is the second one and the first one.

    Raises:
        ValueError: For objectives that the study does not have, and for other than two different ones.
    """
    return figures.draw_front(read_table(study), axes).figure


def plot_parallel_coordinate(study: Study, *, objective: int | str | None = None) -> go.Figure:
    """Draw the parameters of the best tenth of the trials against those of all others, conditional ones too.

    Args:
        study: Any study.
        objective: The place or the name of the objective; None is the first.

    Raises:
        ValueError: For an objective that the study does not have.
    """
    return figures.draw_parallel(read_table(study), objective).figure


def plot_param_importances(
    study: Study, *, objective: int | str | None = None, within: Mapping[str, Any] | None = None, seed: int = 0
) -> go.Figure:
    """Draw how much of the differences between recipes each parameter explains, conditional ones too, with intervals.

    Args:
        study: Any study; pruned trials count (see `optuna_kd.analysis.importances`).
        objective: The place or the name of the objective; None is the first.
        within: Options of categorical parameters, such as {"distance": "kl"}: only the branch where they hold.
        seed: Of the random draws.

    Raises:
        ValueError: For an objective that the study does not have, and for a branch that does not exist.
    """
    return figures.draw_importance(read_table(study), objective, within=within, seed=seed).figure


def plot_option_heatmap(
    study: Study, *, objective: int | str | None = None, within: Mapping[str, Any] | None = None, seed: int = 0
) -> go.Figure:
    """Draw what each option of the parameters that matter is worth, over all else that can be chosen.

    Args:
        study: Any study; pruned trials count (see `optuna_kd.analysis.compare_options`).
        objective: The place or the name of the objective; None is the first.
        within: Options of categorical parameters, such as {"distance": "kl"}: only the branch where they hold.
        seed: Of the random draws.

    Raises:
        ValueError: For an objective that the study does not have, and for a branch that does not exist.
    """
    return figures.draw_options(read_table(study), objective, within=within, seed=seed).figure


def plot_search_tree(study: Study, *, objective: int | str | None = None) -> go.Figure:
    """Draw the branches of a search as an icicle: as high as they were visited, as dark as they were good.

    Args:
        study: Any study.
        objective: The place or the name of the objective; None is the first.

    Raises:
        ValueError: For an objective that the study does not have.
    """
    return figures.draw_tree(read_table(study), objective).figure


def plot_learning_curves(study: Study, *, by: str | None = None, objective: int | str | None = None) -> go.Figure:
    """Draw CKA and loss, or what else was reported at the rungs, by the options of one parameter.

    Args:
        study: Any study whose trials report values before their end.
        by: The parameter; None is the one whose options tell the values apart best.
        objective: The place or the name of the objective that was reported; None is the first.

    Raises:
        ValueError: For an objective or a parameter that the study does not have.
    """
    return figures.draw_curves(read_table(study), by, objective).figure


def plot_rung_survival(study: Study) -> go.Figure:
    """Draw how many trials reached each rung, and what became of those that did not go on.

    Args:
        study: Any study whose trials report values before their end.
    """
    return figures.draw_survival(read_table(study)).figure


def plot_time_ledger(study: Study) -> go.Figure:
    """Draw what the trials took, by how they ended, and what stopping early and cheaper epochs saved.

    Args:
        study: Any study.
    """
    return figures.draw_ledger(read_table(study)).figure
