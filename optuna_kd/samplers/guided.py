"""What the samplers that plan whole trials have in common: a seed, and a guide for each study."""

from __future__ import annotations

import operator
import secrets
import threading
from typing import Any, Generic, TypeVar

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers.view import DrawNumber

_MAX_GUIDES = 4  # studies that one sampler remembers at a time

Guide = TypeVar("Guide")


class GuidedSampler(BaseSampler, Generic[Guide]):
    """A sampler of seeded draws, with a guide for each study; whoever uses one holds the lock.

    Args:
        seed: Seed of all draws. None: a random one, drawn when the sampler is made.
    """

    _new_guide: type[Guide]

    def __init__(self, seed: int | None) -> None:
        self._fixed_seed = None if seed is None else operator.index(seed)
        self._seed = secrets.randbits(63) if self._fixed_seed is None else self._fixed_seed
        self._number = DrawNumber()
        self._guides: dict[str, Guide] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guides": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def reseed_rng(self) -> None:
        """Draw a new seed, unless one was given.

        Optuna calls this so that parallel workers do not repeat each other. With a given seed they do not
        anyhow, for no two trials share a number, and the seed keeps its meaning.
        """
        if self._fixed_seed is None:
            self._seed = secrets.randbits(63)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every parameter is chosen when it is suggested, as the guide goes."""
        return {}

    def _guide_of(self, study: Study) -> Guide:
        name = study.study_name
        guide = self._guides.pop(name, None) or self._new_guide()
        self._guides[name] = guide  # last, so that the first is the longest unused
        if len(self._guides) > _MAX_GUIDES:
            del self._guides[next(iter(self._guides))]
        return guide
