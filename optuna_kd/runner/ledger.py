"""Companion studies: runs beside the search (controls, confirmation, full trainings), one trial each, kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import create_trial

from optuna_kd.storages import quietly

KEY = "key"
SEED_SPACE: dict[str, BaseDistribution] = {"seed": IntDistribution(0, 2**31 - 1)}


class Ledger:
    """Results by key in a study of their own, e.g. `<name>/controls`.

    They are never trials of the searched study: trials without its parameters would empty the space that
    relative samplers and importance work on. A result is written when it is complete, in one step, so a
    killed process leaves no half ones, and a second run of the same command reads what is there.

    Args:
        storage: The storage of the searched study; None for memory.
        name: Of the companion study.
        metric: What the value of its trials is, shown by the dashboard.
    """

    def __init__(self, storage: BaseStorage | None, name: str, *, metric: str) -> None:
        self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        if self.study.metric_names != [metric]:
            with quietly():
                self.study.set_metric_names([metric])
        self._known: dict[str, dict[str, Any]] = {}
        self._read = 0

    def get(self, key: str) -> dict[str, Any] | None:
        """Give what was put under `key`, or None."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials[self._read :]:
            if KEY in trial.user_attrs:
                self._known.setdefault(trial.user_attrs[KEY], dict(trial.user_attrs))
        self._read = len(trials)
        return self._known.get(key)

    def put(
        self,
        key: str,
        value: float,
        attributes: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        distributions: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        """Keep one result.

        Args:
            key: Its name; the first result of a name stays.
            value: Of the trial, in the metric of the companion study.
            attributes: Its user attributes.
            params: Its parameters. The dashboard's importance page fails for a study without any.
            distributions: Of these parameters; the same for all trials of the study.
        """
        self.study.add_trial(
            create_trial(
                value=value,
                params=dict(params or {}),
                distributions=dict(distributions or {}),
                user_attrs={**attributes, KEY: key},
            )
        )
