"""What is known of the trials at their rungs: how near they are to the teacher, their loss, what they reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from optuna_kd.analysis.figures.objective import name_of, quantity_of
from optuna_kd.analysis.table import Objective, TrialTable
from optuna_kd.pruners.cka import CONTROL_GAPS, GAPS
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.samplers.nsga.verdicts import outcome_of
from optuna_kd.study import TASK

# The cross-entropy of which a reward (`optuna_kd.rewards`) was made, given the gap 1 - CKA and the number of classes.
LOSS_OF: Mapping[str, Callable[[float, float, int], float]] = {
    "bounded": lambda reward, gap, classes: (1 - reward) * (math.log(classes) + 1) - gap,
    "paper": lambda reward, gap, classes: 1 - reward - gap,
    "ce": lambda reward, gap, classes: (1 - reward) * math.log(classes),
}

Curve = Mapping[int, float]


@dataclass(frozen=True)
class RungValues:
    """One quantity at the rungs.

    Args:
        label: Of its axis, as plain text.
        objective: Its name, what is better, and whether it is logarithmic.
        curves: Of each row of the table, its values by rung.
        control: The same of the plain-KD control; empty where it is not known.
    """

    label: str
    objective: Objective
    curves: Sequence[Curve]
    control: Curve


def rung_values(table: TrialTable, column: int) -> list[RungValues]:
    """Give what is known at the rungs: CKA, where it was stored, and the loss, or else what was reported.

    The loss is worked out from reward and CKA, if the reward is one of which that can be done.
    """
    gaps = [_by_rung(trial.user_attrs.get(GAPS)) for trial in table.trials]
    reports = _reports(table, column)
    found = []
    if any(gaps):
        control = _complement(_by_rung(table.attributes.get(CONTROL_GAPS)))
        cka = [_complement(gap) for gap in gaps]
        found.append(RungValues("CKA with the teacher", Objective("CKA", maximize=True), cka, control))
    losses = _losses(table, reports, gaps)
    if any(losses):
        found.append(RungValues("cross-entropy (nats)", Objective("cross-entropy", maximize=False), losses, {}))
    elif any(reports):
        known = table.objectives[column]
        objective = Objective(name_of(table, column), known.maximize, known.logarithmic)
        found.append(RungValues(quantity_of(table, column), objective, reports, {}))
    return found


def _reports(table: TrialTable, column: int) -> list[dict[int, float]]:
    signs = (1.0,) * len(table.objectives)
    if any(_has_more(trial, len(signs)) for trial in table.trials):
        return [{} for _ in table.trials]  # the table is about one of several objectives, and does not say which
    return [
        {rung: told[column] for rung, told in outcome_of(trial, signs).reports.items() if math.isfinite(told[column])}
        for trial in table.trials
    ]


def _has_more(trial: FrozenTrial, objectives: int) -> bool:
    return len(trial.values or ()) > objectives or (
        objectives == 1 and isinstance(trial.user_attrs.get(RUNG_VALUES), Mapping)
    )


def _losses(table: TrialTable, reports: Sequence[Curve], gaps: Sequence[Curve]) -> list[dict[int, float]]:
    task = table.attributes.get(TASK)
    if not isinstance(task, Mapping) or len(table.objectives) > 1:
        return []
    loss, classes = LOSS_OF.get(str(task.get("reward"))), task.get("classes")
    if loss is None or not isinstance(classes, int) or classes < 2:
        return []
    return [
        {rung: max(0.0, loss(reward, gap[rung], classes)) for rung, reward in report.items() if rung in gap}
        for report, gap in zip(reports, gaps, strict=True)
    ]


def _by_rung(stored: object) -> dict[int, float]:
    """Read {"3": 0.4} as it is stored, leaving out what is no number."""
    if not isinstance(stored, Mapping):
        return {}
    return {
        int(rung): float(gap)
        for rung, gap in stored.items()
        if str(rung).isdecimal() and isinstance(gap, int | float) and math.isfinite(gap)
    }


def _complement(gaps: Curve) -> dict[int, float]:
    return {rung: 1 - gaps[rung] for rung in sorted(gaps)}
