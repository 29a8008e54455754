"""The tree of a search as an icicle: how often each branch was tried, and what it was worth."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.objective import HUGE, column_of, label_of, name_of
from optuna_kd.analysis.figures.trials import left_out
from optuna_kd.analysis.figures.wording import CHOICE, count, number, plain, share, shown
from optuna_kd.analysis.table import TrialTable
from optuna_kd.samplers.domains import Domain
from optuna_kd.samplers.outline import label_of as option_of
from optuna_kd.samplers.tree import Step, path_of

NAME = "tree"
_NODES = 400  # boxes
_DEPTH = 3  # levels that are seen at once, below the root
_SETTLED = 0.2  # of all trials: a branch with so many is one that the search went for
_STEPS = 3  # of a path that a title names


@dataclass(eq=False)
class Branch:
    """The trials that begin with the same choices.

    Args:
        rows: Of the table, ascending.
        value: The mean of their values that can be drawn; NaN if there are none.
        step: The last of these choices: the name of the parameter and the option; empty for the root.
        depth: How many choices they share.
        children: The branches below.
    """

    rows: NDArray[np.int64]
    value: float
    step: tuple[str, Any] = ("", "")
    depth: int = 0
    children: list[Branch] = field(default_factory=list)

    @property
    def visits(self) -> int:
        """How many trials went through it."""
        return len(self.rows)


def draw_tree(table: TrialTable, objective: int | str | None = None) -> Chart:
    """Draw the branches of a search: as long as they were visited, as dark as they were good.

    Args:
        table: The trials; pruned ones count with their place among the complete ones (`TrialTable.values`).
        objective: The place or the name of the objective; None is the first.

    Raises:
        ValueError: For an objective that the study does not have.
    """
    column = column_of(table, objective)
    if not any(trial.distributions for trial in table.trials):
        reason = "No trial of this study with a usable result has parameters, so there are no branches."
        return blank(NAME, "No branches yet", reason)
    branches, complete = grow(table, column)
    root = branches[0]
    title = _title(table, column, root)
    best = max(
        (branch for branch in branches if branch.visits >= max(2, 0.05 * len(table)) and branch.depth),
        key=lambda branch: _worth(table, column, branch),
        default=root,
    )
    paths = _paths(root)
    summary = (
        f"{title}. The best of the larger branches is {' › '.join(paths[id(best)]) or 'the whole search'}: "
        f"{best.visits:,} of {count(len(table), 'trial')}{_mean_of(table, column, best)}."
    )
    notes = ["A box is as high as its number of trials. Click to go deeper."]
    if not complete:
        notes.append(f"Only the {len(branches):,} largest branches are drawn.")
    notes += left_out(table)
    return draw(
        NAME,
        _icicle(table, column, branches),
        title=title,
        summary=summary,
        columns=("branch", "trials", f"mean {name_of(table, column)}"),
        rows=[
            (" › ".join(paths[id(branch)]) or "all", branch.visits, None if math.isnan(branch.value) else branch.value)
            for branch in branches
            if branch.depth <= 2
        ],
        notes=notes,
        height=460,
    )


def grow(table: TrialTable, column: int, nodes: int = _NODES) -> tuple[list[Branch], bool]:
    """Build the tree from the root, always below the most visited branch, until it has `nodes` branches.

    Returns:
        All branches, the root first, parents before children; and whether any was left out.
    """
    paths = [path_of(trial) for trial in table.trials]
    values = table.values[:, column]
    root = Branch(np.arange(len(table)), _mean(values))
    branches, complete = [root], True
    waiting = [(-root.visits, 0, root)]
    while waiting:
        _, _, parent = heapq.heappop(waiting)
        groups: dict[tuple[str, Domain, int], list[int]] = {}
        for row in parent.rows.tolist():
            if len(paths[row]) > parent.depth:
                step = paths[row][parent.depth]
                groups.setdefault((step.name, step.domain, step.child), []).append(row)
        # The most visited first; of equals the first one tried.
        ordered = sorted(groups.values(), key=lambda rows: (-len(rows), rows[0]))
        room = max(0, nodes - len(branches))
        complete = complete and len(ordered) <= room
        for rows in ordered[:room]:
            chosen = np.array(rows, np.int64)
            step = paths[rows[0]][parent.depth]
            child = Branch(chosen, _mean(values[chosen]), (step.name, _option(table, rows[0], step)), parent.depth + 1)
            parent.children.append(child)
            branches.append(child)
            heapq.heappush(waiting, (-child.visits, len(branches), child))
    return branches, complete


def _option(table: TrialTable, row: int, step: Step) -> Any:
    return option_of(step.domain, step.child, table.trials[row].distributions[step.name])


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.abs(values) <= HUGE]
    # Divided first, so that the sum does not overflow.
    return float((known / len(known)).sum()) if len(known) else math.nan


def _icicle(table: TrialTable, column: int, branches: list[Branch]) -> go.Figure:
    places = {id(branch): place for place, branch in enumerate(branches)}
    parents = {id(child): str(places[id(branch)]) for branch in branches for child in branch.children}
    values = np.array([branch.value for branch in branches])
    low, high = _range(values, np.array([branch.visits for branch in branches]))
    maximize = table.objectives[column].maximize
    unknown = low if maximize else high  # pale: nothing good is known of such a branch
    name = shown(name_of(table, column))
    figure = go.Figure(
        go.Icicle(
            ids=[str(place) for place in range(len(branches))],
            parents=[parents.get(id(branch), "") for branch in branches],
            labels=[shown(branch.step[1], CHOICE) if branch.depth else "all trials" for branch in branches],
            values=[branch.visits for branch in branches],
            text=[shown(branch.step[0], CHOICE) for branch in branches],
            branchvalues="total",
            sort=False,
            maxdepth=min(_DEPTH, max(branch.depth for branch in branches)) + 1,
            texttemplate="<b>%{label}</b> %{value:,}<br>%{text}",
            customdata=[
                f"{name} {number(branch.value)}" if not math.isnan(branch.value) else "" for branch in branches
            ],
            hovertemplate="%{text} <b>%{label}</b><br>trials: %{value:,}<br>mean %{customdata}<extra></extra>",
            marker={
                "colors": [unknown if math.isnan(value) else float(f"{value:.6g}") for value in values.tolist()],
                "colorscale": style.SCALE,
                "reversescale": not maximize,
                "cmin": low,
                "cmax": high,
                "line": {"color": style.PAPER, "width": 1},
                "showscale": True,
                "colorbar": style.colour_bar(f"mean {label_of(table, column)}"),
            },
            tiling={"orientation": "h", "pad": 0},
            pathbar={"thickness": 18},
            textfont={"color": style.INK},
            root={"color": style.RULE},
        )
    )
    figure.update_layout(uniformtext={"minsize": 9, "mode": "hide"})
    return figure


def _range(values: NDArray[np.float64], visits: NDArray[np.int64]) -> tuple[float, float]:
    """Give the range of the colours: without the twentieth of the visits at either end."""
    known = np.isfinite(values)
    if not known.any():
        return 0.0, 1.0
    order = np.argsort(values[known])
    passed = np.cumsum(visits[known][order]) / visits[known].sum()
    ordered = values[known][order]
    low, high = float(ordered[np.searchsorted(passed, 0.05)]), float(ordered[np.searchsorted(passed, 0.95)])
    return (low, high) if low < high else (low - 0.5 * (abs(low) or 1.0), low + 0.5 * (abs(low) or 1.0))


def _worth(table: TrialTable, column: int, branch: Branch) -> float:
    if math.isnan(branch.value):
        return -math.inf
    return branch.value if table.objectives[column].maximize else -branch.value


def _title(table: TrialTable, column: int, root: Branch) -> str:
    """Follow the most visited branches as long as they have a fair share of all trials."""
    branch = root
    path: list[str] = []
    while len(path) < _STEPS and branch.children:
        following = branch.children[0]
        if following.visits < max(2, _SETTLED * root.visits):
            break
        branch = following
        path.append(_said(*branch.step))
    if not path:
        best = max(root.children, key=lambda child: _worth(table, column, child))
        spread = f"{count(root.visits, 'trial')} spread over {count(len(root.children), 'branch', 'branches')}"
        if math.isnan(best.value):
            return spread
        return f"{spread}; the best is {_said(*best.step)}{_mean_of(table, column, best, 3)}"
    through = f"{share(branch.visits, root.visits)} of the trials went through {' › '.join(path)}"
    if math.isnan(branch.value):
        return through
    return f"{through}: mean {name_of(table, column)} {number(branch.value, 3)}, overall {number(root.value, 3)}"


def _mean_of(table: TrialTable, column: int, branch: Branch, digits: int = 4) -> str:
    """Give the last words on a branch; none where no value can be drawn."""
    return "" if math.isnan(branch.value) else f", mean {name_of(table, column)} {number(branch.value, digits)}"


def _said(name: str, option: Any) -> str:
    """Name an option; a number says nothing without its parameter."""
    known = plain(option, CHOICE)
    return known if isinstance(option, str) and option[:1].isalpha() else f"{plain(name, CHOICE)} = {known}"


def _paths(root: Branch) -> Mapping[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {id(root): ()}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for child in parent.children:
            name, option = child.step
            found[id(child)] = (*found[id(parent)], f"{plain(name)} = {plain(option, CHOICE)}")
            waiting.append(child)
    return found
