"""The heat map of options: what each option of the parameters that matter is worth, all else being equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Cell, Chart, blank, draw
from optuna_kd.analysis.figures.fit import Source, fit_of
from optuna_kd.analysis.figures.objective import label_of
from optuna_kd.analysis.figures.trials import hover, left_out
from optuna_kd.analysis.figures.wording import count, escape, number, plain
from optuna_kd.analysis.options import Option, OptionComparison
from optuna_kd.analysis.table import Objective

NAME = "options"
_PARAMETERS = 6
_MOST = 12  # options of a parameter; of more, the best ones and the worst one
_ACROSS = 4  # cells in a line: on a phone each has room for twelve letters
_NAME = 12
_HEADING, _CELL = 0.62, 1.0  # heights of a name and of a line of cells, in cells
_PIXELS = 38  # of a cell


def draw_options(
    source: Source,
    objective: int | str | None = None,
    *,
    within: Mapping[str, Any] | None = None,
    seed: int = 0,
    across: int = _ACROSS,
    most: int | None = None,
) -> Chart:
    """Draw what each option is worth: the mean over everything else that can be chosen.

    Drawn are the parameters that matter most, each with its options, the best first.

    Args:
        source: The trials; or a `Fit` of them, and then the other arguments do not count.
        objective: The place or the name of the objective; None is the first.
        within: Options of gates, such as {"method": "kl"}: only the branch where they hold is looked at.
        seed: Of the random draws.
        across: Options in a line.
        most: Lines; what matters less is left out. None for as many as there are.

    Raises:
        ValueError: For an objective that the study does not have, and for a branch that does not exist.
    """
    fit = fit_of(source, objective, within, seed)
    if fit.obstacle:
        return blank(NAME, "What options are worth is not known yet", fit.obstacle)
    ranked = [row.parameter for row in fit.importances]
    found = [fit.compare(name) for name in ranked[:_PARAMETERS]]
    found = [comparison for comparison in found if len(comparison.options) > 1]
    if most is not None:
        used = np.cumsum([math.ceil(len(_some(comparison.options)) / across) for comparison in found])
        found = found[: max(1, int((used <= most).sum()))]
    if not found:
        return blank(NAME, "No options to compare", "Every parameter of this study has one option only.")
    label = label_of(fit.table, fit.column)
    title = _title(found, fit.response.objective)
    notes = ["Means over all else that can be chosen, ± half of their 90 % intervals.", *left_out(fit.table)]
    if len(ranked) > len(found):
        notes.append(f"{len(found)} of {count(len(ranked), 'parameter')} are drawn, those that matter most.")
    if any(len(comparison.options) > _MOST for comparison in found):
        notes.append(f"Of more than {_MOST} options the best ones and the worst are drawn.")
    figure, height = _cells(found, label, across)
    return draw(
        NAME,
        figure,
        title=title,
        summary=f"{title}. {_told(found)}",
        columns=("parameter", "option", "mean", "from", "to", "trials", "best"),
        rows=[_row(comparison, option) for comparison in found for option in _some(comparison.options)],
        notes=notes,
        height=round(height * _PIXELS) + 74,
    )


def _cells(found: Sequence[OptionComparison], label: str, across: int) -> tuple[go.Figure, float]:
    edges, headings = [0.0], list[tuple[float, str]]()
    values, texts, hovers = list[list[float | None]](), list[list[str]](), list[list[str]]()
    for comparison in found:
        where = " and ".join(str(condition) for condition in comparison.branch)
        told = f' <span style="color:{style.QUIET}">where {escape(plain(where, 24))}</span>' if where else ""
        headings.append((edges[-1] + _HEADING / 2, f"<b>{escape(plain(comparison.parameter))}</b>{told}"))
        edges.append(edges[-1] + _HEADING)
        values.append([None] * across)
        texts.append([""] * across)
        hovers.append([""] * across)
        options = _some(comparison.options)
        for first in range(0, len(options), across):
            line = options[first : first + across]
            rest = [""] * (across - len(line))
            edges.append(edges[-1] + _CELL)
            values.append(
                [float(f"{_shown(option.mean, comparison.objective):.6g}") for option in line] + [None] * len(rest)
            )
            texts.append([_cell(option, comparison.objective) for option in line] + rest)
            hovers.append([_about(option, comparison) for option in line] + rest)
    figure = go.Figure(
        go.Heatmap(
            x=list(range(across)),
            y=edges,
            z=values,
            text=texts,
            customdata=hovers,
            texttemplate="%{text}",
            textfont={"color": style.INK, "size": style.SMALL - 0.5},
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=style.SCALE,
            reversescale=not found[0].objective.maximize,
            xgap=3,
            ygap=3,
            colorbar=style.colour_bar(f"mean {label}"),
        )
    )
    figure.update_layout(
        annotations=[
            {"x": -0.48, "y": y, "text": text, "xanchor": "left", "showarrow": False, "yshift": -2}
            for y, text in headings
        ]
    )
    figure.update_xaxes(visible=False, range=[-0.5, across - 0.5])
    figure.update_yaxes(visible=False, range=[edges[-1], 0])
    return figure, edges[-1]


def _row(comparison: OptionComparison, option: Option) -> tuple[Cell, ...]:
    means = (_shown(value, comparison.objective) for value in (option.mean, option.mean_low, option.mean_high))
    return (plain(comparison.parameter), plain(_name(option)), *means, option.visits, option.best)


def _some(options: Sequence[Option]) -> list[Option]:
    return list(options) if len(options) <= _MOST else [*options[: _MOST - 1], options[-1]]


def _cell(option: Option, objective: Objective) -> str:
    mean, low, high = (_shown(value, objective) for value in (option.mean, option.mean_low, option.mean_high))
    return f"<b>{escape(plain(_name(option), _NAME))}</b><br>{number(mean, 3)} ±{number(high / 2 - low / 2, 1)}"


def _name(option: Option) -> Any:
    if option.low is None or option.high is None:
        return option.value
    low, high = number(option.low, 2), number(option.high, 2)
    return number(option.low) if option.low == option.high else f"{low} to {high}"


def _about(option: Option, comparison: OptionComparison) -> str:
    mean, low, high = (
        number(_shown(value, comparison.objective)) for value in (option.mean, option.mean_low, option.mean_high)
    )
    return hover(
        f"{plain(comparison.parameter)} = {plain(_name(option))}",
        f"mean {mean}, 90 % interval {low} to {high}",
        f"{count(option.visits, 'trial')}" + ("" if option.best is None else f", the best {number(option.best)}"),
    )


def _shown(value: float, objective: Objective) -> float:
    """Give a mean in the unit of the objective; of logarithms it is the geometric one."""
    return math.exp(value) if objective.logarithmic else value


def _title(found: Sequence[OptionComparison], objective: Objective) -> str:
    """Name the largest difference beyond noise of the parameter that matters most."""
    for comparison in found:
        sure = [each for each in comparison.differences if each.beyond_noise]
        if not sure:
            continue
        difference, name = sure[0], plain(comparison.parameter)
        options = f"{name}: {plain(_name(difference.better))} is better than {plain(_name(difference.worse))}"
        if objective.logarithmic:
            return f"{options} by a factor of {number(math.exp(difference.gap), 3)}"
        return f"{options} by {number(difference.gap, 2)} ({number(difference.low, 2)} to {number(difference.high, 2)})"
    return "No option differs from another beyond noise yet"


def _told(found: Sequence[OptionComparison]) -> str:
    parts = []
    for comparison in found[:3]:
        ends = [
            f"{word} {plain(_name(option))} with a mean of {number(_shown(option.mean, comparison.objective))}"
            for word, option in (("best", comparison.options[0]), ("worst", comparison.options[-1]))
        ]
        parts.append(f"{plain(comparison.parameter)}: {', '.join(ends)}")
    return "; ".join(parts) + "."
