"""How far each trial of a study went, and why it ended there: unusable trials included."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from optuna_kd.analysis.figures import style
from optuna_kd.analysis.figures.style import Mark
from optuna_kd.analysis.figures.wording import SENTENCE, plain
from optuna_kd.analysis.table import TrialTable
from optuna_kd.pruners.rejection import REJECT_REASON
from optuna_kd.study import TASK

# How the reasons begin with which our objectives reject a trial before it is trained.
_UNTRAINED = ("infeasible", "screened out", "cannot be built", "cannot teach")


class Fate(enum.Enum):
    """How a trial ended; the value is what a figure calls it."""

    FINISHED = "ran to the end"
    STOPPED = "stopped at a rung"
    REJECTED = "loss rejected"
    REFUSED = "not trained"
    FAILED = "failed"
    RUNNING = "still running"


MARKS = {
    Fate.FINISHED: Mark(style.BLUE, "circle", "●"),
    Fate.STOPPED: Mark("#8A9097", "x-thin", "×", hatch="/"),
    Fate.REJECTED: Mark(style.VERMILION, "triangle-down", "▼", hatch="x"),
    Fate.REFUSED: Mark(style.PURPLE, "square-open", "□", hatch="."),
    Fate.FAILED: Mark(style.INK, "cross-thin", "+", hatch="+"),
    Fate.RUNNING: Mark(style.GREEN, "circle-open", "○", hatch="-"),
}


@dataclass(frozen=True)
class Passage:
    """How far one trial went.

    Args:
        number: Of the trial.
        fate: How it ended.
        steps: The steps at which it reported a number, ascending.
        reason: Why it was rejected; empty if it was not.
    """

    number: int
    fate: Fate
    steps: tuple[int, ...]
    reason: str = ""

    @property
    def last(self) -> int | None:
        """The last step, if it reached one."""
        return self.steps[-1] if self.steps else None

    def reached(self, rung: int) -> bool:
        """Whether it was still running at a rung."""
        return self.fate is Fate.FINISHED or (bool(self.steps) and self.steps[-1] >= rung)


def passages(table: TrialTable) -> list[Passage]:
    """Give all trials of a study that were begun, by number."""
    trials = sorted((*table.trials, *table.others), key=lambda trial: trial.number)
    ours = TASK in table.attributes
    return [_passage(trial, ours) for trial in trials if trial.state is not TrialState.WAITING]


def rungs_of(found: Sequence[Passage]) -> list[int]:
    """Give the steps at which trials reported, ascending."""
    return sorted({step for passage in found for step in passage.steps})


def step_word(table: TrialTable) -> str:
    """Say what a step is: our objectives report at epochs."""
    return "epoch" if TASK in table.attributes else "step"


def key_of(found: Sequence[Passage]) -> str:
    """Explain the marks of the fates that occur."""
    fates = {passage.fate for passage in found}
    return style.key(*((mark.glyph, mark.colour, fate.value) for fate, mark in MARKS.items() if fate in fates))


def _passage(trial: FrozenTrial, ours: bool) -> Passage:
    reason = trial.user_attrs.get(REJECT_REASON)
    fate = _fate(trial, reason)
    steps = sorted(step for step, value in trial.intermediate_values.items() if not math.isnan(value))
    if fate is Fate.REJECTED and ours:
        # At the rung that it did not reach, a rejected trial of ours reports the worst value.
        trained = trial.user_attrs.get("epochs", 0)
        steps = [step for step in steps if step <= trained]
    return Passage(trial.number, fate, tuple(steps), plain(reason, SENTENCE) if isinstance(reason, str) else "")


def _fate(trial: FrozenTrial, reason: object) -> Fate:
    if trial.state is TrialState.COMPLETE:
        return Fate.FINISHED
    if trial.state is TrialState.PRUNED:
        if not isinstance(reason, str):
            return Fate.STOPPED
        return Fate.REFUSED if reason.startswith(_UNTRAINED) else Fate.REJECTED
    return Fate.FAILED if trial.state is TrialState.FAIL else Fate.RUNNING
