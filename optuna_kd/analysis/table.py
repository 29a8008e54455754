"""A study as a table: one row for each trial that says something, and how many say nothing, and why.

Works on any Optuna study: of one or many objectives, conditional or not, finished or still running. Nothing is
written, and the trials are read once, so that everything built on one table shows the same moment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.pruners.halving import violation
from optuna_kd.samplers.domains import Domain, domain_of
from optuna_kd.samplers.evidence import fence
from optuna_kd.samplers.nsga.verdicts import Outcome, outcome_of
from optuna_kd.scales import log_objectives

COMPLETE = -1  # stands for the rung of a trial that ran to the end

_SQUARED = 1e150  # beyond, squares overflow
_PAIRS = 5  # of a report and a final value; fewer tell how far they are apart, not how their spreads compare

# Why a trial has no row.
FAILED, RUNNING, WAITING = "failed", "still running", "waiting to run"
UNREPORTED, NOT_A_NUMBER = "pruned without a report", "value is not a number"
_STATES = {TrialState.FAIL: FAILED, TrialState.RUNNING: RUNNING, TrialState.WAITING: WAITING}

Array = NDArray[np.float64]
Target = Callable[[FrozenTrial], float]


@dataclass(frozen=True)
class Objective:
    """What trials are judged by.

    Args:
        name: The metric name of the study, else "value", or "value 0", "value 1", ... of several.
        maximize: Whether more is better.
        logarithmic: Whether it spans orders of magnitude and is compared by its logarithm, as the study says.
    """

    name: str
    maximize: bool
    logarithmic: bool = False


@dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter of a study.

    Args:
        name: As it was suggested.
        distributions: Each that it had, once, in the order in which they came; more than one where ranges changed.
        rows: The rows of the table that have it, ascending.
    """

    name: str
    distributions: tuple[BaseDistribution, ...]
    rows: NDArray[np.int64]

    @property
    def visits(self) -> int:
        """How many rows have it."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class TrialTable:
    """The usable trials of a study, ascending in trial number.

    Args:
        study_name: Of the study.
        objectives: What the columns of `reported` and `values` are.
        trials: As they are stored, not copied: read only.
        numbers: Trial numbers; [rows].
        parameters: All parameters of these trials by name, in the order in which they first came.
        reported: Final values, of a pruned trial those at its last rung, as stored; [rows, objectives].
        values: The same with pruned trials in place among the complete ones (see `place`), so that all rows can be
            compared; infinite where they are stored so, NaN where nothing tells the place; [rows, objectives].
        rungs: The last rung of a pruned trial, `COMPLETE` (-1) of a complete one; [rows].
        violations: Total violation of the constraints, 0 for none; infinite for a trial that says nothing of the
            constraints that others have; [rows].
        left_out: How many trials have no row, by reason.
        others: All trials without a row, as they are stored: read only.
        attributes: The user attributes of the study.
    """

    study_name: str
    objectives: tuple[Objective, ...]
    trials: tuple[FrozenTrial, ...]
    numbers: NDArray[np.int64]
    parameters: Mapping[str, Parameter]
    reported: Array
    values: Array
    rungs: NDArray[np.int64]
    violations: Array
    left_out: Mapping[str, int] = field(default_factory=dict)
    others: tuple[FrozenTrial, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def params(self) -> tuple[Mapping[str, Any], ...]:
        """The parameters of each row, as stored."""
        return tuple(trial.params for trial in self.trials)

    @property
    def pruned(self) -> NDArray[np.bool_]:
        """Which rows are pruned trials; [rows]."""
        return self.rungs != COMPLETE

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which rows violate no constraint; [rows]."""
        return self.violations <= 0

    @property
    def seconds(self) -> Array:
        """How long each trial took; NaN where that is not known; [rows]."""
        durations = (trial.duration for trial in self.trials)
        return np.array([math.nan if duration is None else duration.total_seconds() for duration in durations], float)

    def where(self, kept: NDArray[np.bool_]) -> TrialTable:
        """Keep some rows; those left out here are among the `others`, and not counted in `left_out`."""
        rows = np.flatnonzero(kept)
        parameters = {
            name: Parameter(name, parameter.distributions, np.flatnonzero(np.isin(rows, parameter.rows)))
            for name, parameter in self.parameters.items()
        }
        return replace(
            self,
            trials=tuple(self.trials[row] for row in rows.tolist()),
            numbers=self.numbers[rows],
            parameters={name: parameter for name, parameter in parameters.items() if parameter.visits},
            reported=self.reported[rows],
            values=self.values[rows],
            rungs=self.rungs[rows],
            violations=self.violations[rows],
            others=(*self.others, *(self.trials[row] for row in np.flatnonzero(~kept).tolist())),
        )

    def place_of(self, objective: int | str) -> int:
        """Find the column of an objective by its place or its name.

        Raises:
            ValueError: If there is none such.
        """
        return place_of(objective, self.objectives)

    def gains(self, objective: int = 0) -> Array:
        """Give the values of one objective so that more is better; [rows]."""
        return self.values[:, objective] if self.objectives[objective].maximize else -self.values[:, objective]

    def attribute(self, name: str) -> Array:
        """Give a user attribute as numbers; NaN where a trial has none, or one that is not a number; [rows]."""
        return np.array([_number(trial.user_attrs.get(name)) for trial in self.trials], float)

    def attribute_names(self) -> dict[str, int]:
        """Give the user attributes that are numbers, and how many rows have each; the most frequent first."""
        counts = Counter(
            name for trial in self.trials for name, value in trial.user_attrs.items() if not math.isnan(_number(value))
        )
        return dict(counts.most_common())


def read_table(study: Study, objective: int | str | None = None, *, target: Target | None = None) -> TrialTable:
    """Read the trials of a study, once.

    Args:
        study: Any study; it may still be running, and its storage may be read-only.
        objective: The place, or the metric name, of the only objective to keep; None keeps all.
        target: Instead of the objectives: what to compute of each trial; more is better. Only complete trials are
            asked, because others have no values to compute from.

    Raises:
        ValueError: For an objective that the study does not have, and for an objective together with a target.
        TypeError: For what is no study.
    """
    if not isinstance(study, Study):
        raise TypeError(f"A study is expected, such as optuna_kd.load_study(...) gives; got {study!r}.")
    if objective is not None and target is not None:
        raise ValueError(f"Pass objective or target, not both; got objective={objective!r} and target={target!r}.")
    trials = study.get_trials(deepcopy=False)
    objectives = objectives_of(study)
    if target is not None:
        rows, outcomes, left_out = _usable_by(target, trials)
        objectives, kept = (Objective("target", maximize=True),), [0]
        signs: tuple[float, ...] = (-1.0,)
    else:
        kept = list(range(len(objectives))) if objective is None else [place_of(objective, objectives)]
        signs = tuple(-1.0 if each.maximize else 1.0 for each in objectives)
        rows, outcomes, left_out = _usable(trials, signs)
    reported = np.array([outcome.values for outcome in outcomes], float).reshape(len(rows), len(signs)) * signs
    rungs = np.array([COMPLETE if math.isinf(outcome.rung) else outcome.rung for outcome in outcomes], np.int64)
    values = np.empty_like(reported)
    for column, sign in enumerate(signs):
        reports = [{rung: -told[column] for rung, told in outcome.reports.items()} for outcome in outcomes]
        values[:, column] = place(-sign * reported[:, column], rungs, reports) * -sign
    numbers = {trial.number for trial in rows}
    return TrialTable(
        study.study_name,
        tuple(objectives[column] for column in kept),
        tuple(rows),
        np.array([trial.number for trial in rows], np.int64),
        _parameters(rows),
        reported[:, kept],
        values[:, kept],
        rungs,
        _violations(rows),
        left_out,
        tuple(trial for trial in trials if trial.number not in numbers),
        study.user_attrs,
    )


def objectives_of(study: Study) -> tuple[Objective, ...]:
    """Give the objectives of a study."""
    count = len(study.directions)
    names = study.metric_names or (["value"] if count == 1 else [f"value {place}" for place in range(count)])
    return tuple(
        Objective(name, direction == StudyDirection.MAXIMIZE, logarithmic)
        for name, direction, logarithmic in zip(names, study.directions, log_objectives(study), strict=True)
    )


def place_of(objective: int | str, objectives: Sequence[Objective]) -> int:
    """Find an objective by its place or its name.

    Raises:
        ValueError: If there is none such.
    """
    names = [each.name for each in objectives]
    if isinstance(objective, str) and objective in names:
        return names.index(objective)
    if not isinstance(objective, str) and 0 <= objective < len(names):
        return objective
    raise ValueError(f"Unknown objective {objective!r}. Known: {', '.join(names)}, or a place, 0 to {len(names) - 1}.")


def place(values: Array, rungs: NDArray[np.int64], reports: Sequence[Mapping[int, float]]) -> Array:
    """Put pruned trials in their place among the complete ones, in the unit of the values.

    What a pruned trial reported is not what it would have ended with. So the reports at its last rung are put on the
    scale of final values by the trials that went on from there: the line that gives theirs the mean and the standard
    deviation of what became of them (they in turn may have been put in place at a later rung). A regression line
    would be flatter, and press pruned trials together towards the mean.

    The samplers (`optuna_kd.samplers.evidence`) judge a pruned trial by its rank at the rung, between the worst and
    the median of the complete ones. That says which branch to try, and bends what is measured here: most complete
    trials are good ones, and the pruned ones would be as well. Error of the importances of `benchmarks/importance.py`
    at 100 trials, 78 % of them pruned: .031 to .045 with lines, .034 to .095 with ranks, .061 to .136 without
    the pruned trials, .016 to .025 where none is pruned.

    Where no trial is complete, those at the highest rung stand for the complete ones.

    Args:
        values: Final values, or those at the last rung; higher is better; [rows].
        rungs: The last rung of a pruned trial, `COMPLETE` of a complete one; [rows].
        reports: What each trial reported, by rung; higher is better; [rows].

    Returns:
        The values, those of pruned trials in place, NaN where no other trial reported at the rung; [rows].
    """
    if not len(values):
        return values
    ended = rungs == COMPLETE if (rungs == COMPLETE).any() else rungs == rungs.max()
    placed = np.where(ended, values, np.nan)
    for rung in np.unique(rungs[~ended])[::-1].tolist():
        told = np.array([report.get(rung, math.nan) for report in reports])
        rows = ~ended & (rungs == rung)
        went_on = (ended | (rungs > rung)) & np.isfinite(told) & np.isfinite(placed)
        if went_on.any():
            placed[rows] = _matched(told[rows], told[went_on], placed[went_on])
    return placed


def _matched(own: Array, told: Array, became: Array) -> Array:
    """Put reports on the scale of final values, by trials of which both are known."""
    if (peak := max(np.abs(told).max(), np.abs(became).max())) > _SQUARED:
        return _matched(own / peak, told / peak, became / peak) * peak  # so that no square overflows
    told, became = fenced(told), fenced(became)
    slope = 1.0
    if len(told) >= _PAIRS and told.std() > 0:
        slope = float(became.std() / told.std())
    result: Array = became.mean() + slope * (own - told.mean())
    return result


def fenced(values: Array) -> Array:
    """Count all values as equally bad from the fence of the samplers down (see `optuna_kd.samplers.evidence.rescale`).

    Args:
        values: Finite ones, higher is better; [rows].
    """
    if not len(values):
        return values
    unit = max(1.0, float(np.abs(values).max()) / _SQUARED)  # so that no difference overflows
    return np.maximum(values, fence(values / unit) * unit)


def _usable(
    trials: Sequence[FrozenTrial], signs: tuple[float, ...]
) -> tuple[list[FrozenTrial], list[Outcome], dict[str, int]]:
    rows, outcomes, left_out = [], [], Counter[str]()
    for trial in trials:
        reason = _STATES.get(trial.state)
        if reason is None:
            outcome = outcome_of(trial, signs)
            reason = _reason_against(trial, outcome, len(signs))
        if reason is not None:
            left_out[reason] += 1
            continue
        rows.append(trial)
        outcomes.append(outcome)
    return rows, outcomes, dict(left_out)


def _reason_against(trial: FrozenTrial, outcome: Outcome, objectives: int) -> str | None:
    if trial.state is TrialState.COMPLETE:
        values = trial.values
        return NOT_A_NUMBER if values is None or any(math.isnan(value) for value in values) else None
    if outcome.values is None:
        return NOT_A_NUMBER if objectives == 1 and trial.intermediate_values else UNREPORTED
    # With one objective a NaN at the end is a training that diverged; what it reported before says nothing of it.
    # With several, it is the mark that `optuna_kd.pruners.should_prune` leaves.
    last = trial.last_step
    diverged = objectives == 1 and last is not None and math.isnan(trial.intermediate_values[last])
    return NOT_A_NUMBER if diverged else None


def _usable_by(
    target: Target, trials: Sequence[FrozenTrial]
) -> tuple[list[FrozenTrial], list[Outcome], dict[str, int]]:
    rows, outcomes, left_out = [], [], Counter[str]()
    for trial in trials:
        if trial.state is not TrialState.COMPLETE:
            left_out[_STATES.get(trial.state, "pruned")] += 1
            continue
        value = float(target(trial))
        if math.isnan(value):
            left_out[NOT_A_NUMBER] += 1
            continue
        rows.append(trial)
        outcomes.append(Outcome((-value,), math.inf, {}, {}))
    return rows, outcomes, dict(left_out)


def _parameters(trials: Sequence[FrozenTrial]) -> dict[str, Parameter]:
    rows: dict[str, list[int]] = {}
    distributions: dict[str, dict[Domain, BaseDistribution]] = {}
    for row, trial in enumerate(trials):
        for name, distribution in trial.distributions.items():
            rows.setdefault(name, []).append(row)
            # By domain, which can be hashed; choices may be anything.
            distributions.setdefault(name, {}).setdefault(domain_of(distribution), distribution)
    return {
        name: Parameter(name, tuple(distributions[name].values()), np.array(found, np.int64))
        for name, found in rows.items()
    }


def _violations(trials: Sequence[FrozenTrial]) -> Array:
    constraints = [trial.constraints for trial in trials]
    constrained = any(constraints)
    return np.array(
        [
            violation(trial) if told or not constrained else math.inf
            for trial, told in zip(trials, constraints, strict=True)
        ],
        float,
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
