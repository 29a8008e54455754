"""Warnings of the samplers, each given once for a study."""

from __future__ import annotations

import warnings


class SamplerWarning(UserWarning):
    """Something about the trials of a study that a sampler can cope with, but that its user should know."""


class Notices:
    """What one sampler has warned of in one study."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, topic: str, message: str) -> None:
        """Warn of a topic, the first time only."""
        if topic in self._given:
            return
        self._given.add(topic)
        silence = 'Silence: warnings.filterwarnings("ignore", category=optuna_kd.samplers.SamplerWarning).'
        warnings.warn(f"{message} {silence}", SamplerWarning, stacklevel=2)
