"""How all figures look: colours, fonts, margins, and the frame with its title, key and notes.

The colours are those of Okabe and Ito (2008), which colour-blind people tell apart. Whatever colour says, shape, line
style or hatching says too, so that a print in grey loses nothing. Title, key and notes stand at the top, at the left,
in lines short enough for a phone of 360 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from optuna_kd.analysis.figures.wording import escape, lines

INK, QUIET, PALE, RULE, PAPER = "#1A1A1A", "#5B6066", "#B4B9BF", "#DADDE1", "#FFFFFF"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"

# From bad to good: light enough for dark letters everywhere, and the grey of a print rises with it.
SCALE = [[0.0, "#F1F4F7"], [0.5, "#A9CFE8"], [1.0, "#4A9FD6"]]

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
TITLE_SIZE, TEXT_SIZE, SMALL = 15, 12, 11
TITLE_WIDTH, TEXT_WIDTH = 38, 48  # characters of a line that a phone has room for
LINE = 1.3  # height of a line, in sizes of its font
POINTS = 500  # trials that a figure draws one by one
PHONE = 330  # pixels between the margins of a figure on a phone


@dataclass(frozen=True)
class Mark:
    """How one kind of thing is drawn.

    Args:
        colour: Of its marks.
        symbol: Of plotly.
        glyph: The letter that looks like the symbol, for keys.
        hatch: The pattern of its bars.
        dash: Of its lines.
    """

    colour: str
    symbol: str
    glyph: str
    hatch: str = ""
    dash: str = "solid"


# For things without a meaning of their own, such as branches; told apart by shape and dash as well as by colour.
SERIES = (
    Mark(BLUE, "circle", "●", dash="solid"),
    Mark(VERMILION, "square", "■", dash="dash"),
    Mark(GREEN, "diamond", "◆", dash="dot"),
    Mark(PURPLE, "triangle-up", "▲", dash="dashdot"),
    Mark(ORANGE, "triangle-down", "▼", dash="longdash"),
    Mark(SKY, "star", "★", dash="longdashdot"),
)

_AXIS = {
    "showgrid": False, "zeroline": False, "showline": True, "linecolor": PALE, "ticks": "outside", "ticklen": 4,
    "tickcolor": PALE, "automargin": True, "title": {"font": {"size": TEXT_SIZE, "color": QUIET}, "standoff": 8},
}  # fmt: skip
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": TEXT_SIZE, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "xaxis": _AXIS,
        "yaxis": {**_AXIS, "showgrid": True, "gridcolor": RULE, "showline": False, "ticks": ""},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": PALE, "font": {"family": FONT, "color": INK}, "align": "left"},
        "hovermode": "closest",
        "showlegend": False,
        "separators": ".,",
    }
)


def key(*items: tuple[str, str, str]) -> str:
    """Explain marks in the frame, in place of a legend: glyph, colour and what it stands for."""
    broken: list[list[str]] = [[]]
    used = 0
    for glyph, colour, text in items:
        if used + len(text) + 3 > TEXT_WIDTH and broken[-1]:
            broken.append([])
            used = 0
        used += len(text) + 5
        broken[-1].append(f'<span style="color:{colour}">{glyph}</span> {escape(text)}')
    return "<br>".join("&nbsp;&nbsp; ".join(line) for line in broken if line)


def frame(
    figure: go.Figure,
    title: str,
    *,
    explained: str = "",
    notes: Sequence[str] = (),
    height: int = 320,
    left: int = 8,
    widths: tuple[int, int] = (TITLE_WIDTH, TEXT_WIDTH),
    most: int | None = None,
) -> go.Figure:
    """Put a title, a key and notes around what is drawn, and give it its height.

    Args:
        figure: What is drawn.
        title: What one sees, as plain text; empty where somebody else says it.
        explained: Made by `key`.
        notes: Plain sentences: what is left out, how to read it.
        height: Of the drawing without the text above it, in pixels.
        left: Margin, in pixels; axes make more room where they need it.
        widths: Characters of a line of the title, and of the notes.
        most: Pixels that everything may have together; what is drawn gets what the text leaves.
    """
    heading = [f"<b>{escape(line)}</b>" for line in lines(title, widths[0])] if title else []
    remarks = [line for note in notes for line in lines(note, widths[1])]
    below = [line for line in explained.split("<br>") if line]
    below += [f'<span style="color:{QUIET}">{escape(line)}</span>' for line in remarks]
    if not heading:
        return _framed(figure, below, [], TEXT_SIZE, height, left, most)
    return _framed(figure, heading, below, TITLE_SIZE, height, left, most)


def _framed(
    figure: go.Figure, heading: Sequence[str], below: Sequence[str], size: int, height: int, left: int, most: int | None
) -> go.Figure:
    first = 10 + size  # pixels from the upper edge to the first line of text
    top = first + (len(heading) - 1) * size * LINE + len(below) * TEXT_SIZE * LINE + 18 if heading else 8
    full = round(height + top) if most is None else min(round(height + top), most)
    figure.update_layout(
        template=TEMPLATE,
        height=full,
        margin={"l": left, "r": 14, "t": round(top), "b": 40},
        title={
            "text": "<br>".join(heading),
            "font": {"size": size},
            "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 10},
            "y": 1 - first / full, "yref": "container", "yanchor": "bottom",
            "subtitle": {"text": "<br>".join(below), "font": {"size": TEXT_SIZE}},
        },
    )  # fmt: skip
    return figure


def colour_bar(title: str) -> dict[str, object]:
    """Give a colour bar that lies below the drawing, where a phone has room for it."""
    return {
        "orientation": "h", "thickness": 10, "len": 1.0, "x": 0, "xanchor": "left", "y": 0, "yanchor": "top",
        "ypad": 8, "xpad": 4, "outlinewidth": 0, "nticks": 5, "ticklen": 3,
        "title": {"text": escape(title), "side": "bottom", "font": {"size": TEXT_SIZE, "color": QUIET}},
    }  # fmt: skip
