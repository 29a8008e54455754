"""The Pareto front: what can be had for what, which trials break a constraint, and the knee to recommend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.objective import axis_of, name_of, quantity_of
from optuna_kd.analysis.figures.passages import Fate, passages
from optuna_kd.analysis.figures.thinning import thin, thinned
from optuna_kd.analysis.figures.trials import hover, recipe_text
from optuna_kd.analysis.figures.wording import change, count, escape, number
from optuna_kd.analysis.table import TrialTable, place_of
from optuna_kd.pareto import by_knee, pareto_order
from optuna_kd.scales import TINY, on_scale

NAME = "front"
_OTHERS, _FRONT, _BROKEN = (
    style.Mark("#8A9097", "circle", "●"),
    style.Mark(style.BLUE, "square", "■"),
    style.Mark(style.VERMILION, "x-thin", "×"),
)
_KNEE = style.Mark(style.INK, "star", "★")

Rows = NDArray[np.int64]


def draw_front(table: TrialTable, axes: Sequence[int | str] | None = None) -> Chart:
    """Draw two objectives of the complete trials, their front over all objectives, and its knee.

    The knee is the trial of the front that is nearest to the best of every objective (`optuna_kd.pareto.by_knee`),
    the one that `optuna_kd.front` puts first. Trials that break a constraint are marked, and never on the front.

    Args:
        table: The trials.
        axes: Two objectives, by place or by name: across, and up. None is the second one and the first one.

    Raises:
        ValueError: For objectives that the study does not have, and for other than two different ones.
    """
    if len(table.objectives) < 2:
        if axes is not None:
            _places(table, axes)
        return blank(
            NAME, "One objective, no front", "A Pareto front needs two objectives or more; this study has one."
        )
    across, up = _places(table, axes)
    complete = np.flatnonzero(~table.pruned & np.isfinite(table.values).all(axis=1))
    if not len(complete):
        return blank(NAME, "No front yet", f"None of {count(len(passages(table)), 'trial')} gave values at its end.")
    front = front_rows(table)
    kept = complete[table.feasible[complete]]
    broken = np.setdiff1d(complete, kept)
    others = np.setdiff1d(kept, front)
    drawn = [(_OTHERS, thin(others), 6), (_BROKEN, thin(broken), 7), (_FRONT, thin(front), 8)]
    title, summary = _words(table, front, across, up, len(complete))
    figure = go.Figure()
    _add_stairs(figure, table, front, across, up)
    for mark, rows, size in drawn:
        _add_points(figure, table, rows, across, up, mark, size)
    if len(front):
        _add_points(figure, table, front[:1], across, up, _KNEE, 15)
    notes = _notes(table, sum(len(rows) for _, rows, _ in drawn), complete)
    for update, place in ((figure.update_xaxes, across), (figure.update_yaxes, up)):
        column = table.values[:, place]
        axis, left_out = axis_of(table.objectives[place], column[complete], keep=column[front])
        update(
            axis
            | {
                "title_text": escape(
                    f"{quantity_of(table, place)} {'↑' if table.objectives[place].maximize else '↓'} better"
                )
            }
        )
        notes += [f"{name_of(table, place)}: {left_out[0].lower()}{left_out[1:]}"] if left_out else []
    figure.update_yaxes(showline=True)
    return draw(
        NAME,
        figure,
        title=title,
        summary=summary,
        columns=("trial", *(name_of(table, place) for place in range(len(table.objectives))), "what was tried"),
        rows=[
            (int(table.numbers[row]), *map(float, table.values[row]), recipe_text(table.trials[row]))
            for row in (front if len(front) else broken)[:50].tolist()
        ],
        key=_key(table, front, others, broken),
        notes=notes,
        height=360,
    )


def front_rows(table: TrialTable) -> Rows:
    """Find the rows of the front, the knee first; complete and feasible ones, equal values once, by the first trial."""
    usable = np.flatnonzero(~table.pruned & table.feasible & np.isfinite(table.values).all(axis=1))
    if not len(usable):
        return usable
    signs = np.array([-1.0 if each.maximize else 1.0 for each in table.objectives])
    points = table.values[usable] * signs
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    usable, points = usable[first], points[first]
    best = pareto_order(points).ranks == 0
    logarithmic = [each.logarithmic for each in table.objectives]
    scaled = np.array([on_scale(table.values[row].tolist(), logarithmic) for row in usable[best].tolist()]) * signs
    # The order does not depend on the unit, and in this one no difference overflows.
    return usable[best][by_knee(scaled / np.maximum(np.abs(scaled).max(axis=0), TINY))]


def _places(table: TrialTable, axes: Sequence[int | str] | None) -> tuple[int, int]:
    if axes is None:
        return 1, 0
    if isinstance(axes, str) or len(axes) != 2:
        raise ValueError(f"axes are two objectives, across and up, by place or name; got {axes!r}.")
    across, up = (place_of(each, table.objectives) for each in axes)
    if across == up:
        raise ValueError(f"axes are two different objectives; got {table.objectives[across].name!r} twice.")
    return across, up


def _add_points(
    figure: go.Figure, table: TrialTable, rows: Rows, across: int, up: int, mark: style.Mark, size: int
) -> None:
    if not len(rows):
        return
    thin_line = mark.symbol.endswith("-thin")
    figure.add_trace(
        go.Scatter(
            x=_rounded(table.values[rows, across]),
            y=_rounded(table.values[rows, up]),
            mode="markers",
            marker={
                "color": mark.colour,
                "symbol": mark.symbol,
                "size": size,
                "line": {"width": 1.4, "color": mark.colour} if thin_line else {"width": 0.6, "color": style.PAPER},
            },
            text=[
                hover(
                    f"trial {table.numbers[row]}",
                    ", ".join(
                        f"{name_of(table, place)} {number(value)}"
                        for place, value in enumerate(table.values[row].tolist())
                    ),
                    recipe_text(table.trials[row]),
                )
                for row in rows.tolist()
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    )


def _add_stairs(figure: go.Figure, table: TrialTable, front: Rows, across: int, up: int) -> None:
    """Join the front by stairs: what lies between two of its trials has not been reached."""
    if len(table.objectives) > 2 or len(front) < 2:
        return
    rows = front[np.argsort(table.values[front, across], kind="stable")]
    # To spend no more than so much, or to have no less: up to there the neighbour holds that fulfils it.
    shape = "vh" if table.objectives[across].maximize else "hv"
    figure.add_trace(
        go.Scatter(
            x=_rounded(table.values[rows, across]),
            y=_rounded(table.values[rows, up]),
            mode="lines",
            line={"color": style.BLUE, "width": 1.4, "shape": shape},
            hoverinfo="skip",
        )
    )


def _key(table: TrialTable, front: Rows, others: Rows, broken: Rows) -> str:
    present = [
        (_KNEE, "knee of the front", len(front)),
        (_FRONT, "front", len(front) > 1),
        (_OTHERS, "not on the front", len(others)),
        (_BROKEN, "breaks a constraint", len(broken)),
    ]
    return style.key(*((mark.glyph, mark.colour, text) for mark, text, is_there in present if is_there))


def _notes(table: TrialTable, drawn: int, complete: Rows) -> list[str]:
    notes = thinned(drawn, len(complete), "complete trial")
    if len(table.objectives) > 2:
        notes.append(f"The front is over all {len(table.objectives)} objectives, of which two are drawn.")
    if pruned := int(table.pruned.sum()):
        notes.append(f"Not drawn: {count(pruned, 'trial')} stopped early.")
    if refused := sum(passage.fate is Fate.REFUSED for passage in passages(table)):
        notes.append(f"Not drawn: {count(refused, 'trial')} rejected before training.")
    return notes


def _words(table: TrialTable, front: Rows, across: int, up: int, complete: int) -> tuple[str, str]:
    if not len(front):
        title = f"None of {count(complete, 'complete trial')} keeps all constraints"
        return title, f"{title}, so there is no front."
    knee = front[0]
    said = [_value(table, int(knee), place) for place in (up, across)]
    title = f"Knee of the front: {' with '.join(said)} (trial\u00a0{table.numbers[knee]})"
    ordered = front[np.argsort(table.values[front, across], kind="stable")].tolist()
    place, parts = ordered.index(knee), [title, f"the front has {count(len(front), 'trial')}"]
    for step, word in ((-1, "lower"), (1, "higher")):
        if 0 <= place + step < len(ordered):
            other = ordered[place + step]
            difference = table.values[other, up] - table.values[knee, up]
            parts.append(
                f"the next with {word} {name_of(table, across)} ({number(table.values[other, across])}) changes "
                f"{name_of(table, up)} by {change(float(difference), 3)}"
            )
    return title, "; ".join(parts) + "."


def _value(table: TrialTable, row: int, place: int) -> str:
    return f"{name_of(table, place)} = {number(float(table.values[row, place]))}"


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
