"""What the finished trials of a study are worth to an evolutionary search: who stands before whom.

Complete trials stand first, then the pruned ones by the last rung that they reached, later rungs first; infeasible
trials stand behind all feasible ones, by how much they violate. Among equals the non-dominated front decides, then
the crowding distance, then the trial number. Failed trials, and pruned ones without values at a rung, have no
standing; they count against what they tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.pareto import pareto_order
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.samplers.evidence import rescale
from optuna_kd.scales import on_scale

_LIMIT = 3.0  # how many typical sizes of a constraint the surrogate tells apart
_FAILED_AT = 0.1  # a failed trial counts like the one that this share of the others is worse than

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one finished trial reported, less is better.

    Args:
        values: Of a complete trial, or of a pruned one at its last rung; None: it is not judged.
        rung: Infinite for a complete trial, else the last rung.
        reports: The values at all rungs.
        constraints: As the trial has set them, feasible at 0 and below; empty where it has set none.
    """

    values: tuple[float, ...] | None
    rung: float
    reports: Mapping[int, tuple[float, ...]]
    constraints: Mapping[str, float]

    @property
    def violation(self) -> float:
        """By how much the constraints are violated; 0 where they are not."""
        return sum(max(value, 0.0) for value in self.constraints.values())


def outcome_of(trial: FrozenTrial, signs: tuple[float, ...], logarithmic: tuple[bool, ...] = ()) -> Outcome:
    """Read a finished trial.

    Args:
        trial: The trial.
        signs: 1 for each objective that is minimised, else -1.
        logarithmic: Whether each objective is compared by its logarithm; empty: none is.
    """

    def read(values: Sequence[float]) -> tuple[float, ...]:
        return _signed(on_scale(values, logarithmic) if logarithmic else values, signs)

    reports = _reports(trial, len(signs), read)
    constraints = dict(trial.constraints)
    if trial.state is TrialState.COMPLETE and trial.values is not None:
        return Outcome(read(trial.values), math.inf, reports, constraints)
    if trial.state is TrialState.PRUNED and reports:
        return Outcome(reports[max(reports)], max(reports), reports, constraints)
    return Outcome(None, -1, {}, constraints)


def _reports(
    trial: FrozenTrial, objectives: int, read: Callable[[Sequence[float]], tuple[float, ...]]
) -> dict[int, tuple[float, ...]]:
    told = trial.user_attrs.get(RUNG_VALUES)
    if isinstance(told, Mapping):
        found = {}
        for rung, values in told.items():
            try:
                found[int(rung)] = read([_number(value) for value in values])
            except (TypeError, ValueError):  # not a rung, or not its values
                continue
        # A trial that runs again starts with a copy of the attributes of the killed one, not of its reports.
        found = {rung: values for rung, values in found.items() if rung in (trial.intermediate_values or found)}
        if found:
            return found
    if objectives > 1:
        return {}
    return {rung: read([value]) for rung, value in trial.intermediate_values.items() if value == value}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _signed(values: Iterable[float], signs: tuple[float, ...]) -> tuple[float, ...]:
    """Turn values so that less is better; what is not a number is the worst."""
    turned = [sign * value for sign, value in zip(signs, values, strict=True)]
    return tuple(math.inf if math.isnan(value) else value for value in turned)


class Verdicts:
    """The finished trials of a study, added once each.

    Args:
        objectives: How many the study has.
    """

    def __init__(self, objectives: int) -> None:
        self.objectives = objectives
        self._outcomes: dict[int, Outcome] = {}
        self._order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._outcomes)

    def __contains__(self, number: int) -> bool:
        return number in self._outcomes

    def __getitem__(self, number: int) -> Outcome:
        return self._outcomes[number]

    def add(self, number: int, outcome: Outcome) -> None:
        """Take in a trial."""
        self._outcomes[number], self._order = outcome, None

    def of(self, numbers: Iterable[int]) -> Verdicts:
        """Give the verdicts on some of the trials alone."""
        part = Verdicts(self.objectives)
        for number in numbers:
            part.add(number, self._outcomes[number])
        return part

    @property
    def constrained(self) -> bool:
        """Whether any trial has set a constraint."""
        return any(outcome.constraints for outcome in self._outcomes.values())

    def standing(self) -> NDArray[np.int64]:
        """Give the numbers of the judged trials, the best first."""
        if self._order is None:
            self._order = self._sorted()
        return self._order

    def failed(self) -> NDArray[np.int64]:
        """Give the numbers of the trials that count against their options: not judged, pruned, or in the lower half."""
        order = self.standing()
        found = set(order[(len(order) + 1) // 2 :].tolist())
        found |= {number for number, outcome in self._outcomes.items() if outcome.values is None}
        found |= {number for number, outcome in self._outcomes.items() if outcome.rung < math.inf}
        return np.array(sorted(found), np.int64)

    def rewards(self, objective: int) -> Array:
        """Give what the surrogate is to expect of one objective, by trial number, from 0 for the worst to 1.

        A pruned trial counts as if it had gone on as the others did: by the median change from its last rung to the
        end. An unjudged trial counts as bad: worse than nine tenths of the others, and not as the worst of all,
        which would stretch the scale.
        """
        numbers = np.array(sorted(self._outcomes), np.int64)
        rewards = np.zeros(int(numbers.max(initial=-1)) + 1)
        shifts: dict[int, float] = {}
        values = np.full(len(numbers), np.nan)
        for place, number in enumerate(numbers.tolist()):
            outcome = self._outcomes[number]
            if outcome.values is None:
                continue
            values[place] = outcome.values[objective]
            if outcome.rung < math.inf:
                rung = int(outcome.rung)
                values[place] += shifts.setdefault(rung, self._change(rung, objective))
        known = ~np.isnan(values)
        scaled = np.zeros(len(numbers))
        if known.any():
            scaled[known] = rescale(-values[known])
            scaled[~known] = np.quantile(scaled[known], _FAILED_AT)
        rewards[numbers] = scaled
        return rewards

    def _change(self, rung: int, objective: int) -> float:
        changes = [
            outcome.values[objective] - outcome.reports[rung][objective]
            for outcome in self._outcomes.values()
            if outcome.values is not None and outcome.rung == math.inf and rung in outcome.reports
        ]
        finite = [change for change in changes if math.isfinite(change)]
        return float(np.median(finite)) if finite else 0.0

    def slack(self) -> Array:
        """Give how far each trial is from violating its constraints, by number, each in its own typical size."""
        numbers = sorted(self._outcomes)
        sizes: dict[str, list[float]] = {}
        for number in numbers:
            for key, value in self._outcomes[number].constraints.items():
                if math.isfinite(value):
                    sizes.setdefault(key, []).append(abs(value))
        units = {key: float(np.median(found)) or 1.0 for key, found in sizes.items()}
        slack = np.full(max(numbers, default=-1) + 1, np.nan)
        for number in numbers:
            told = self._outcomes[number].constraints
            if told:
                worst = max(value / units.get(key, 1.0) for key, value in told.items())
                slack[number] = -min(max(worst, -_LIMIT), _LIMIT)
        known = slack[~np.isnan(slack)]
        return np.where(np.isnan(slack), np.median(known) if len(known) else 0.0, slack)

    def _sorted(self) -> NDArray[np.int64]:
        numbers = [number for number in sorted(self._outcomes) if self._outcomes[number].values is not None]
        constrained = self.constrained
        groups: dict[tuple[int, float], list[int]] = {}
        for number in numbers:
            outcome = self._outcomes[number]
            if outcome.violation > 0:
                key = 1, 0.0
            elif constrained and not outcome.constraints and outcome.rung == math.inf:
                key = 2, 0.0  # a complete trial that has kept its constraints to itself: as in Optuna, the last
            else:
                key = 0, -outcome.rung
            groups.setdefault(key, []).append(number)
        order: list[int] = []
        for key in sorted(groups):
            members = np.array(groups[key])
            values = np.array([self._outcomes[number].values for number in groups[key]], float)
            ranks, crowding = pareto_order(values, [self._outcomes[number].violation for number in groups[key]])
            order += members[np.lexsort((members, -crowding, ranks))].tolist()
        return np.array(order, np.int64)
