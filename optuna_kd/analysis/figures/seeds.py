"""The closing comparison, seed by seed: what each student scored, and how far the recipe is from each control."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from optuna_kd.analysis.closing import Closing, Standing
from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Cell, Chart, draw
from optuna_kd.analysis.figures.style import Mark
from optuna_kd.analysis.figures.wording import count, escape, plain
from optuna_kd.analysis.statistics import Comparison

NAME = "seeds"
_OWN, _OTHER = Mark(style.BLUE, "diamond", "◆"), Mark("#6B7178", "circle", "●")
_ROW = 48  # pixels


def draw_seeds(closing: Closing) -> Chart:
    """Draw the students of every method, one dot a seed, with the mean and its 95 % interval.

    Below, the paired differences between the recipe and each control: what the verdict is made of.
    """
    standings = closing.standings
    heights = [_ROW * len(standings), _ROW * len(closing.comparisons)]
    panels = sum(height > 0 for height in heights)
    figure = make_subplots(panels, 1, vertical_spacing=0.2, row_heights=heights[:panels])
    for place, standing in enumerate(standings):
        mark = _OTHER if place else _OWN
        name = f"<b>{escape(plain(standing.method))}</b> {100 * standing.last.mean:.2f} %"
        _add(figure, 1, place, mark, name, standing.last.values, standing.last.bounds)
    _finish(figure, 1, len(standings), f"{closing.part} accuracy after the last epoch, %")
    if closing.comparisons:
        for place, found in enumerate(closing.comparisons):
            name = f"<b>against {escape(plain(found.other))}</b> {100 * found.difference:+.2f} points"
            _add(figure, 2, place, _OWN if found.significant else _OTHER, name, found.differences, _bounds(found))
        figure.add_vline(0, line={"color": style.INK, "width": 1}, row=2, col=1)
        _finish(figure, 2, len(closing.comparisons), "points that the recipe is better, same seed")
    title = _title(closing)
    return draw(
        NAME,
        figure,
        title=title,
        summary=f"{title}. Mean {closing.part} accuracies: "
        + ", ".join(f"{plain(each.method)} {100 * each.last.mean:.2f} %" for each in standings)
        + ".",
        columns=("seed", *(plain(standing.method) for standing in standings)),
        rows=[_row(standings, index) for index in range(max(standing.last.n for standing in standings))],
        key=style.key(
            ("○", style.QUIET, "one seed"), ("◆", style.INK, "mean"), ("—", style.INK, "95 % interval of the mean")
        ),
        notes=["The intervals are of each line alone; the paired t-test with Holm's correction decides."],
        height=sum(heights) + 60 * panels,
    )


def _add(
    figure: go.Figure,
    panel: int,
    place: int,
    mark: Mark,
    name: str,
    values: Sequence[float],
    bounds: tuple[float, float] | None,
) -> None:
    percents = [round(100 * value, 3) for value in values]
    mean = sum(percents) / len(percents)
    if bounds is not None:
        figure.add_trace(
            go.Scatter(
                x=[100 * end for end in bounds],
                y=[place, place],
                mode="lines",
                line={"color": mark.colour, "width": 3},
                hoverinfo="skip",
            ),
            row=panel,
            col=1,
        )
    seeds = [f"seed {index + 1}: {value:.2f}" for index, value in enumerate(percents)]
    figure.add_trace(
        go.Scatter(
            x=percents,
            y=[place] * len(percents),
            mode="markers",
            marker={"color": style.PAPER, "symbol": "circle", "size": 7, "line": {"width": 1.3, "color": mark.colour}},
            text=seeds,
            hovertemplate="%{text}<extra></extra>",
        ),
        row=panel,
        col=1,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[mean],
            y=[place],
            mode="markers",
            marker={"color": mark.colour, "symbol": "diamond", "size": 11, "line": {"width": 1, "color": style.PAPER}},
            text=[f"mean {mean:.2f}" + ("" if bounds is None else f", {100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}")],
            hovertemplate="%{text}<extra></extra>",
        ),
        row=panel,
        col=1,
    )
    figure.add_annotation(
        x=0, xref="x domain" if panel == 1 else f"x{panel} domain", y=place, yshift=14, xanchor="left", text=name,
        showarrow=False, bgcolor=style.PAPER, borderpad=1, row=panel, col=1,
    )  # fmt: skip


def _finish(figure: go.Figure, panel: int, lines: int, label: str) -> None:
    figure.update_yaxes(visible=False, range=[lines - 0.5, -0.75], row=panel, col=1)
    figure.update_xaxes(title_text=label, showgrid=True, gridcolor=style.RULE, row=panel, col=1)


def _bounds(found: Comparison) -> tuple[float, float] | None:
    return found.interval if found.n > 1 and found.sd > 0 else None


def _title(closing: Closing) -> str:
    tuned, own = closing.tuned, closing.standings[0].last
    if tuned is None:
        return f"The recipe scores {100 * own.mean:.2f} % over {count(own.n, 'seed')}"
    better = sum(difference > 0 for difference in tuned.differences)
    return (
        f"The recipe is better than tuned KD with {better} of {count(tuned.n, 'seed')}, and differs by "
        f"{100 * tuned.difference:+.2f} points on average"
    )


def _row(standings: Sequence[Standing], seed: int) -> tuple[Cell, ...]:
    values = (standing.last.values for standing in standings)
    return (seed + 1, *(round(100 * each[seed], 4) if seed < len(each) else None for each in values))
