"""The tree of a study as plain data, for figures and for people."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import Continuous, Domain
from optuna_kd.samplers.surrogate.belief import Belief
from optuna_kd.samplers.tree import Node
from optuna_kd.samplers.view import StudyView


def outline(view: StudyView, trials: dict[int, FrozenTrial], belief: Belief | None) -> dict[str, Any]:
    """Describe every node that a finished trial has visited.

    Args:
        view: The study, as it was read.
        trials: Its finished trials by number.
        belief: The surrogate; None where there is no trial with parameters.

    Returns:
        The root, as `MCTSSampler.tree` describes it.
    """
    means, deviations = np.full(len(view.rewards), np.nan), np.full(len(view.rewards), np.nan)
    if belief is not None:
        means[view.log.numbers], deviations[view.log.numbers] = belief.rewards_of(view.log.paths())

    def describe(path: list[tuple[str, Any]], node: Node, visitors: NDArray[np.int64]) -> dict[str, Any]:
        values = [trials[number].value for number in visitors.tolist()]
        known = [value for value in values if value is not None and math.isfinite(value)]
        children = []
        for (name, domain), split in node.splits.items():
            passed, choices = np.array(split.trials), np.array(split.choices)
            for child in sorted(split.children):
                through = passed[choices == child]
                # That of a trial which took it: the choices may be other ones by now.
                step = (name, label_of(domain, child, trials[int(through[0])].distributions[name]))
                children.append(describe([*path, step], split.children[child], through))
        return {
            "path": [list(step) for step in path],
            "visits": len(visitors),
            "reward": _mean(view.rewards[visitors]),
            "value": sum(value / len(known) for value in known) if known else None,
            "surrogate_mean": _mean(means[visitors]),
            "surrogate_sd": _root_mean_square(deviations[visitors]),
            "children": children,
        }

    return describe([], view.finished.root, np.array(sorted(trials), np.int64))


def label_of(domain: Domain, child: int, distribution: BaseDistribution) -> Any:
    """Name a child: the choice, the value, or the two ends of an interval."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[child]
    low, high = domain.cell(child)
    if not isinstance(domain, Continuous):
        low, high = domain.internal(domain.position(low)), domain.internal(domain.position(high))
    elif domain.log:
        low, high = math.exp(low), math.exp(high)
    if domain.enumerable:
        return distribution.to_external_repr(low)
    return f"{low:.4g} to {high:.4g}"


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _root_mean_square(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.sqrt((known**2).mean())) if len(known) else None
