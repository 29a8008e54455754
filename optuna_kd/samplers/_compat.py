"""What the samplers need of Optuna beyond its public interface."""

from __future__ import annotations

from typing import Any

from optuna.samplers import BaseSampler, PartialFixedSampler


def fixed_by(sampler: BaseSampler) -> dict[str, Any]:
    """Give the parameters that a sampler around ours fixes; Optuna does not tell the sampler inside of them."""
    return dict(sampler._fixed_params) if isinstance(sampler, PartialFixedSampler) else {}
