"""What a trial earned for its branch: finished, pruned and failed trials as rewards in [0, 1].

- A completed trial: its value, min-max rescaled over the completed trials so far (`rescale`).
- A pruned trial: by its rank among the trials that reported at its last rung (`rank_rewards`). Its raw
  value is never used: after a fraction of the budget it says nothing beside a finished one.
- A failed trial, and a pruned one that never reported: 0, the worst. They are evidence against their branch.

All rewards are a function of the finished trials alone, in whatever order they arrived, so a sampler in
a fresh process sees what a long-lived one sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

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
    low, high = fence(known), known.max()
    rewards[finite] = np.clip((known - low) / (high - low), 0.0, 1.0) if high > low else 0.5
    return rewards


def fence(known: NDArray[np.float64]) -> float:
    """Give the value from which down all are equally bad: see `rescale`.

    Args:
        known: Finite values, at least one, higher is better; [trials].
    """
    low = float(known.min())
    if len(known) >= _FENCE_AFTER:
        lower, upper = np.quantile(known, (0.25, 0.75))
        if upper > lower:
            low = max(low, float(lower - _FENCE_WIDTH * (upper - lower)))
    return low


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one finished trial reported, higher is better.

    Args:
        value: Of a completed trial, else None.
        reports: Intermediate values by rung, without NaN; none of a failed trial.
        pruned_at: The last rung of a pruned trial, if it reported a number there.
    """

    value: float | None
    reports: tuple[tuple[int, float], ...]
    pruned_at: int | None


class Evidence:
    """The finished trials of a study, added once each, and what they earned.

    Args:
        maximize: Direction of the study.
    """

    def __init__(self, *, maximize: bool) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._outcomes: dict[int, Outcome] = {}
        self._completed: dict[int, float] = {}
        self._pruned: dict[int, int] = {}  # trial number -> its last rung
        self._rewards: NDArray[np.float64] | None = None
        self.failures = 0
        self.infinite: int | None = None  # a trial with an infinite value

    def __len__(self) -> int:
        return len(self._outcomes)

    def __contains__(self, number: int) -> bool:
        return number in self._outcomes

    def add(self, trial: FrozenTrial) -> None:
        """Take in a finished trial."""
        self._rewards = None
        value = self._sign * trial.value if trial.state is TrialState.COMPLETE and trial.value is not None else None
        if value is not None and math.isinf(value):
            self.infinite = trial.number
        self.failures += trial.state is TrialState.FAIL
        reports: tuple[tuple[int, float], ...] = ()
        pruned_at = None
        if trial.state is not TrialState.FAIL:
            values = trial.intermediate_values
            reports = tuple((rung, self._sign * value) for rung, value in values.items() if not math.isnan(value))
            if trial.state is TrialState.PRUNED and trial.last_step is not None:
                pruned_at = None if math.isnan(values[trial.last_step]) else trial.last_step
        self._insert(trial.number, Outcome(value, reports, pruned_at))

    def _insert(self, number: int, outcome: Outcome) -> None:
        self._outcomes[number] = outcome
        if outcome.value is not None:
            self._completed[number] = outcome.value
        if outcome.pruned_at is not None:
            self._pruned[number] = outcome.pruned_at

    def of(self, numbers: Iterable[int]) -> Evidence:
        """Give the evidence of some of the trials alone."""
        part = Evidence(maximize=self._sign > 0)
        for number in numbers:
            part._insert(number, self._outcomes[number])
        return part

    def completed(self) -> list[int]:
        """Give the numbers of the completed trials, ascending."""
        return sorted(self._completed)

    def rewards(self) -> NDArray[np.float64]:
        """Return the rewards by trial number; 0 where a number has no reward to its name."""
        if self._rewards is None:
            self._rewards = self._compute()
        return self._rewards

    def _compute(self) -> NDArray[np.float64]:
        rewards = np.zeros(max(self._outcomes, default=-1) + 1)
        completed = rescale(np.fromiter(self._completed.values(), float))
        rewards[list(self._completed)] = completed
        if not self._pruned:
            return rewards
        reported: dict[int, list[float]] = {rung: [] for rung in self._pruned.values()}
        for outcome in self._outcomes.values():
            for rung, value in outcome.reports:
                if rung in reported:
                    reported[rung].append(value)
        for rung, values in reported.items():
            numbers = [number for number, last in self._pruned.items() if last == rung]
            own = np.array([dict(self._outcomes[number].reports)[rung] for number in numbers])
            rewards[numbers] = rank_rewards(rung_ranks(np.sort(values), own), completed)
        return rewards
