"""What running trials needs of Optuna beyond its public interface."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast

from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import Trial


def heartbeat(trial: Trial) -> AbstractContextManager[None]:
    """Show that the process of a trial is alive, as `Study.optimize` does; trials that are asked for have none."""
    return cast("AbstractContextManager[None]", get_heartbeat_thread(trial._trial_id, trial.storage))
