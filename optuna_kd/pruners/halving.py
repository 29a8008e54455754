"""Asynchronous successive halving by Pareto rank, for one objective and for several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.pareto import pareto_order
from optuna_kd.pruners.reporting import last_reported, values_at
from optuna_kd.scales import log_objectives, on_scale


class ParetoHalvingPruner(BasePruner):
    """Asynchronous successive halving (Li et al. 2020) for any number of objectives.

    At each rung a trial goes on if it is among the best `1 / reduction_factor` of all trials that reached this
    rung so far, pruned and running ones included: no trial waits for another. The order is that of NSGA-II (Deb et
    al. 2002): by non-dominated rank, and within the last rank that fits by crowding distance; with one objective it
    is the order of the values. Trials that violate constraints (`trial.set_constraint`) come after those that do
    not, by their total violation. A trial that reports NaN is stopped at that step, whether it is a rung or not.

    A sampler that learns makes later trials better than earlier ones, and nearly all of them would be among the best
    half so far. So the bar rises where too many went on: each one too many divides the share once more.

    In studies of several objectives use it with `optuna_kd.pruners.report` and `optuna_kd.pruners.should_prune`; with
    one objective Optuna's own `trial.report` and `trial.should_prune` do as well.

    It holds no state: everything is read from the trials, so that any number of workers, restarted at any time,
    decide alike. Each worker has to be given the pruner: it is not part of a stored study.

    Args:
        reduction_factor: Share of the trials that go on at each rung is 1 / reduction_factor; > 1.
        rungs: Steps at which trials are judged, rising; None is every reported step.
        warmup_trials: Trials that must have reached a rung before anything is pruned there; >= 1.

    Raises:
        ValueError: For an argument out of range.

    Example:
        >>> study = optuna.create_study(directions=["minimize", "minimize"], pruner=ParetoHalvingPruner())
    """

    judges_several_objectives = True

    def __init__(
        self, reduction_factor: float = 2, *, rungs: Sequence[int] | None = None, warmup_trials: int = 4
    ) -> None:
        if not 1 < reduction_factor < math.inf:
            raise ValueError(f"reduction_factor must be > 1 and finite; got {reduction_factor!r}.")
        if warmup_trials < 1:
            raise ValueError(f"warmup_trials must be >= 1; got {warmup_trials!r}.")
        self.reduction_factor, self.warmup_trials = reduction_factor, warmup_trials
        self.rungs = None if rungs is None else _checked(rungs)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the trial should stop at its last reported step."""
        objectives = len(study.directions)
        step = last_reported(trial, objectives)
        own = None if step is None else values_at(trial, step, objectives)
        if step is None or own is None:
            return False
        if _has_nan(own):
            return True
        if self.rungs is not None and step not in self.rungs:
            return False
        logarithmic = log_objectives(study)
        values, violations, went_on = [on_scale(own, logarithmic)], [violation(trial)], 0
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or other.state == TrialState.FAIL:
                continue
            reported = values_at(other, step, objectives)
            if reported is not None and not _has_nan(reported):
                values.append(on_scale(reported, logarithmic))
                violations.append(violation(other))
                went_on += _went_on(other, step, objectives)
        if len(values) < self.warmup_trials:
            return False
        # Li et al. 2020 have no such bar: with `UniADSSampler` three quarters of the trials went on instead of half.
        too_many = max(0, went_on - math.ceil((len(values) - 1) / self.reduction_factor))
        bar = self.reduction_factor ** min(1 + too_many, math.log(len(values), self.reduction_factor) + 1)
        return not survivors(values, study.directions, bar, violations)[0]


def survivors(
    values: ArrayLike,
    directions: Sequence[StudyDirection],
    reduction_factor: float,
    violations: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Tell which trials are among the best ⌈N / reduction_factor⌉, by Pareto rank and then by crowding distance.

    Li et al. 2020, Algorithm 2, promote ⌊N / η⌋. Here: the ceiling, because the first trial at a rung would
    otherwise always be stopped. What stands in the same place goes on together, even if these are more.

    Args:
        values: What the trials reported, [N, objectives], without NaN.
        directions: Of the objectives.
        reduction_factor: η, > 1.
        violations: Total violation of the constraints of each trial, [N]; None is none.

    Returns:
        Whether each trial goes on, [N].
    """
    signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
    ranks, crowding = pareto_order(np.asarray(values, dtype=np.float64) * signs, violations)
    if len(ranks) == 0:
        return np.zeros(0, dtype=bool)
    best_first = np.lexsort((-crowding, ranks))
    last = best_first[math.ceil(len(ranks) / reduction_factor) - 1]
    goes_on: NDArray[np.bool_] = (ranks < ranks[last]) | ((ranks == ranks[last]) & (crowding >= crowding[last]))
    return goes_on


def _went_on(trial: FrozenTrial, step: int, objectives: int) -> bool:
    later = (other for other in trial.intermediate_values if other > step)
    return trial.state == TrialState.COMPLETE or any(values_at(trial, other, objectives) for other in later)


def violation(trial: FrozenTrial) -> float:
    """Sum up by how much a trial violates its constraints; 0 for one that violates, or has, none."""
    return sum(max(0.0, excess) for excess in trial.constraints.values())


def _checked(rungs: Sequence[int]) -> tuple[int, ...]:
    steps = tuple(rungs)
    whole = all(isinstance(step, int | np.integer) and step > 0 for step in steps)
    if not steps or not whole or any(after <= before for before, after in pairwise(steps)):
        raise ValueError(f"rungs must be rising positive integers, at least one, like [3, 6, 12]; got {rungs!r}.")
    return tuple(int(step) for step in steps)


def _has_nan(values: Sequence[float]) -> bool:
    return any(math.isnan(value) for value in values)
