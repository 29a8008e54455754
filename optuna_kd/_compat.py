"""What running trials needs of Optuna beyond its public interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import optuna
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState


def heartbeat(trial: Trial) -> AbstractContextManager[None]:
    """Show that the process of a trial is alive, as `Study.optimize` does; trials that are asked for have none."""
    return cast("AbstractContextManager[None]", get_heartbeat_thread(trial._trial_id, trial.storage))


@contextmanager
def in_loop(study: Study) -> Iterator[Callable[[], bool]]:
    """Let objectives call `study.stop()`; gives a function that says whether one did."""
    before = study._thread_local.in_optimize_loop
    study._thread_local.in_optimize_loop, study._stop_flag = True, False
    try:
        yield lambda: study._stop_flag
    finally:
        study._thread_local.in_optimize_loop = before


def log_finished(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Log how a trial has ended, as `Study.optimize` does."""
    log = optuna.logging.get_logger("optuna.study")
    if trial.state == TrialState.COMPLETE:
        study._log_completed_trial(trial.values, trial.number, trial.params)
    elif trial.state == TrialState.PRUNED:
        log.info(f"Trial {trial.number} pruned. {reason}")
    else:
        log.warning(f"Trial {trial.number} failed with parameters {trial.params}: {reason or 'no usable value'}.")
