"""Optuna's samplers with a seed for every trial: 25 + 25 trials draw what 50 draw."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.view import DrawNumber
from optuna_kd.seeds import derive_seed


class PerTrialSampler(BaseSampler):
    """A sampler that is made anew for every trial, with a seed derived from the study's seed and the trial's number.

    Optuna's samplers hold one random state each, which begins anew with each object: workers with the same seed draw
    the same trials, and a study that goes on repeats its first. Samplers whose state is in the storage, as that of
    Optuna's is, lose nothing by this.

    Args:
        create: Makes the sampler, from a seed.
        seed: Of the study.
    """

    def __init__(self, create: Callable[[int], BaseSampler], seed: int) -> None:
        self._create, self._seed = create, seed
        self._made = threading.local()  # by thread: threads of one study run different trials
        self._number = DrawNumber()

    def __str__(self) -> str:
        return f"{type(self._create(0)).__name__} (a seed for every trial)"

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if getattr(self._made, "trial", None) != trial._trial_id:
            self._made.trial = trial._trial_id
            self._made.sampler = self._create(derive_seed(self._seed, "sampler", self._number(trial)))
        sampler: BaseSampler = self._made.sampler
        return sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on, as do the other methods."""
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Pass on."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Pass on."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Pass on, to a sampler of this parameter alone: a trial that runs again may have some of its parameters."""
        seed = derive_seed(self._seed, "sampler", self._number(trial), param_name)
        return self._create(seed).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Pass on."""
        self._of(trial).after_trial(study, trial, state, values)
