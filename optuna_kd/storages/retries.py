"""Trials that are run again: whose number they go by, and what they take along."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from optuna import create_trial
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

RETRIES = 10  # how often the trial of a killed process is run again
OWNER = "optuna_kd:owner"  # system attribute of a trial: the process that runs it
ORIGINAL, HISTORY = "failed_trial", "retry_history"  # system attributes that Optuna's retries have


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Use parts of Optuna that are marked experimental for years (heartbeat, metric names) without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def original_number(trial: FrozenTrial) -> int:
    """Give the number that a trial goes by: its own, or that of the interrupted trial that it runs again."""
    return int(trial.system_attrs.get(ORIGINAL, trial.number))


def retry_of(trial: FrozenTrial) -> FrozenTrial | None:
    """Create the trial that runs an interrupted one again: its parameters, attributes and intermediate values.

    What it remembers of its history is what Optuna's `RetryHeartbeatStaleTrialCallback` writes. It has no owner yet:
    with that of the interrupted one it would be taken for lost again as soon as `Study.optimize` runs it.

    Returns:
        None for a trial that was interrupted as often as one may be.
    """
    history = [*trial.system_attrs.get(HISTORY, []), trial.number]
    if len(history) > RETRIES:
        return None
    attributes = {name: value for name, value in trial.system_attrs.items() if name != OWNER}
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={ORIGINAL: trial.number, **attributes, HISTORY: history},
        intermediate_values=trial.intermediate_values,
    )


def requeue(study: Study, trial: FrozenTrial) -> None:
    """Queue a trial that was closed as interrupted again, if it may run once more."""
    if (again := retry_of(trial)) is not None:
        study.add_trial(again)
