"""Which objective a figure is about, what it is called, and on which axis it is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optuna_kd.analysis.figures.wording import count, number, plain
from optuna_kd.analysis.table import Objective, TrialTable, place_of
from optuna_kd.study import TASK

_UNITS: Mapping[str, str] = {
    "cross_entropy": "nats",
    "error": "share of wrong classes",
    "flops": "FLOPs of one image",
    "latency_ms": "ms for one image",
}
HUGE = 1e300  # values beyond are drawn as little as infinite ones: no browser can subtract them
_FENCE = 3.0  # interquartile ranges beyond the quartiles, from where values are left out of the picture
_FENCE_AFTER = 8  # values
_BEYOND = 0.7  # of the width of what a picture is about: room for values that are worse

Array = NDArray[np.float64]


def column_of(table: TrialTable, objective: int | str | None) -> int:
    """Find the objective that a figure is about; None is the first.

    Raises:
        ValueError: If the study does not have it.
    """
    return 0 if objective is None else place_of(objective, table.objectives)


def name_of(table: TrialTable, column: int) -> str:
    """Give the name of an objective; that of a study of one reward is "reward"."""
    name = table.objectives[column].name
    return "reward" if name == "value" and TASK in table.attributes else plain(name)


def label_of(table: TrialTable, column: int) -> str:
    """Give the name of an objective, its unit, and what is good, as plain text."""
    better = "higher" if table.objectives[column].maximize else "lower"
    return f"{quantity_of(table, column)}, {better} is better"


def quantity_of(table: TrialTable, column: int) -> str:
    """Give the name of an objective and its unit, where that is known: in our studies."""
    unit = _UNITS.get(table.objectives[column].name) if TASK in table.attributes else None
    return f"{name_of(table, column)} ({unit})" if unit else name_of(table, column)


def best_row(table: TrialTable, column: int) -> int | None:
    """Find the best complete trial that keeps the constraints, the earliest of equals."""
    usable = ~table.pruned & table.feasible & np.isfinite(table.values[:, column])
    if not usable.any():
        return None
    gains = np.where(usable, table.gains(column), -np.inf)
    return int(np.argmax(gains))


def axis_of(
    objective: Objective, values: Array, *, about: NDArray[np.bool_] | None = None, keep: Array | None = None
) -> tuple[dict[str, Any], str]:
    """Give the axis on which values are drawn, and a note where it leaves some out.

    The range is that of the values without the far-out ones (Tukey 1977), because a single diverged trial would press
    all others together; logarithmic where the objective is, and all values are positive.

    Args:
        objective: Whose values.
        values: To be drawn; those that are not finite, or beyond `HUGE`, have no place.
        about: The values that the picture is about, such as those of complete trials; of others it shows those that
            are not much worse. None is all of them.
        keep: Values that have to be seen, however far out they are, if they can be drawn.
    """
    drawable = np.abs(values) <= HUGE
    known = values[drawable]
    infinite, huge = int(np.isinf(values).sum()), int((np.isfinite(values) & ~drawable).sum())
    notes = [f"{infinite:,} infinite"] if infinite else []
    notes += [f"{huge:,} beyond ±{number(HUGE)}"] if huge else []
    if not len(known):
        return {}, _not_drawn(notes)
    logarithmic = objective.logarithmic and bool((known > 0).all())
    scaled = np.log10(known) if logarithmic else known
    central = scaled if about is None or not about[drawable].any() else scaled[about[drawable]]
    central = central[_inside(central)]
    if keep is not None:
        kept = keep[np.abs(keep) <= HUGE]
        central = np.concatenate([central, np.log10(kept) if logarithmic else kept])
    low, high = float(central.min()), float(central.max())
    pad = 0.1 * ((high - low) or abs(high) or 1.0)
    beyond = 0.0 if about is None else _BEYOND * (high - low)
    worst = float(scaled.min() if objective.maximize else scaled.max())
    if objective.maximize:
        low = max(low - beyond, min(low, worst))
    else:
        high = min(high + beyond, max(high, worst))
    low, high = low - pad, high + pad
    outside = known[(scaled < low) | (scaled > high)]
    axis: dict[str, Any] = {"range": [low, high]}
    if logarithmic:
        axis |= {"type": "log", **_decades(low, high)}
    if len(outside):
        farthest = outside[np.argmax(np.abs(outside - np.median(known)))]
        notes.append(f"{count(len(outside), 'value')} beyond the picture, as far as {number(float(farthest))}")
    return axis, _not_drawn(notes)


def _not_drawn(notes: Sequence[str]) -> str:
    return f"Not drawn: {', '.join(notes)}." if notes else ""


def _decades(low: float, high: float) -> dict[str, Any]:
    """Put ticks at round numbers: 1, 2, 5, 10 over a short range, tens over a long one."""
    steps: Sequence[int] = (1, 2, 5) if high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps if low <= math.log10(step) + power <= high]
    if len(ticks) > 8:
        ticks = ticks[:: math.ceil(len(ticks) / 8)]
    return {"tickvals": ticks, "ticktext": [_tick(tick) for tick in ticks]} if len(ticks) > 1 else {}


def _tick(value: float) -> str:
    for size, letter in ((1e12, ""), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return number(value, 3) if not letter else f"{number(value / size, 3)}{letter}"
    return number(value, 3)


def _inside(values: Array) -> NDArray[np.bool_]:
    """Tell which values are not far out."""
    if len(values) < _FENCE_AFTER:
        return np.ones(len(values), bool)
    lower, upper = np.quantile(values, (0.25, 0.75))
    width = _FENCE * (upper - lower)
    if not width > 0:
        return np.ones(len(values), bool)
    inside: NDArray[np.bool_] = (values >= lower - width) & (values <= upper + width)
    return inside
