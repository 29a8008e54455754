"""Loading a study as it was made."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.storages import DEFAULT_URL, cached, create_storage
from optuna_kd.study.methods import METHODS, create_sampler
from optuna_kd.study.settings import settings_of


def load_study(
    study_name: str,
    *,
    storage: str | BaseStorage = DEFAULT_URL,
    sampler: str | BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> Study:
    """Load a study made by `create_study`, with the same parts.

    Raises:
        StudyMismatchError: If optuna_kd did not make it.
        StorageError: If the storage cannot be opened.
        KeyError: If there is no study of this name.
    """
    study = optuna.load_study(study_name=study_name, storage=cached(create_storage(storage)))
    settings = settings_of(study)
    preset = METHODS[settings["method"]]
    study.pruner = pruner or preset.pruner()
    if not isinstance(sampler, BaseSampler):
        sampler = create_sampler(sampler or preset.sampler, settings["seed"])
    study.sampler = sampler
    return study
