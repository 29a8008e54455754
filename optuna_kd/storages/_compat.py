"""What starting and ending trials by ourselves needs of Optuna beyond its public interface."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage as CachedStorage
from optuna.storages._heartbeat import BaseHeartbeat, is_heartbeat_enabled
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from sqlalchemy.orm import Session

scoped: Callable[[Any], AbstractContextManager[Session]] = _create_scoped_session


def frozen_of(trial: Trial) -> FrozenTrial:
    """Give what a running trial itself knows of itself, without reading the storage: what it began with, and wrote."""
    return trial._cached_frozen_trial


def forget_cached_trials(study: Study) -> None:
    """Let a study read its trials anew, as `Study.ask` does; within a trial it reads them once."""
    study._thread_local.cached_all_trials = None


def learn_trials(storage: BaseStorage, study_id: int) -> None:
    """Make Optuna's cache know the trials that were started past it; all of them are not put in order for that."""
    if isinstance(storage, CachedStorage):
        storage._read_trials_from_remote_storage(study_id)


def stale_trial_ids(storage: BaseStorage, study_id: int) -> list[int] | None:
    """List the running trials without heartbeat; None where the storage has none."""
    if not isinstance(storage, BaseHeartbeat) or not is_heartbeat_enabled(storage):
        return None
    return list(storage._get_stale_trial_ids(study_id))


__all__ = [
    "BaseHeartbeat",
    "BaseJournalFileLock",
    "CachedStorage",
    "forget_cached_trials",
    "frozen_of",
    "learn_trials",
    "models",
    "scoped",
    "stale_trial_ids",
]
