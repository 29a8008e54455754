"""What a trial earned for its branch: finished, pruned and failed trials as rewards in [0, 1].

- A completed trial: its value, min-max rescaled over the completed trials so far (`rescale`).
- A pruned trial: by its rank among the trials that reported at its last rung (`rank_rewards`). Its raw
  value is never used: after a fraction of the budget it says nothing beside a finished one.
- A failed trial, and a pruned one that never reported: 0, the worst. They are evidence against their branch.

All rewards are a function of the finished trials alone, in whatever order they arrived, so a sampler in
a fresh process sees what a long-lived one sees.
"""

from __future__ import annotations

import bisect
import math
from array import array

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

_FENCE_AFTER = 8  # completed trials; quartiles of fewer say little
_FENCE_WIDTH = 3.0  # interquartile ranges: Tukey's "far out"


def rescale(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map values (higher is better) to [0, 1]: the best to 1, the worst to 0; 0.5 when all are equal.

    Paper: rewards as they are. Here: min-max rescaled, because C of eq. 2 presupposes rewards in [0, 1];
    and values more than three interquartile ranges below the lower quartile count as worst, because a
    single diverged trial would press all others together at 1.

    Args:
        values: [trials]; +∞ becomes 1, −∞ and NaN become 0, and neither moves the scale.
    """
    rewards = np.where(values == np.inf, 1.0, 0.0)
    finite = np.isfinite(values)
    if not finite.any():
        return rewards
    known = values[finite]
    known = known / (np.abs(known).max() or 1.0)  # so that no difference overflows
    low, high = known.min(), known.max()
    if len(known) >= _FENCE_AFTER:
        lower, upper = np.quantile(known, (0.25, 0.75))
        if upper > lower:
            low = max(low, lower - _FENCE_WIDTH * (upper - lower))
    rewards[finite] = np.clip((known - low) / (high - low), 0.0, 1.0) if high > low else 0.5
    return rewards


def rung_ranks(reported: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values among all that were reported at one rung: the share of the others that each beats.

    Args:
        reported: All values at the rung in ascending order, higher is better, `own` among them; [reports].
        own: Values to rank; [ranked].

    Returns:
        Shares in [0, 1], ties counted half; 0.5 where there is nobody to compare with; [ranked].
    """
    if len(reported) < 2:
        return np.full(len(own), 0.5)
    worse = np.searchsorted(reported, own, side="left")
    not_better = np.searchsorted(reported, own, side="right")
    return (worse + 0.5 * (not_better - worse - 1)) / (len(reported) - 1)


def rank_rewards(ranks: NDArray[np.float64], completed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map ranks at a rung to rewards: the share `rank` of the median reward of the completed trials.

    So the reward rises with the rank, is 0 for a trial that beat nobody, and never exceeds that of the
    typical finished trial: had the pruned trial looked better than that, it would not have been pruned.

    Args:
        ranks: Shares in [0, 1] from `rung_ranks`; [pruned].
        completed: Rescaled rewards of the completed trials; [completed]. Empty: a median of 0.5.
    """
    typical = float(np.median(completed)) if len(completed) else 0.5
    return ranks * typical


class Evidence:
    """The finished trials of a study, added once each, and what they earned.

    Args:
        maximize: Direction of the study.
    """

    def __init__(self, *, maximize: bool) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._completed: dict[int, float] = {}
        self._pruned: dict[int, dict[int, float]] = {}  # by last rung: trial number -> value there
        self._reports: dict[int, array[float]] = {}  # by rung: values in ascending order
        self._last_number = -1
        self._rewards: NDArray[np.float64] | None = None

    def add(self, trial: FrozenTrial) -> None:
        """Take in a finished trial."""
        self._rewards = None
        self._last_number = max(self._last_number, trial.number)
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            self._completed[trial.number] = self._sign * trial.value
        if trial.state is TrialState.FAIL:
            return
        for rung, value in trial.intermediate_values.items():
            if not math.isnan(value):
                bisect.insort(self._reports.setdefault(rung, array("d")), self._sign * value)
        if trial.state is TrialState.PRUNED and trial.last_step is not None:
            last = trial.intermediate_values[trial.last_step]
            if not math.isnan(last):
                self._pruned.setdefault(trial.last_step, {})[trial.number] = self._sign * last

    def rewards(self) -> NDArray[np.float64]:
        """Return the rewards by trial number; 0 where a number has no reward to its name."""
        if self._rewards is None:
            self._rewards = self._compute()
        return self._rewards

    def _compute(self) -> NDArray[np.float64]:
        rewards = np.zeros(self._last_number + 1)
        completed = rescale(np.fromiter(self._completed.values(), float))
        rewards[list(self._completed)] = completed
        for rung, pruned in self._pruned.items():
            ranks = rung_ranks(np.array(self._reports[rung]), np.fromiter(pruned.values(), float))
            rewards[list(pruned)] = rank_rewards(ranks, completed)
        return rewards
