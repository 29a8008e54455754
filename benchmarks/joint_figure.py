"""The figure of `joint_search.py`: the ablation of UniADS's Fig. 4, hypervolume by proxy epochs.

python benchmarks/joint_search.py --seeds 10 --figure docs/images/joint_search.png
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from gauge_report import estimate
from plotly.subplots import make_subplots

# Of each panel its title, and what is drawn of which arm.
PANELS: dict[str, dict[str, tuple[str, str, str]]] = {
    "sampler and pruning": {
        "random": ("random search", "#888888", "x"),
        "nsga2": ("NSGA-II", "#d95f02", "square"),
        "nsga2, halving": ("NSGA-II with halving", "#e7298a", "diamond"),
        "uniads, unpruned": ("ours, unpruned", "#7fa8d1", "circle-open"),
        "uniads": ("ours with halving", "#1f5fa8", "circle"),
    },
    "what is searched": {
        "architecture": ("architecture alone", "#1b9e77", "triangle-up"),
        "recipe": ("recipe alone", "#b8860b", "triangle-down"),
        "uniads": ("ours with halving", "#1f5fa8", "circle"),
    },
}


def draw(runs: Sequence[dict[str, Any]], marks: Sequence[int]) -> go.Figure:
    """Draw the mean hypervolume of the seeds that all arms of a panel have, with its standard error.

    Args:
        runs: Of `joint_search.py`.
        marks: Epochs of proxies.
    """
    figure = make_subplots(1, len(PANELS), subplot_titles=list(PANELS), horizontal_spacing=0.1)
    for column, arms in enumerate(PANELS.values(), 1):
        curves = {arm: {run["seed"]: run["curve"] for run in runs if run["arm"] == arm} for arm in arms}
        seeds = set.intersection(*map(set, curves.values()))
        for order, (arm, (name, colour, symbol)) in enumerate(arms.items()):
            found = [estimate(curves[arm][seed][str(mark)] for seed in sorted(seeds)) for mark in marks]
            line = go.Scatter(
                x=[mark + 3 * (order - len(arms) / 2) for mark in marks],  # error bars side by side
                y=[value["mean"] for value in found],
                error_y={"array": [value["se"] for value in found]},
                name=name,
                line={"color": colour, "width": 4 if arm == "uniads" else 2},
                marker={"symbol": symbol, "size": 13 if arm == "uniads" else 9},
                legendgroup=arm,
                showlegend=column == 1 or arm != "uniads",
            )
            figure.add_trace(line, row=1, col=column)
        figure.update_xaxes(tickvals=marks, title_text=f"epochs of proxies ({len(seeds)} seeds)", row=1, col=column)
    figure.update_yaxes(title_text="share of the hypervolume, new proxies", col=1)
    figure.update_layout(
        template="plotly_white", font_size=17, width=1280, height=560, margin={"l": 80, "r": 20, "t": 50, "b": 70}
    )
    return figure
