"""Storages that survive: several workers, killed processes, databases that restart."""

from optuna_kd.storages._compat import frozen_of
from optuna_kd.storages.cache import cached
from optuna_kd.storages.creating import creation_lock
from optuna_kd.storages.opening import PATIENCE, create_storage
from optuna_kd.storages.places import (
    claim_trial,
    count_taken,
    count_trials,
    retire_lost_trials,
    retire_trial,
    together,
    write_study,
    write_trial,
)
from optuna_kd.storages.processes import is_gone, this_process
from optuna_kd.storages.proxy import serve
from optuna_kd.storages.reading import open_to_read
from optuna_kd.storages.retries import OWNER, RETRIES, original_number, quietly
from optuna_kd.storages.urls import (
    DEFAULT_URL,
    LOOPBACK,
    StorageError,
    database_in,
    is_local,
    is_shareable,
    show_storage,
)

__all__ = [
    "DEFAULT_URL",
    "LOOPBACK",
    "OWNER",
    "PATIENCE",
    "RETRIES",
    "StorageError",
    "cached",
    "claim_trial",
    "count_taken",
    "count_trials",
    "create_storage",
    "creation_lock",
    "database_in",
    "frozen_of",
    "is_gone",
    "is_local",
    "is_shareable",
    "open_to_read",
    "original_number",
    "quietly",
    "retire_lost_trials",
    "retire_trial",
    "serve",
    "show_storage",
    "this_process",
    "together",
    "write_study",
    "write_trial",
]
