"""The course of a search: what each trial was worth, how far it went, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Cell, Chart, blank, draw
from optuna_kd.analysis.figures.objective import axis_of, column_of, name_of, quantity_of
from optuna_kd.analysis.figures.passages import MARKS, Fate, Passage, passages, rungs_of, step_word
from optuna_kd.analysis.figures.thinning import thin, thinned
from optuna_kd.analysis.figures.trials import hover, recipe_text
from optuna_kd.analysis.figures.wording import count, escape, number
from optuna_kd.analysis.table import TrialTable

NAME = "history"
_RECENT = 0.1  # of the trials: a best one among the last of them says that the search still improves
_LEVELS = 8  # rungs that have a line each in the lower panel; more are a scale
_KEYS = {
    Fate.FINISHED: "ran to the end",
    Fate.STOPPED: "stopped early, value there",
    Fate.REJECTED: "loss rejected, value there",
}
_BROKEN = style.Mark(style.VERMILION, "square-open", "□")


def draw_history(table: TrialTable, objective: int | str | None = None) -> Chart:
    """Draw the course of a search.

    Above, the value of every trial: of a complete one the final value, of a pruned one what it reported last; and the
    best value so far of the trials that ran to the end. Below, how far each trial went.

    Args:
        table: The trials.
        objective: The place or the name of the objective; None is the first.

    Raises:
        ValueError: For an objective that the study does not have.
    """
    column = column_of(table, objective)
    found = passages(table)
    if not found:
        return blank(NAME, "No trial yet", "The study has no trial that was begun, so there is no history.")
    fates = {passage.number: passage for passage in found}
    known = [fates[number] for number in table.numbers.tolist()]
    best = _improvements(table, column)
    rows = thin(np.arange(len(table)), keep=best)
    panels = [panel for panel, is_there in (("values", len(table)), ("strip", _is_worth_a_panel(found))) if is_there]
    figure = make_subplots(
        len(panels), 1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.68, 0.32][-len(panels) :]
    )
    notes = thinned(len(rows), len(table))
    if "values" in panels:
        axis, left_out = axis_of(
            table.objectives[column],
            table.reported[:, column],
            about=~table.pruned,
            keep=table.values[best[-1:], column],
        )
        _add_values(figure, table, column, rows, known)
        _add_best(figure, table, column, best, last=found[-1].number, logarithmic="type" in axis)
        figure.update_yaxes(axis | {"title_text": escape(quantity_of(table, column))}, row=1, col=1)
        notes += [left_out] if left_out else []
    if "strip" in panels:
        usable = set(table.numbers.tolist())
        others = [passage for passage in found if passage.number not in usable]
        shown = [known[row] for row in rows.tolist()] + [
            others[place] for place in thin(np.arange(len(others))).tolist()
        ]
        _add_strip(figure, len(panels), shown, rungs_of(found), step_word(table))
    figure.update_xaxes(title_text="trial", row=len(panels), col=1)
    title = _title(table, column, best, found)
    return draw(
        NAME,
        figure,
        title=title,
        summary=f"{title}. {_counted(found)}.",
        columns=("trial", name_of(table, column), "what was tried"),
        rows=_best_rows(table, column, best) or [(count(len(found), "trial"), None, None)],
        key=_key(table, known),
        notes=notes,
        height=80 + 220 * ("values" in panels) + 80 * ("strip" in panels),
    )


def _improvements(table: TrialTable, column: int) -> np.ndarray:
    """Find the complete, feasible trials that were better than all before."""
    usable = np.flatnonzero(~table.pruned & table.feasible & np.isfinite(table.values[:, column]))
    gains = table.gains(column)[usable]
    before = np.concatenate([[-np.inf], np.maximum.accumulate(gains)[:-1]]) if len(gains) else gains
    return usable[gains > before]


def _is_worth_a_panel(found: Sequence[Passage]) -> bool:
    return any(passage.fate is not Fate.FINISHED for passage in found)


def _add_values(figure: go.Figure, table: TrialTable, column: int, rows: np.ndarray, known: Sequence[Passage]) -> None:
    broken = ~table.feasible & ~table.pruned
    for fate, mark in MARKS.items():
        for is_broken, how in ((False, mark), (True, _BROKEN)):
            chosen = [row for row in rows.tolist() if known[row].fate is fate and bool(broken[row]) is is_broken]
            if not chosen:
                continue
            figure.add_trace(
                go.Scatter(
                    x=table.numbers[chosen].tolist(),
                    y=_rounded(table.reported[chosen, column]),
                    mode="markers",
                    marker=_marker(how, 7 if fate is Fate.FINISHED else 6),
                    text=[
                        hover(_told(known[row], table.reported[row, column]), recipe_text(table.trials[row]))
                        for row in chosen
                    ],
                    hovertemplate="%{text}<extra></extra>",
                ),
                row=1,
                col=1,
            )  # fmt: skip


def _add_best(
    figure: go.Figure, table: TrialTable, column: int, best: np.ndarray, *, last: int, logarithmic: bool
) -> None:
    if not len(best):
        return
    values = table.values[best, column].tolist()
    figure.add_trace(
        go.Scatter(
            x=[*table.numbers[best].tolist(), last],
            y=_rounded(np.array([*values, values[-1]])),
            mode="lines",
            line={"color": style.INK, "width": 1.6, "shape": "hv"},
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )
    figure.add_annotation(
        x=last,
        y=math.log10(values[-1]) if logarithmic else values[-1],
        text=f"<b>{number(values[-1])}</b>",
        showarrow=False,
        xanchor="right",
        yanchor="bottom" if table.objectives[column].maximize else "top",
        row=1,
        col=1,
    )


def _add_strip(figure: go.Figure, panel: int, drawn: Sequence[Passage], rungs: Sequence[int], word: str) -> None:
    """Draw how far each trial went, as a dot at its last rung."""
    scale = len(rungs) > _LEVELS
    top = (rungs[-1] if scale else len(rungs)) if rungs else 1
    for fate, mark in MARKS.items():
        chosen = [passage for passage in drawn if passage.fate is fate]
        if not chosen:
            continue
        levels = [top if fate is Fate.FINISHED else _level(passage, rungs, scale=scale) for passage in chosen]
        figure.add_trace(
            go.Scatter(
                x=[passage.number for passage in chosen],
                y=levels,
                mode="markers",
                marker=_marker(mark, 5),
                text=[hover(f"trial {passage.number}: {_fared(passage, word)}") for passage in chosen],
                hovertemplate="%{text}<extra></extra>",
            ),
            row=panel,
            col=1,
        )
    low = 0 if any(passage.last is None and passage.fate is not Fate.FINISHED for passage in drawn) or scale else 1
    ticks = {"title_text": f"last {word}"} if scale else _levels(rungs, word)
    room = 0.09 * top if scale else 0.5
    figure.update_yaxes(ticks | {"range": [low - room, top + room]}, row=panel, col=1)


def _level(passage: Passage, rungs: Sequence[int], *, scale: bool) -> float:
    if passage.last is None:
        return 0
    return passage.last if scale else rungs.index(passage.last) + 1


def _levels(rungs: Sequence[int], word: str) -> dict[str, Sequence[int | str]]:
    names = [f"{word} {rung}" for rung in rungs]
    names = [*names[:-1], f"{names[-1]} (end)"] if names else ["the end"]
    return {"tickvals": list(range(len(names) + 1)), "ticktext": ["start", *names]}


def _fared(passage: Passage, word: str) -> str:
    after = f" after {word} {passage.last}" if passage.last is not None and passage.fate is not Fate.FINISHED else ""
    return f"{passage.fate.value}{after}{': ' if passage.reason else ''}{passage.reason}"


def _told(passage: Passage, value: float) -> str:
    return f"trial {passage.number}, {passage.fate.value}: {number(value)}"


def _marker(mark: style.Mark, size: int) -> dict[str, object]:
    thin_line = mark.symbol.endswith(("-thin", "-open"))
    line = {"width": 1.4, "color": mark.colour} if thin_line else {"width": 0.6, "color": style.PAPER}
    return {"color": mark.colour, "symbol": mark.symbol, "size": size, "line": line}


def _rounded(values: np.ndarray) -> list[float | None]:
    """Give values with six digits, which no eye tells apart from more; None for those without a place."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]


def _key(table: TrialTable, known: Sequence[Passage]) -> str:
    fates = {passage.fate for passage in known}
    items = [(mark.glyph, mark.colour, _KEYS[fate]) for fate, mark in MARKS.items() if fate in fates and fate in _KEYS]
    if (~table.feasible & ~table.pruned).any():
        items.append((_BROKEN.glyph, _BROKEN.colour, "breaks a constraint"))
    if len(table):
        items.append(("—", style.INK, "best so far"))
    return style.key(*items)


def _title(table: TrialTable, column: int, best: np.ndarray, found: Sequence[Passage]) -> str:
    if not len(best):
        broken = bool((~table.pruned & np.isfinite(table.values[:, column])).any())
        return f"None of {count(len(found), 'trial')} {'keeps all constraints' if broken else 'has a final value'} yet"
    row, name = int(best[-1]), name_of(table, column)
    value, trial = number(table.values[row, column]), int(table.numbers[row])
    since = sum(passage.number > trial for passage in found)
    if since <= _RECENT * len(found) and len(found) > 1:
        return f"Still improving: the best {name} is {value}, of trial\u00a0{trial}, one of the last"
    after = (
        f"; {'the trial since was' if since == 1 else f'the {since:,} trials since were'} no better" if since else ""
    )
    return f"The best {name} is {value}, of trial\u00a0{trial}{after}"


def _counted(found: Sequence[Passage]) -> str:
    counts = [(fate, sum(passage.fate is fate for passage in found)) for fate in Fate]
    return f"Of {count(len(found), 'trial')}: " + ", ".join(f"{many:,} {fate.value}" for fate, many in counts if many)


def _best_rows(table: TrialTable, column: int, best: np.ndarray) -> list[tuple[Cell, ...]]:
    return [
        (int(table.numbers[row]), float(table.values[row, column]), recipe_text(table.trials[row]))
        for row in best.tolist()
    ]
