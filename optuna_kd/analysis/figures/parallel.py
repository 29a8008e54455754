"""Parallel coordinates for conditional spaces: what the best trials have in common.

Turned by a quarter: one row for each parameter, from the top down, so that names are read without tilting the head and
there is room on a phone. A line is a trial. Where a trial was not asked for a parameter, its line passes the column at
the right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.objective import column_of, name_of
from optuna_kd.analysis.figures.thinning import thin
from optuna_kd.analysis.figures.trials import hover, left_out, recipe_text
from optuna_kd.analysis.figures.wording import CHOICE, count, escape, listed, number, plain, share
from optuna_kd.analysis.table import Parameter, TrialTable
from optuna_kd.samplers.domains import domain_of

NAME = "parallel"
_ROWS = 10  # parameters
_LINES = 150  # of the other trials
_BEST_SHARE, _BEST_LIMIT = 0.1, 12
_ABSENT = 1.16  # where lines of trials pass that have no such parameter
_AGREED, _ELSEWHERE = 0.8, 0.6  # shares of the best, and of all others, for which a title says that they agree
_NOT_ASKED = "not asked"
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
_SPREAD = 0.05  # within which equal values lie side by side

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Axis:
    """A row of the figure.

    Args:
        name: Of the parameter.
        places: Of each trial, from 0 to 1; NaN where it does not have the parameter; [rows].
        ticks: Places and what they are called.
        options: What each trial has, for counting: its choice, or a quarter of the range; [rows].
    """

    name: str
    places: Array
    ticks: tuple[tuple[float, str], ...]
    options: tuple[str, ...]


def draw_parallel(table: TrialTable, objective: int | str | None = None, *, most: int = _ROWS) -> Chart:
    """Draw the parameters of the best tenth of the trials, twelve at most, against those of all others.

    Of many parameters, those are drawn in which the best trials differ most from the others.

    Args:
        table: The trials; pruned ones count with their place among the complete ones (`TrialTable.values`).
        objective: The place or the name of the objective; None is the first.
        most: Parameters that are drawn.

    Raises:
        ValueError: For an objective that the study does not have.
    """
    column = column_of(table, objective)
    varied = [
        axis for parameter in table.parameters.values() if len(set((axis := _axis(table, parameter)).options)) > 1
    ]
    usable = np.flatnonzero(np.isfinite(table.values[:, column]) & table.feasible)
    if not varied or len(usable) < 2:
        reason = (
            f"{count(len(usable), 'trial')} of this study {'has' if len(usable) == 1 else 'have'} a usable value and "
            f"{count(len(varied), 'parameter')} more than one value; a comparison needs two trials that differ."
        )
        return blank(NAME, "Nothing to compare yet", reason)
    ordered = usable[np.lexsort((table.numbers[usable], -table.gains(column)[usable]))]
    best = ordered[: min(_BEST_LIMIT, max(1, round(_BEST_SHARE * len(ordered))))]
    rest = np.sort(ordered[len(best) :])
    scores = [_differs(axis, best, rest) for axis in varied]
    kept = sorted(np.argsort(-np.array(scores), kind="stable")[:most].tolist())
    axes = [varied[place] for place in kept] + [_value_axis(table, column)]
    drawn = thin(rest, _LINES)
    figure = go.Figure()
    _add_lines(figure, axes, drawn)
    _add_best(figure, table, column, axes, best)
    _add_scales(figure, axes)
    title, agreed = _title(axes[:-1], best, rest)
    notes = left_out(table)
    if len(drawn) < len(rest):
        notes.append(f"{len(drawn)} of the other {count(len(rest), 'trial')} are drawn, evenly spaced.")
    if len(axes) - 1 < len(varied):
        notes.append(
            f"{len(axes) - 1} of {count(len(varied), 'parameter')} are drawn: those in which the best differ most."
        )
    return draw(
        NAME,
        figure,
        title=title,
        summary=f"{title}. {_shares(agreed, best, rest)}",
        columns=("parameter", "most frequent among the best", "share of the best", "share of the others"),
        rows=[(axis.name, *_most_frequent(axis, best, rest)) for axis in axes[:-1]],
        key=style.key(
            ("━●", style.BLUE, f"the best {len(best)}" if len(best) > 1 else "the best"), ("─", "#8A9097", "others")
        ),
        notes=notes,
        height=24 + 50 * len(axes),
    )


def _axis(table: TrialTable, parameter: Parameter) -> Axis:
    last = parameter.distributions[-1]
    if any(isinstance(each, CategoricalDistribution) for each in parameter.distributions):
        return _choices(table, parameter)  # also where it was a number once: then each number is a name
    places = np.full(len(table), math.nan)
    for row in parameter.rows.tolist():
        places[row] = float(table.trials[row].params[parameter.name])
    logarithmic = all(getattr(each, "log", False) for each in parameter.distributions)
    scaled = np.log(places) if logarithmic else places / 2  # halved, so that no difference overflows
    low, high = float(np.nanmin(scaled)), float(np.nanmax(scaled))
    scaled = (scaled - low) / ((high - low) or 1.0)
    middle = math.exp((low + high) / 2) if logarithmic else low + high
    ends = np.nanmin(places), middle, np.nanmax(places)
    ticks = tuple((place, number(value, 3)) for place, value in zip((0.0, 0.5, 1.0), ends, strict=True))
    if domain_of(last).enumerable:
        known = sorted(set(places[parameter.rows].tolist()))
        ticks = tuple((float(scaled[places == value][0]), number(value, 3)) for value in known)
    exact = len(ticks) > 3 or domain_of(last).enumerable
    options = [
        "" if math.isnan(place) else number(place, 3) if exact else _QUARTERS[min(3, int(4 * share))]
        for place, share in zip(places.tolist(), np.nan_to_num(scaled).tolist(), strict=True)
    ]
    return Axis(plain(parameter.name), scaled, ticks, tuple(options))


def _choices(table: TrialTable, parameter: Parameter) -> Axis:
    known: list[str] = []
    for distribution in parameter.distributions:
        if isinstance(distribution, CategoricalDistribution):
            known += [repr(choice) for choice in distribution.choices]
    taken = {row: repr(table.trials[row].params[parameter.name]) for row in parameter.rows.tolist()}
    names = {
        repr(table.trials[row].params[parameter.name]): plain(table.trials[row].params[parameter.name], CHOICE)
        for row in parameter.rows.tolist()
    }
    used = [choice for choice in dict.fromkeys([*known, *taken.values()]) if choice in names]
    where = {choice: place / max(1, len(used) - 1) for place, choice in enumerate(used)}
    places = np.full(len(table), math.nan)
    options = [""] * len(table)
    for row, choice in taken.items():
        places[row], options[row] = where[choice], names[choice]
    return Axis(plain(parameter.name), places, tuple((where[choice], names[choice]) for choice in used), tuple(options))


def _value_axis(table: TrialTable, column: int) -> Axis:
    values = table.values[:, column]
    known = np.isfinite(values)
    low, high = float(values[known].min()), float(values[known].max())
    places = np.full(len(values), math.nan)
    places[known] = (values[known] / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    ticks = ((0.0, number(low)), (1.0, number(high))) if low < high else ((0.0, number(low)),)
    return Axis(name_of(table, column), places, ticks, ())


def _differs(axis: Axis, best: NDArray[np.int64], rest: NDArray[np.int64]) -> float:
    """Give half the sum of the differences of the shares of all options (total variation), from 0 to 1."""
    of_best, of_rest = (Counter(axis.options[row] for row in rows.tolist()) for rows in (best, rest))
    names = of_best.keys() | of_rest.keys()
    return sum(
        abs(of_best[name] / len(best) - of_rest[name] / max(1, len(rest))) for name in sorted(names)
    ) / 2  # fmt: skip


def _add_lines(figure: go.Figure, axes: Sequence[Axis], rows: NDArray[np.int64]) -> None:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for row in rows.tolist():
        line = _line(axes, row)
        xs += [*line, None]
        ys += [*(-place for place in range(len(axes))), None]
    figure.add_trace(
        go.Scatter(x=xs, y=ys, mode="lines", line={"color": "rgba(120,128,136,0.35)", "width": 1}, hoverinfo="skip")
    )


def _add_best(figure: go.Figure, table: TrialTable, column: int, axes: Sequence[Axis], rows: NDArray[np.int64]) -> None:
    for row in rows[::-1].tolist():  # the best on top
        text = hover(
            f"trial {table.numbers[row]}: {name_of(table, column)} {number(float(table.values[row, column]))}",
            recipe_text(table.trials[row]),
        )
        figure.add_trace(
            go.Scatter(
                x=_line(axes, row),
                y=[-place for place in range(len(axes))],
                mode="lines+markers",
                line={"color": style.BLUE, "width": 2},
                marker={"color": style.BLUE, "size": 6},
                opacity=1.0 if len(rows) < 8 else 0.8,
                text=text,
                hovertemplate="%{text}<extra></extra>",
            )
        )


def _line(axes: Sequence[Axis], row: int) -> list[float]:
    """Give where the line of a trial passes the rows; equal values side by side."""
    aside = ((row * 0.618034) % 1 - 0.5) * _SPREAD
    return [
        round((_ABSENT if math.isnan(axis.places[row]) else float(axis.places[row])) + aside * bool(axis.options), 3)
        for axis in axes
    ]


def _add_scales(figure: go.Figure, axes: Sequence[Axis]) -> None:
    """Draw the rows themselves: a line with the name above it, and as many ticks below as a phone has room for."""
    absent = any(np.isnan(axis.places).any() for axis in axes[:-1])
    width = _ABSENT + 0.06 if absent else 1.06
    texts: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for place, axis in enumerate(axes):
        rules.append({"x0": -0.03, "x1": 1.03, "y0": -place, "y1": -place})
        name = {"text": f"<b>{escape(axis.name)}</b>", "xanchor": "left", "yshift": 12}
        texts.append({"x": -0.05, "y": -place, **name})
        for where, text in _that_fit(axis.ticks, style.PHONE / (width + 0.06)):
            side = "left" if where < 0.02 else "right" if where > 0.98 else "center"
            quiet = {"size": style.SMALL, "color": style.QUIET}
            texts.append({"x": where, "y": -place, "text": escape(text), "xanchor": side, "yshift": -10, "font": quiet})
    if absent:
        rules.append({"x0": _ABSENT, "x1": _ABSENT, "y0": 0.1, "y1": 1.9 - len(axes)})
        quiet = {"size": style.SMALL, "color": style.QUIET}
        texts.append({"x": width, "y": 0, "text": _NOT_ASKED, "xanchor": "right", "yshift": 12, "font": quiet})
    figure.update_layout(
        shapes=[
            {"type": "line", "layer": "below", "line": {"color": style.PALE, "width": 1}, **rule} for rule in rules
        ],
        annotations=[
            {"showarrow": False, "borderpad": 0, "bgcolor": "rgba(255,255,255,0.8)", **text} for text in texts
        ],
    )
    figure.update_xaxes(visible=False, range=[-0.06, width])
    figure.update_yaxes(visible=False, range=[-len(axes) + 0.5, 0.5])


def _that_fit(ticks: Sequence[tuple[float, str]], pixels: float) -> list[tuple[float, str]]:
    """Take the ticks at the ends, then every one that does not touch those taken."""
    taken: list[tuple[float, float, tuple[float, str]]] = []
    for tick in [*ticks[:1], *ticks[-1:], *ticks[1:-1]]:
        where, size = tick[0] * pixels, len(tick[1]) * 6.5 + 6
        low = where if tick[0] < 0.02 else where - size if tick[0] > 0.98 else where - size / 2
        if all(low > end or low + size < start for start, end, _ in taken):
            taken.append((low, low + size, tick))
    return [tick for _, _, tick in sorted(taken)]


def _title(axes: Sequence[Axis], best: NDArray[np.int64], rest: NDArray[np.int64]) -> tuple[str, list[Axis]]:
    """Say on what the best agree, most telling first, and give these axes."""
    agreed: list[tuple[float, Axis]] = []
    for axis in axes:
        option, of_best, of_rest = _most_frequent(axis, best, rest)
        if option and of_best >= _AGREED and of_rest <= _ELSEWHERE:
            agreed.append((of_best - of_rest, axis))
    chosen = [axis for _, axis in sorted(agreed, key=lambda found: -found[0])[:3]]
    if len(best) == 1:
        return f"The best trial and {count(len(rest), 'other')}", []
    if not chosen:
        return f"The best {len(best)} trials agree on no single option", []
    said = listed(_said(axis.name, _most_frequent(axis, best, rest)[0]) for axis in chosen)
    return f"The best {len(best)} trials agree on {said}", chosen


def _said(name: str, option: str) -> str:
    if option == _NOT_ASKED:
        return f"having no {name}"
    return f"{name} in its {option}" if option in _QUARTERS else f"{name} = {option}"


def _most_frequent(axis: Axis, best: NDArray[np.int64], rest: NDArray[np.int64]) -> tuple[str, float, float]:
    """Give the option that most of the best have, and its share among the best and among the others."""
    option, times = Counter(axis.options[row] for row in best.tolist()).most_common(1)[0]
    others = sum(axis.options[row] == option for row in rest.tolist())
    return option or _NOT_ASKED, times / len(best), others / max(1, len(rest))


def _shares(agreed: Sequence[Axis], best: NDArray[np.int64], rest: NDArray[np.int64]) -> str:
    parts = []
    for axis in agreed:
        option, of_best, of_rest = _most_frequent(axis, best, rest)
        parts.append(f"{_said(axis.name, option)}: {share(of_best, 1)} of the best, {share(of_rest, 1)} of the others")
    return "; ".join(parts) + "." if parts else "Their most frequent options stand in the table."
