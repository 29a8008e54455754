"""Which parameters matter, with intervals: overall, and inside the branch where a parameter exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.fit import Fit, Source, fit_of
from optuna_kd.analysis.figures.objective import name_of
from optuna_kd.analysis.figures.trials import left_out
from optuna_kd.analysis.figures.wording import CHOICE, count, escape, listed, plain, share
from optuna_kd.analysis.importance import Importance
from optuna_kd.analysis.telling import searched, telling

NAME = "importance"
_ROWS = 12  # parameters
_OVERALL = style.Mark(style.BLUE, "circle", "●")
_INSIDE = style.Mark(style.VERMILION, "diamond-open", "◇", dash="dot")
_EVERYWHERE = 0.995  # a parameter that so many recipes have is there always


def draw_importance(
    source: Source,
    objective: int | str | None = None,
    *,
    within: Mapping[str, Any] | None = None,
    seed: int = 0,
    most: int = _ROWS,
) -> Chart:
    """Draw how much of the differences between recipes each parameter explains, with 90 % intervals.

    Args:
        source: The trials; or a `Fit` of them, and then the other arguments do not count.
        objective: The place or the name of the objective; None is the first.
        within: Options of gates, such as {"method": "kl"}: only the branch where they hold is looked at.
        seed: Of the random draws.
        most: Parameters that are drawn.

    Raises:
        ValueError: For an objective that the study does not have, and for a branch that does not exist.
    """
    fit = fit_of(source, objective, within, seed)
    if fit.obstacle:
        return blank(NAME, "What matters is not known yet", fit.obstacle)
    found = fit.importances
    if not found or found[0].share == 0:
        reason = "All trials are worth the same, so no parameter explains a difference."
        return blank(NAME, "Nothing matters so far", reason)
    rows = found[:most]
    title = _title(found, fit)
    objective_name = name_of(fit.table, fit.column)
    told = "; ".join(f"{plain(row.parameter)} {_interval(row.share, row.low, row.high)}" for row in rows[:3])
    conditional = any(row.presence < _EVERYWHERE for row in rows)
    items = [(_OVERALL.glyph, _OVERALL.colour, "of all differences")]
    items += [(_INSIDE.glyph, _INSIDE.colour, "of those where it exists")] if conditional else []
    notes = ["Lines are 90 % intervals.", *left_out(fit.table)]
    if len(found) > len(rows):
        notes.append(f"The first {len(rows)} of {count(len(found), 'parameter')} are drawn.")
    return draw(
        NAME,
        _dots(rows),
        title=title,
        summary=f"{title}. Shares of the differences in {objective_name} that parameters explain: {told}.",
        columns=("parameter", "share", "from", "to", "share where it exists", "exists in", "trials"),
        rows=[
            (plain(row.parameter), row.share, row.low, row.high, row.inside, row.presence, row.visits) for row in found
        ],
        key=style.key(*items),
        notes=notes,
        height=56 + 40 * len(rows),
    )


def _dots(rows: Sequence[Importance]) -> go.Figure:
    figure = go.Figure()
    for mark, name, aside in ((_INSIDE, "inside", 0.14), (_OVERALL, "share", 0.0)):
        shown = [place for place, row in enumerate(rows) if name == "share" or row.presence < _EVERYWHERE]
        middles = [getattr(rows[place], name) for place in shown]
        lows = [getattr(rows[place], "inside_low" if name == "inside" else "low") for place in shown]
        highs = [getattr(rows[place], "inside_high" if name == "inside" else "high") for place in shown]
        figure.add_trace(
            go.Scatter(
                x=[round(100 * value, 2) for value in middles],
                y=[place + aside for place in shown],
                mode="markers",
                marker={"color": mark.colour, "symbol": mark.symbol, "size": 9, "line": {"width": 1.5}},
                error_x={
                    "type": "data",
                    "array": [
                        round(100 * max(0.0, high - value), 2) for high, value in zip(highs, middles, strict=True)
                    ],
                    "arrayminus": [
                        round(100 * max(0.0, value - low), 2) for low, value in zip(lows, middles, strict=True)
                    ],
                    "color": mark.colour,
                    "thickness": 2 if name == "share" else 1,
                    "width": 0 if name == "share" else 3,
                },
                text=[_interval(*each) for each in zip(middles, lows, highs, strict=True)],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    figure.update_layout(
        annotations=[
            {"x": 0, "y": place, "xanchor": "left", "yshift": 14, "showarrow": False, "text": _heading(row)}
            for place, row in enumerate(rows)
        ]
    )
    figure.update_yaxes(visible=False, range=[len(rows) - 0.5, -0.75])
    end = min(102.0, 108 * max(max(row.high, row.inside_high * (row.presence < _EVERYWHERE)) for row in rows))
    figure.update_xaxes(
        title_text="% of the differences explained", range=[-0.01 * end, end], showgrid=True, gridcolor=style.RULE
    )
    return figure


def _heading(row: Importance) -> str:
    told = ""
    if row.presence < _EVERYWHERE:
        gates = [condition for condition in row.branch if condition.options]
        told = f" where {plain(gates[-1], 24)}" if gates else f" in {share(row.presence, 1)} of the recipes"
    return f'<b>{escape(plain(row.parameter, 24))}</b><span style="color:{style.QUIET}">{escape(told)}</span>'


def _interval(value: float, low: float, high: float) -> str:
    return f"{share(value, 1)} ({share(low, 1)} to {share(high, 1)})"


def _title(found: Sequence[Importance], fit: Fit) -> str:
    within = fit.within or {}
    told = ", ".join(f"{plain(name)} = {plain(option, CHOICE)}" for name, option in within.items())
    where = f" where {told}" if within else ""
    if len(rows := searched(fit.response.table, found)) == 1:
        return f"{plain(rows[0].parameter)} is the only parameter{where}: there is none to compare it with"
    sure = telling(fit.response, found, within)
    if not sure:
        return f"No parameter can be told from noise yet{where}"
    first = sure[0]
    rivals = [row for row in sure[1:3] if row.high > first.low]
    if not rivals:
        share_of_first = _interval(first.share, first.low, first.high)
        return f"{plain(first.parameter)} matters most{where}: it explains {share_of_first} of the differences"
    names = listed(f"{plain(row.parameter)} ({share(row.share, 1)})" for row in (first, *rivals))
    return f"The largest shares of the differences{where} come from {names}"
