"""A figure together with its words: for people who look, for people who cannot, and for reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.objective import HUGE
from optuna_kd.analysis.figures.wording import escape, lines

Cell = str | int | float | None


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure, and what it shows in a sentence and in numbers.

    All texts but those in `figure` are plain: whoever writes them into HTML has to escape them.

    Args:
        name: Which figure it is, such as "history".
        title: What one sees, as the figure says it.
        summary: The same for somebody who does not see it, in one sentence.
        columns: Names of the columns of `rows`.
        rows: The numbers behind the figure, a small table; empty where there is nothing to draw.
        figure: What is drawn.
        notes: What the figure leaves out, and how to read it; in the figure too.
        key: What explains its marks, made by `style.key`; in the figure.
    """

    name: str
    title: str
    summary: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    figure: go.Figure
    notes: tuple[str, ...] = ()
    key: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw; `summary` says why."""
        return not self.rows

    def bare(self) -> go.Figure:
        """Copy the figure without title and notes, for a page that says them itself."""
        figure = go.Figure(self.figure)
        height, margin = figure.layout.height, figure.layout.margin
        figure.layout.title = None
        return style.frame(figure, "", explained=self.key, height=height - margin.t, left=margin.l)


def draw(
    name: str,
    figure: go.Figure,
    *,
    title: str,
    summary: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Cell, ...]],
    key: str = "",
    notes: Sequence[str] = (),
    height: int = 320,
    left: int = 8,
) -> Chart:
    """Frame what is drawn (see `style.frame`) and keep its words."""
    _leave_out_huge(figure)
    style.frame(figure, title, explained=key, notes=notes, height=height, left=left)
    return Chart(name, title, summary, tuple(columns), tuple(rows), figure, tuple(notes), key)


def _leave_out_huge(figure: go.Figure) -> None:
    """Take out what no browser can place; `axis_of` says how many values that are."""
    for trace in figure.data:
        for axis in ("x", "y"):
            places = getattr(trace, axis, None)
            if places is not None and any(map(_is_huge, places)):
                trace[axis] = [None if _is_huge(place) else place for place in places]
    labels = figure.layout.annotations
    if any(_is_huge(label.x) or _is_huge(label.y) for label in labels):
        figure.layout.annotations = [label for label in labels if not (_is_huge(label.x) or _is_huge(label.y))]


def _is_huge(place: object) -> bool:
    return isinstance(place, int | float) and abs(place) > HUGE


def blank(name: str, title: str, reason: str) -> Chart:
    """Give a figure with one line in it that says what is missing, and why."""
    figure = go.Figure()
    said = lines(reason, style.TEXT_WIDTH)
    figure.add_annotation(
        text="<br>".join(map(escape, said)), x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="top",
        align="left", showarrow=False, font={"color": style.QUIET, "size": style.TEXT_SIZE + 1},
    )  # fmt: skip
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    style.frame(figure, title, height=60 + 20 * len(said))
    figure.update_layout(margin={"l": 12})
    return Chart(name, title, reason, (), (), figure)
