"""Studies whose truth is known: options drawn at random, and a value that is a sum of what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import create_trial

from optuna_kd.study.settings import SETTINGS, TASK

OURS = {SETTINGS: {"space": {"name": "auto-kd"}}, TASK: {"reward": "bounded", "classes": 10}}

Ranges = Mapping[str, BaseDistribution | Sequence[Any]]


def searched(
    ranges: Ranges,
    value: Callable[[dict[str, Any]], float],
    *,
    trials: int = 60,
    noise: float = 0.1,
    seed: int = 0,
    direction: str = "maximize",
    **attributes: Any,
) -> Study:
    """Draw trials of a study.

    Args:
        ranges: The parameters: a distribution, or the options.
        value: Of what was drawn; it may take parameters out that do not exist there.
        trials: How many.
        noise: Standard deviation that is added to each value.
        seed: Of all draws.
        direction: Of the study.
        attributes: Of the study.
    """
    rng = np.random.default_rng(seed)
    known = {
        name: each if isinstance(each, BaseDistribution) else CategoricalDistribution(each)
        for name, each in ranges.items()
    }
    study = optuna.create_study(direction=direction)
    for name, attribute in attributes.items():
        study.set_user_attr(name, attribute)
    made = []
    for _ in range(trials):
        params = {name: _draw(each, rng) for name, each in known.items()}
        worth = value(params) + noise * float(rng.normal())
        made.append(create_trial(params=params, distributions={name: known[name] for name in params}, value=worth))
    study.add_trials(made)
    return study


def _draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    low, high, log = distribution.low, distribution.high, distribution.log  # type: ignore[attr-defined]
    if distribution.step is not None:  # type: ignore[attr-defined]
        return low + distribution.step * int(rng.integers(round((high - low) / distribution.step) + 1))  # type: ignore[attr-defined]
    ends = np.log([low, high]) if log else [low, high]
    drawn = float(rng.uniform(*ends))
    return float(np.exp(drawn)) if log else drawn
