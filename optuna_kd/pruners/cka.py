"""Asynchronous successive halving on the reward, and an early stop for a gap that is not closing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

GAPS = "representation_gaps"  # user attribute of a trial, {rung: 1 - CKA}
CONTROL_GAPS = "control_representation_gaps"  # user attribute of a study, {rung: 1 - CKA} of plain KD


class CKAPruner(BasePruner):
    """Prunes at rungs, on the reward and on the representation gap to the teacher.

    At every reported step (a rung) a trial goes on if its reward is among the best
    `1 / reduction_factor` of all trials that reached this rung so far (asynchronous successive halving,
    Li et al. 2020): no trial waits for another. Independently, a trial is stopped whose gap 1 − CKA is wider
    than that of the plain-KD control at the same rung and closes less than `patience` times as fast as the
    control's did over the same rungs.

    It holds no state: everything is read from the trials and from the study's attributes, so that any
    number of workers, restarted at any time, decide alike.

    Args:
        reduction_factor: Share of the trials that go on at each rung is 1 / reduction_factor; > 1.
        warmup_trials: Trials that must have reached a rung before anything is pruned there; >= 1.
        patience: See above; in [0, 1], 0 switches the early stop off. It needs gaps, written with
            `record_gap` and `record_control_gaps`; where they are missing it stays out of the way.

    Raises:
        ValueError: For an argument out of range.

    Example:
        >>> study = optuna.create_study(direction="maximize", pruner=CKAPruner())
    """

    def __init__(self, reduction_factor: float = 3, *, warmup_trials: int = 4, patience: float = 0.25) -> None:
        if not reduction_factor > 1:
            raise ValueError(f"reduction_factor must be > 1; got {reduction_factor!r}.")
        if warmup_trials < 1:
            raise ValueError(f"warmup_trials must be >= 1; got {warmup_trials!r}.")
        if not 0 <= patience <= 1:
            raise ValueError(f"patience must be in [0, 1]; got {patience!r}.")
        self.reduction_factor, self.warmup_trials, self.patience = reduction_factor, warmup_trials, patience

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether the trial should stop at its last reported step."""
        step = trial.last_step
        if step is None:
            return False
        value = trial.intermediate_values[step]
        if math.isnan(value):
            return True
        competing = [
            other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
            and step in other.intermediate_values
            and other.state != TrialState.FAIL
            and not math.isnan(other.intermediate_values[step])
        ]
        if len(competing) + 1 < self.warmup_trials:
            return False
        maximize = study.direction == StudyDirection.MAXIMIZE
        if not is_promotable(value, [*competing, value], self.reduction_factor, maximize=maximize):
            return True
        # A trial that runs again starts with a copy of the old attributes, not of the old reports.
        told = trial.user_attrs.get(GAPS, {})
        gaps = {rung: gap for rung, gap in told.items() if int(rung) in trial.intermediate_values}
        return not is_closing(gaps, study.user_attrs.get(CONTROL_GAPS, {}), self.patience)


def is_promotable(value: float, competing: Sequence[float], reduction_factor: float, *, maximize: bool) -> bool:
    """Tell whether `value` is among the best ⌈n / reduction_factor⌉ of the `competing` values (itself one of them).

    Li et al. 2020, Algorithm 2, promote ⌊n / η⌋. Here: the ceiling, because the first trial at a rung would
    otherwise always be stopped. Equal values are promoted together.
    """
    places = math.ceil(len(competing) / reduction_factor)
    better = sum(other > value if maximize else other < value for other in competing)
    return better < places


def is_closing(gaps: Mapping[str, float], control: Mapping[str, float], patience: float) -> bool:
    """Tell whether a representation gap closes, compared with the control's, over the last two common rungs.

    Args:
        gaps: 1 − CKA of the trial by rung.
        control: 1 − CKA of plain KD by rung.
        patience: The trial may close this many times slower, in [0, 1]; 0 is always content.

    Returns:
        True with fewer than two common rungs, or where the gap is no wider than the control's.
    """
    rungs = sorted(set(gaps) & set(control), key=int)
    if patience == 0 or len(rungs) < 2:
        return True
    before, now = rungs[-2:]
    if gaps[now] <= control[now]:
        return True
    return gaps[before] - gaps[now] >= patience * max(0.0, control[before] - control[now])


def record_gap(trial: Trial, step: int, gap: float) -> None:
    """Store the representation gap of a trial at a rung, for `CKAPruner`."""
    trial.set_user_attr(GAPS, {**trial.user_attrs.get(GAPS, {}), str(step): gap})


def record_control_gaps(study: optuna.Study, gaps: Mapping[int, float]) -> None:
    """Store the representation gaps of the plain-KD control, for `CKAPruner`."""
    study.set_user_attr(CONTROL_GAPS, {str(step): gap for step, gap in gaps.items()})
