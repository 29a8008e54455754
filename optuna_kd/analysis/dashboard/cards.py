"""Figures as cards of the dashboard: as wide as half a page, and as high as the dashboard makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from optuna_kd.analysis.figures import CHARTS, Chart, Fit, draw_importance, draw_options, draw_parallel, style

HEIGHT = 450  # pixels that the dashboard gives to a figure; what is beyond is cut off
WIDTHS = (64, 84)  # characters of a line of its title, and of its notes
FITTED = ("importance", "options")  # figures that need a fit, which takes seconds

# Figures by name, in the order of their cards, and the name of each card: a new one replaces the old one.
CARDS: Mapping[str, str] = {
    name: f"optuna_kd.{name}"
    for name in ("history", "front", "importance", "options", "tree", "parallel", "curves", "survival", "ledger")
}

# Those that would be higher than a card, with fewer rows.
_LOW: Mapping[str, Callable[[Fit], Chart]] = {
    "importance": lambda fit: draw_importance(fit, most=8),
    "options": lambda fit: draw_options(fit, across=6, most=7),
    "parallel": lambda fit: draw_parallel(fit.table, most=6),
}


def draw_card(name: str, fit: Fit) -> Chart:
    """Draw a figure with as many rows as a card has room for."""
    return _LOW[name](fit) if name in _LOW else CHARTS[name](fit.table)


def card_of(chart: Chart) -> str:
    """Give the JSON of a figure, in the frame of a card."""
    figure = go.Figure(chart.figure)
    natural = figure.layout.height - figure.layout.margin.t
    style.frame(
        figure,
        chart.title,
        explained=chart.key.replace("<br>", "&nbsp;&nbsp; "),
        notes=chart.notes,
        height=natural,
        left=figure.layout.margin.l,
        widths=WIDTHS,
        most=HEIGHT,
    )
    text: str = figure.to_json()
    return text
