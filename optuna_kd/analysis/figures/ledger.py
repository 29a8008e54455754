"""The ledger of time: what the trials took, and what stopping them early and cheaper epochs saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.chart import Chart, blank, draw
from optuna_kd.analysis.figures.passages import MARKS, Fate, Passage, passages, rungs_of
from optuna_kd.analysis.figures.style import Mark
from optuna_kd.analysis.figures.wording import count, duration, share
from optuna_kd.analysis.table import TrialTable
from optuna_kd.study import TASK

NAME = "ledger"
_SAVED = Mark(style.PALE, "square-open", "□", hatch="/")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Args:
        text: What it is about.
        seconds: Of training, summed over trials.
        saved: Whether it was saved; else it was spent.
        trials: How many it is about.
        mark: How it is drawn.
    """

    text: str
    seconds: float
    saved: bool
    trials: int
    mark: Mark


def draw_ledger(table: TrialTable) -> Chart:
    """Draw what the trials took, by how they ended, and what it would have taken to train them all to the end.

    What a stopped trial saved is estimated by its own time for each epoch (step); where it has none, by the median of
    the others. What a proxy on a part of the data, or of the channels, saved is estimated by that part.
    """
    found = passages(table)
    times = _seconds(table, found)
    spent = _spent(found, times)
    if not spent:
        reason = "No trial of this study says how long it took, so there is nothing to add up."
        return blank(NAME, "No times known", reason)
    saved = _saved(table, found, times)
    entries = [*spent, *saved]
    used = sum(entry.seconds for entry in spent)
    without = used + sum(entry.seconds for entry in saved)
    title = _title(used, without, saved, sum(passage.fate is Fate.STOPPED for passage in found))
    clock = _clock(table)
    notes = ["Time of training, summed over trials."]
    if clock is not None and clock < 0.9 * used:
        notes.append(f"By the clock {duration(clock)}: {number_of(used / clock)} trials ran at a time.")
    if saved:
        notes.append("What was saved is an estimate: the time not spent, at the trials' own speed.")
    return draw(
        NAME,
        _bars(entries, without),
        title=title,
        summary=f"{title}. "
        + "; ".join(
            f"{duration(entry.seconds)} {'saved by' if entry.saved else 'spent:'} {entry.text}" for entry in entries
        )
        + ".",
        columns=("what", "spent or saved", "seconds", "trials"),
        rows=[
            (entry.text, "saved" if entry.saved else "spent", float(f"{entry.seconds:.6g}"), entry.trials)
            for entry in entries
        ],
        notes=notes,
        height=60 + 46 * len(entries),
    )


def number_of(trials: float) -> str:
    """Write how many run at a time, with one digit after the point where it is small."""
    return f"{trials:.1f}" if trials < 10 else f"{trials:,.0f}"


def _seconds(table: TrialTable, found: Sequence[Passage]) -> dict[int, float]:
    """Give what each trial took: what it says itself, else from its start to its end."""
    trials = {trial.number: trial for trial in (*table.trials, *table.others)}
    return {passage.number: _took(trials[passage.number]) for passage in found}


def _took(trial: FrozenTrial) -> float:
    told = trial.user_attrs.get("seconds")
    if isinstance(told, int | float) and math.isfinite(told) and told > 0:
        return float(told)
    return math.nan if trial.duration is None else max(0.0, trial.duration.total_seconds())


def _spent(found: Sequence[Passage], times: Mapping[int, float]) -> list[Entry]:
    entries = []
    for fate, mark in MARKS.items():
        known = [times[passage.number] for passage in found if passage.fate is fate]
        known = [seconds for seconds in known if not math.isnan(seconds)]
        if known and sum(known) > 0:
            entries.append(Entry(f"{count(len(known), 'trial')} {fate.value}", sum(known), False, len(known), mark))
    return entries


def _saved(table: TrialTable, found: Sequence[Passage], times: Mapping[int, float]) -> list[Entry]:
    proxy = _proxy(table)
    rungs = rungs_of(found)
    full = proxy.get("epochs") or (rungs[-1] if rungs else 0)
    if not full:
        return []
    trained = _trained(table, found, full)
    speeds = {
        number: times[number] / epochs for number, epochs in trained.items() if epochs and not math.isnan(times[number])
    }
    typical = float(np.median(list(speeds.values()))) if speeds else math.nan
    entries = []
    for fate, text in (
        (Fate.STOPPED, "stopping {} early"),
        (Fate.REJECTED, "rejecting the loss of {}"),
        (Fate.REFUSED, "not training {}"),
    ):
        ended = [passage for passage in found if passage.fate is fate]
        seconds = sum(
            (full - trained[passage.number]) * speeds.get(passage.number, typical)
            for passage in ended
            if passage.number in trained
        )
        if ended and seconds > 0 and math.isfinite(seconds):
            entries.append(Entry(text.format(count(len(ended), "trial")), seconds, True, len(ended), MARKS[fate]))
    begun = sum(seconds for number, seconds in times.items() if number in trained and not math.isnan(seconds))
    for part, text in _parts(proxy):
        entries.append(Entry(text, begun * (1 / part - 1), True, len(trained), _SAVED))
        begun /= part
    return entries


def _proxy(table: TrialTable) -> Mapping[str, float]:
    task = table.attributes.get(TASK)
    proxy = task.get("proxy") if isinstance(task, Mapping) else None
    if not isinstance(proxy, Mapping):
        return {}
    return {name: value for name, value in proxy.items() if isinstance(value, int | float) and value > 0}


def _parts(proxy: Mapping[str, float]) -> list[tuple[float, str]]:
    """Give by what an epoch of a proxy was cheaper than one of the whole student on all data."""
    subset, narrow = min(1.0, proxy.get("subset", 1.0)), min(1.0, proxy.get("narrow", 1.0))
    parts = [(subset, f"using {share(subset, 1)} of the data")] if subset < 1 else []
    # About the square of the share of the channels is the cost that is left (`ProxyConfig`).
    return parts + ([(narrow**2, f"training {share(narrow, 1)} of the channels")] if narrow < 1 else [])


def _trained(table: TrialTable, found: Sequence[Passage], full: float) -> dict[int, float]:
    """Give how many epochs (steps) each trial was trained; those of failed and running trials are not known."""
    trials = {trial.number: trial for trial in (*table.trials, *table.others)}
    epochs = {}
    for passage in found:
        if passage.fate in (Fate.FAILED, Fate.RUNNING):
            continue
        told = trials[passage.number].user_attrs.get("epochs")
        known = full if passage.fate is Fate.FINISHED else passage.last or 0
        epochs[passage.number] = min(full, told if isinstance(told, int | float) and told >= 0 else known)
    return epochs


def _clock(table: TrialTable) -> float | None:
    """Give the time in which at least one trial ran: pauses between two runs of a search do not count."""
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete)
        for trial in (*table.trials, *table.others)
        if trial.datetime_start is not None
        and trial.datetime_complete is not None
        and trial.state != TrialState.RUNNING
    )
    total, until = 0.0, None
    for start, end in spans:
        if until is None or start > until:
            total, until = total + (end - start).total_seconds(), end
        elif end > until:
            total, until = total + (end - until).total_seconds(), end
    return total or None


def _bars(entries: Sequence[Entry], without: float) -> go.Figure:
    """Draw the entries as a staircase: each begins where the one before it ended."""
    figure = go.Figure()
    unit, divisor = next(
        (unit, size)
        for unit, size in (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
        if without >= 2 * size or size == 1
    )
    begin = 0.0
    for place, entry in enumerate(entries):
        figure.add_trace(
            go.Bar(
                y=[place],
                x=[entry.seconds / divisor],
                base=[begin / divisor],
                orientation="h",
                marker={
                    "color": style.PAPER if entry.saved else entry.mark.colour,
                    "line": {"color": entry.mark.colour, "width": 1.5},
                    "pattern": {
                        "shape": "/" if entry.saved else entry.mark.hatch,
                        "fillmode": "overlay",
                        "fgcolor": entry.mark.colour if entry.saved else style.PAPER,
                        "size": 6,
                        "solidity": 0.2,
                    },
                },
                hovertemplate=f"{entry.text}: {duration(entry.seconds)}<extra></extra>",
            )
        )
        figure.add_annotation(
            x=0, y=place, yshift=17, showarrow=False, xanchor="left",
            text=f"<b>{duration(entry.seconds)}</b> {'saved by' if entry.saved else 'spent:'} {entry.text}",
        )  # fmt: skip
        begin += entry.seconds
    figure.update_layout(bargap=0.6)
    figure.update_yaxes(visible=False, range=[len(entries) - 0.5, -0.8])
    figure.update_xaxes(title_text=unit, range=[0, 1.02 * without / divisor])
    return figure


def _title(used: float, without: float, saved: Sequence[Entry], stopped: int) -> str:
    if saved:
        return (
            f"{duration(used)} instead of {duration(without)}: {share(without - used, without)} of the time was saved"
        )
    why = "how long those stopped early would have gone on is not known" if stopped else "none was stopped early"
    return f"The trials took {duration(used)}; {why}"
