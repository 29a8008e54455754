"""What the pruners need of Optuna beyond its public interface."""

from __future__ import annotations

from optuna.trial import Trial


def trial_id(trial: Trial) -> int:
    """Give the key of a trial in its storage; publicly it has only its number, which counts within a study."""
    return trial._trial_id
