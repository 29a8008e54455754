"""Trials that are run again: whose number they go by, and what they take along."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from optuna import create_trial
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

RETRIES = 10  # how often the trial of a killed process is run again; ends that were wished for are not counted
OWNER = "optuna_kd:owner"  # system attribute of a trial: the process that runs it
NUMBER = "optuna_kd:number"  # of a trial that others which were run again came before: the number it goes by
STOPS = "optuna_kd:stops"  # how often a trial was given back by a process that was told to stop
ORIGINAL, HISTORY = "failed_trial", "retry_history"  # system attributes that Optuna's retries have

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Use parts of Optuna that are marked experimental for years (heartbeat, metric names) without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def original_number(trial: FrozenTrial) -> int:
    """Give the number that a trial goes by: what it draws and what it is called depend on that one.

    It counts the trials before it without those that run another one again, so it is what it would have been if nobody
    had been interrupted. A trial that runs another one again goes by that one's.
    """
    return int(trial.system_attrs.get(NUMBER, trial.system_attrs.get(ORIGINAL, trial.number)))


def retry_of(trial: FrozenTrial, *, stopped: bool = False) -> FrozenTrial | None:
    """Create the trial that runs an interrupted one again: its parameters, attributes and intermediate values.

    What it remembers of its history is what Optuna's `RetryHeartbeatStaleTrialCallback` writes. It has no owner yet:
    with that of the interrupted one it would be taken for lost again as soon as `Study.optimize` runs it.

    Args:
        trial: The interrupted one.
        stopped: Whether its process was told to stop, and gave it back.

    Returns:
        None for a trial whose processes were killed as often as may be.
    """
    history = [*trial.system_attrs.get(HISTORY, []), trial.number]
    stops = int(trial.system_attrs.get(STOPS, 0)) + stopped
    if len(history) - stops > RETRIES:
        logger.warning(
            "Trial %d is given up: it was interrupted %d times without being told to stop.",
            trial.number, len(history) - stops,
        )  # fmt: skip
        return None
    attributes = {name: value for name, value in trial.system_attrs.items() if name != OWNER}
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={ORIGINAL: trial.number, **attributes, HISTORY: history, **({STOPS: stops} if stops else {})},
        intermediate_values=trial.intermediate_values,
    )


def requeue(study: Study, trial: FrozenTrial, *, stopped: bool = False) -> None:
    """Queue a trial that was closed as interrupted again, if it may run once more."""
    if (again := retry_of(trial, stopped=stopped)) is not None:
        study.add_trial(again)
