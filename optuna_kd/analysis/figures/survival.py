"""Rung survival: how many trials reached each rung, and what became of those that did not go on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.passages import MARKS, Fate, Passage, passages, rungs_of, step_word
from optuna_kd.analysis.figures.wording import count, listed, share
from optuna_kd.analysis.table import TrialTable

NAME = "survival"
_BARS = 10  # rungs that have a bar each; of more, evenly spaced ones
_WENT_ON = style.Mark(style.SKY, "square", "■")


@dataclass(frozen=True)
class Stage:
    """What happened between a rung and the next.

    Args:
        rung: The rung; None is the start.
        reached: Trials that were still running there.
        ended: How many of them ended before the next rung, by fate.
    """

    rung: int | None
    reached: int
    ended: Counter[Fate]

    @property
    def went_on(self) -> int:
        """How many of them reached the next rung."""
        return self.reached - self.ended.total()


def draw_survival(table: TrialTable) -> Chart:
    """Draw how many trials reached each rung, and how many were stopped, rejected or failed there."""
    found = passages(table)
    rungs = rungs_of(found)
    if not rungs:
        return blank(
            NAME,
            "No rungs",
            "No trial reported a value before its end, so there are no rungs at which any could be stopped. "
            "Use trial.report, or optuna_kd.pruners.report in a study with several objectives.",
        )
    some = _spaced(rungs)
    word = step_word(table)
    stages = stages_of(found, some)
    title = _title(stages, f"at {word}" if len(some) == len(rungs) else f"from {word}")
    if not stages[0].ended:
        del stages[0]
    names = ["start" if stage.rung is None else f"{word} {stage.rung}" for stage in stages]
    summary = "; ".join(
        f"{name}: {stage.reached:,} ({share(stage.reached, len(found))})"
        for name, stage in zip(names, stages, strict=True)
    )
    return draw(
        NAME,
        _bars(stages, names),
        title=title,
        summary=f"{title}. Trials that reached each rung: {summary}.",
        columns=("rung", "reached", "went on", *(fate.value for fate in Fate)),
        rows=[
            (name, stage.reached, stage.went_on, *(stage.ended[fate] for fate in Fate))
            for name, stage in zip(names, stages, strict=True)
        ],
        key=_key(stages),
        notes=[f"{len(some)} of {len(rungs):,} rungs are drawn, evenly spaced."] if len(some) < len(rungs) else [],
        height=70 + 34 * len(stages),
    )


def stages_of(found: Sequence[Passage], rungs: Sequence[int]) -> list[Stage]:
    """Count the trials between the start, each rung, and the end.

    The last stage has all trials that reached the last rung: they ended there, in one way or another.
    """
    stages = []
    alive = list(found)
    for rung, following in zip([None, *rungs], [*rungs, None], strict=True):
        on = [passage for passage in alive if following is not None and passage.reached(following)]
        kept = set(map(id, on))
        stages.append(Stage(rung, len(alive), Counter(each.fate for each in alive if id(each) not in kept)))
        alive = on
    return stages


def _spaced(rungs: list[int]) -> list[int]:
    if len(rungs) <= _BARS:
        return rungs
    return [rungs[math.ceil((place + 1) * len(rungs) / _BARS) - 1] for place in range(_BARS)]


def _bars(stages: Sequence[Stage], names: Sequence[str]) -> go.Figure:
    figure = go.Figure()
    fates = [fate for fate in Fate if any(stage.ended[fate] for stage in stages)]
    parts = [(_WENT_ON, "went on", [stage.went_on for stage in stages])]
    parts += [(MARKS[fate], fate.value, [stage.ended[fate] for stage in stages]) for fate in fates]
    # What ran to the end goes first, below what went on to it.
    parts.sort(key=lambda part: part[1] not in ("went on", Fate.FINISHED.value))
    everything = max(stages[0].reached, 1)
    for mark, word, amounts in parts:
        figure.add_trace(
            go.Bar(
                y=list(range(len(stages))),
                x=amounts,
                orientation="h",
                marker={
                    "color": mark.colour,
                    "line": {"color": style.PAPER, "width": 1},
                    "pattern": {
                        "shape": mark.hatch,
                        "fillmode": "overlay",
                        "fgcolor": style.PAPER,
                        "size": 6,
                        "solidity": 0.2,
                    },
                },
                text=[f"{amount:,}" if amount >= 0.07 * everything else "" for amount in amounts],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": style.PAPER if mark.colour not in (_WENT_ON.colour, "#8A9097") else style.INK},
                hovertemplate=f"%{{x:,}} {word}<extra></extra>",
            )
        )
    for place, stage in enumerate(stages):
        figure.add_annotation(
            x=stage.reached, y=place, text=f"{share(stage.reached, everything)}", showarrow=False, xanchor="left",
            xshift=4, font={"color": style.QUIET},
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.25, uniformtext={"minsize": style.SMALL, "mode": "hide"})
    figure.update_yaxes(
        tickvals=list(range(len(stages))), ticktext=list(names), autorange="reversed", showgrid=False, range=None
    )
    figure.update_xaxes(title_text="trials", range=[0, 1.16 * everything], tickformat=",d")
    return figure


def _key(stages: Sequence[Stage]) -> str:
    fates = [fate for fate in Fate if any(stage.ended[fate] for stage in stages)]
    items = [(_WENT_ON.glyph, _WENT_ON.colour, "went on")] if any(stage.went_on for stage in stages) else []
    glyphs = {"": "■", "/": "▨", "x": "▩", ".": "▩", "+": "▦", "-": "▤"}
    return style.key(*items, *((glyphs[MARKS[fate].hatch], MARKS[fate].colour, fate.value) for fate in fates))


def _title(stages: Sequence[Stage], where_word: str) -> str:
    begun = stages[0].reached
    finished = sum(stage.ended[Fate.FINISHED] for stage in stages)
    if finished == begun:
        return f"All {count(begun, 'trial')} ran to the end" if begun > 1 else "The only trial ran to the end"
    stops = [(stage.ended[Fate.STOPPED], stage.rung) for stage in stages]
    most, rung = max(stops, key=lambda stop: stop[0])
    where = (
        f"; {most:,} {'was' if most == 1 else 'were'} stopped {where_word} {rung}" if most and rung is not None else ""
    )
    if not where:
        losses = {
            fate: sum(stage.ended[fate] for stage in stages) for fate in Fate if fate not in (Fate.FINISHED,)
        }  # fmt: skip
        where = f"; {listed(f'{many:,} {fate.value}' for fate, many in losses.items() if many)}"
    return f"{finished:,} of {count(begun, 'trial')} ran to the end{where}"
