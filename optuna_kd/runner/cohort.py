"""Trials side by side in one process: asked for, trained as one stack, told one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import Trial, TrialState

from optuna_kd._compat import heartbeat
from optuna_kd.objective import DistillationObjective
from optuna_kd.stopping import TrainingInterrupted
from optuna_kd.storages import quietly, retire_trial
from optuna_kd.study.optimizing import end_trial
from optuna_kd.training.together import Attempt, learn_together

Values = float | tuple[float, ...]


def run_cohort(
    study: Study, objective: DistillationObjective, trials: Iterable[Trial], most: int
) -> Iterator[tuple[int, Exception | None]]:
    """Run trials of a study side by side, and tell the study of each.

    Trials of students with the same layers are trained as one stacked network (`learn_together`), with the same
    results up to floating-point noise. A trial is seen by the sampler as running until it has ended, as with so many
    workers.

    Args:
        study: The study; its pruner stops trials as ever.
        objective: What each trial is.
        trials: That `next_trial` gave; drawn one by one, each when a place is free.
        most: How many are trained at a time.

    Returns:
        For each trial as it ends, its number, and what it raised if it failed. One that was pruned or rejected has not
        failed, nor has one that was interrupted, which is queued to run again.
    """
    asked: list[Trial] = []
    beating: dict[int, contextlib.ExitStack] = {}

    def attempts() -> Iterator[Attempt[Values]]:
        for trial in trials:
            asked.append(trial)
            beating[trial.number] = contextlib.ExitStack()
            with quietly():
                beating[trial.number].enter_context(heartbeat(trial))
            yield objective.attempt(trial)

    try:
        for place, outcome in learn_together(attempts(), most):
            trial = asked[place]
            with beating.pop(trial.number):
                error = _tell(study, trial, outcome)
            yield trial.number, error
    finally:  # after Ctrl-C they stay open, and whoever runs the study queues them again
        for stack in beating.values():
            stack.close()


def _tell(study: Study, trial: Trial, outcome: Values | Exception) -> Exception | None:
    if isinstance(outcome, optuna.TrialPruned):
        end_trial(study, trial, state=TrialState.PRUNED)
    elif isinstance(outcome, TrainingInterrupted):
        retire_trial(study, study.trials[trial.number], stopped=True)
    elif isinstance(outcome, UpdateFinishedTrialError):  # another process took it for lost, and it runs again
        pass
    elif isinstance(outcome, Exception):
        end_trial(study, trial, state=TrialState.FAIL, reason=repr(outcome))
        return outcome
    else:
        end_trial(study, trial, outcome)
    return None
