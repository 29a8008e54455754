"""CKA and loss at the rungs, by branch: how fast each kind of recipe learns, and how near it comes to the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.groups import OTHERS, branches_by, telling_parameter
from optuna_kd.analysis.figures.objective import axis_of, column_of
from optuna_kd.analysis.figures.passages import step_word
from optuna_kd.analysis.figures.rung_values import Curve, RungValues, rung_values
from optuna_kd.analysis.figures.wording import CHOICE, count, escape, number, plain, shown
from optuna_kd.analysis.table import TrialTable
from optuna_kd.registry import suggest_name

NAME = "curves"
_LINES = 120  # trials that are drawn one by one behind the medians
_POINTS = 20  # of each of them
_MEDIANS = 60  # points of a median
_TICKS = 12  # rungs that have a tick each
_PANEL = 190  # pixels, of which the drawing has about 150

Medians = Mapping[int, tuple[float, int]]  # by rung: the median, and of how many trials


def draw_curves(table: TrialTable, by: str | None = None, objective: int | str | None = None) -> Chart:
    """Draw CKA and loss, or what else was reported at the rungs: the median of each branch.

    Args:
        table: The trials.
        by: The parameter whose options are the branches; None is the one whose options tell the values apart best.
        objective: The place or the name of the objective that was reported; None is the first.

    Raises:
        ValueError: For an objective or a parameter that the study does not have.
    """
    column = column_of(table, objective)
    if by is not None and by not in table.parameters:
        raise suggest_name("parameter", by, table.parameters)
    panels = rung_values(table, column)
    if not panels:
        return blank(
            NAME,
            "No curves",
            "No trial of this study reported a value before its end, so there are no curves. Use trial.report, or "
            "optuna_kd.pruners.report in a study with several objectives.",
        )
    name = by if by is not None else telling_parameter(table, column)
    branches = branches_by(table, name)
    word = step_word(table)
    medians = [{branch: _medians(panel.curves, rows) for branch, rows in branches.items()} for panel in panels]
    figure = make_subplots(len(panels), 1, shared_xaxes=True, vertical_spacing=0.07)
    for place, (panel, found) in enumerate(zip(panels, medians, strict=True), 1):
        _add_trials(figure, place, panel)
        _add_medians(figure, place, panel, found)
    _set_rungs(figure, sorted({rung for panel in panels for curve in panel.curves for rung in curve}))
    figure.update_xaxes(title_text=word, row=len(panels), col=1)
    title, summary = _words(panels[0], medians[0], name, word)
    notes = ["Lines are medians; a rung has only the trials that reached it."]
    if panels[0].objective.name != "CKA":
        notes.append("No CKA was stored at the rungs.")
    return draw(
        NAME,
        figure,
        title=title,
        summary=summary,
        columns=("branch", "what", word, "median", "trials"),
        rows=[
            (branch, panel.objective.name, rung, median, many)
            for panel, found in zip(panels, medians, strict=True)
            for branch, known in found.items()
            for rung, (median, many) in known.items()
        ],
        key=_key(branches, name, any(panel.control for panel in panels)),
        notes=notes,
        height=60 + _PANEL * len(panels),
    )


def _medians(curves: Sequence[Curve], rows: Sequence[int]) -> Medians:
    rungs = sorted({rung for row in rows for rung in curves[row]})
    if len(rungs) > _MEDIANS:
        rungs = [rungs[place] for place in np.unique(np.linspace(0, len(rungs) - 1, _MEDIANS).astype(int)).tolist()]
    found = {rung: [curves[row][rung] for row in rows if rung in curves[row]] for rung in rungs}
    return {rung: (float(np.median(values)), len(values)) for rung, values in found.items()}


def _add_medians(figure: go.Figure, place: int, panel: RungValues, medians: Mapping[str, Medians]) -> None:
    known = {branch: found for branch, found in medians.items() if found}
    values = np.array([median for found in known.values() for median, _ in found.values()], float)
    ends = [found[max(found)][0] for found in known.values()]
    axis, _ = axis_of(panel.objective, values, keep=np.array([*ends, *panel.control.values()], float))
    figure.update_yaxes(axis | {"title_text": escape(panel.label)}, row=place, col=1)
    labels = []
    marks = dict(zip(medians, style.SERIES, strict=False))
    last = max((max(found) for found in known.values()), default=0)
    for branch, found in known.items():
        mark = marks[branch]
        figure.add_trace(
            go.Scatter(
                x=list(found),
                y=[float(f"{median:.6g}") for median, _ in found.values()],
                mode="lines+markers" if len(found) <= _TICKS else "lines",
                line={"color": mark.colour, "width": 2.4, "dash": mark.dash},
                marker={"symbol": mark.symbol, "size": 8, "line": {"width": 1, "color": style.PAPER}},
                text=[
                    f"{shown(branch, CHOICE)}: median {number(median)} of {count(many, 'trial')}"
                    for median, many in found.values()
                ],
                hovertemplate="%{text}<extra></extra>",
            ),
            row=place,
            col=1,
        )
        if max(found) == last:
            labels.append((found[last][0], plain(branch, 10), mark.colour))
    if panel.control:
        figure.add_trace(
            go.Scatter(
                x=list(panel.control),
                y=list(panel.control.values()),
                mode="lines",
                line={"color": style.INK, "width": 1.6, "dash": "dot"},
                hovertemplate="plain KD %{y:.4g}<extra></extra>",
            ),
            row=place,
            col=1,
        )
        if max(panel.control) == last:
            labels.append((panel.control[last], "plain KD", style.INK))
    _label_ends(figure, place, labels, last, axis)


def _label_ends(
    figure: go.Figure, place: int, labels: Sequence[tuple[float, str, str]], last: int, axis: Mapping[str, Any]
) -> None:
    """Write the names of the lines at their ends, moved apart where they would touch."""
    if "range" not in axis or len(labels) < 2:
        return
    low, high = axis["range"]
    pixels = 150 / (high - low)
    below = -math.inf
    for value, text, colour in sorted(labels):
        where = (math.log10(value) if "type" in axis else value) * pixels
        moved = max(where, below + style.SMALL * style.LINE)
        below = moved
        figure.add_annotation(
            x=last, y=where / pixels, yshift=moved - where, xshift=7, text=escape(text), xanchor="left",
            showarrow=False, font={"color": colour, "size": style.SMALL}, row=place, col=1,
        )  # fmt: skip


def _add_trials(figure: go.Figure, place: int, panel: RungValues) -> None:
    """Draw single trials behind the medians, so that the spread is seen."""
    known = [curve for curve in panel.curves if len(curve) > 1]
    xs: list[float | None] = []
    ys: list[float | None] = []
    for curve in known[:: max(1, math.ceil(len(known) / _LINES))]:
        rungs = sorted(curve)
        rungs = rungs[:: max(1, math.ceil(len(rungs) / _POINTS))]
        xs += [*rungs, None]
        ys += [*(float(f"{curve[rung]:.5g}") for rung in rungs), None]
    figure.add_trace(
        go.Scatter(x=xs, y=ys, mode="lines", line={"color": "rgba(120,128,136,0.25)", "width": 1}, hoverinfo="skip"),
        row=place,
        col=1,
    )


def _set_rungs(figure: go.Figure, rungs: Sequence[int]) -> None:
    width = (rungs[-1] - rungs[0]) or 1
    figure.update_xaxes(range=[rungs[0] - 0.05 * width, rungs[-1] + 0.25 * width])  # room for the names of the lines
    if len(rungs) <= _TICKS:
        figure.update_xaxes(tickvals=list(rungs))


def _key(branches: Mapping[str, Sequence[int]], name: str | None, control: bool) -> str:
    items = [
        (mark.glyph, mark.colour, f"{branch} ({len(rows):,})")
        for mark, (branch, rows) in zip(style.SERIES, branches.items(), strict=False)
    ]
    if name is not None:
        items.insert(0, ("", style.INK, f"{plain(name)}:"))
    return style.key(*items, *([("┄", style.INK, "plain KD")] if control else []))


def _words(panel: RungValues, medians: Mapping[str, Medians], name: str | None, word: str) -> tuple[str, str]:
    """Compare the branches where most of them can be compared: at the last rung that two of them reached."""
    what = panel.objective.name
    named = {branch: found for branch, found in medians.items() if found and branch != OTHERS}
    shared = [rung for rung in sorted(set().union(*named.values())) if sum(rung in each for each in named.values()) > 1]
    if name is None or not shared:
        found = next(known for known in medians.values() if known)
        last = max(found)
        title = f"Median {what} at {word} {last}: {number(found[last][0], 3)}"
        return title, f"{title}, of {count(found[last][1], 'trial')}."
    rung = shared[-1]
    ends = {branch: found[rung][0] for branch, found in named.items() if rung in found}
    ordered = sorted(ends, key=lambda branch: -ends[branch] if panel.objective.maximize else ends[branch])
    best, worst = ordered[0], ordered[-1]
    title = (
        f"{plain(name)} = {best} has the best {what} at {word} {rung}: {number(ends[best], 3)}, "
        f"{worst} has {number(ends[worst], 3)}"
    )
    said = ", ".join(f"{branch}: {number(ends[branch])}" for branch in ordered)
    return title, f"Median {what} at {word} {rung} by the options of {plain(name)}: {said}."
