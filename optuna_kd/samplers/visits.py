"""The visits to one choice of the tree, as arrays, and their sums per child."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.selection import ChildStatistics
from optuna_kd.samplers.tree import Split, is_exhausted


@dataclass(frozen=True, slots=True)
class Visits:
    """Trials that made one choice; finished ones first, each group ascending in trial number.

    Args:
        children: The child that each took; [visits].
        coordinates: Where in the domain each went; [visits].
        rewards: What each earned, in [0, 1]; NaN while unfinished; [visits].
    """

    children: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    rewards: NDArray[np.float64]

    @classmethod
    def of(cls, finished: Split | None, running: Split | None, rewards: NDArray[np.float64]) -> Visits:
        """Join the finished and the unfinished visits; `rewards` are those of all trials, by number."""
        earned = rewards[np.array(finished.trials)] if finished else np.empty(0)
        pending = np.full(len(running.trials) if running else 0, np.nan)
        splits = [split for split in (finished, running) if split]
        return cls(
            np.concatenate([np.array(split.choices) for split in splits]),
            np.concatenate([np.array(split.coordinates) for split in splits]),
            np.concatenate([earned, pending]),
        )

    def through(self, child: int) -> Visits:
        """Keep the visits to one child."""
        kept = self.children == child
        return Visits(self.children[kept], self.coordinates[kept], self.rewards[kept])

    def divided(self, at: float) -> Visits:
        """Number the visits anew: 0 below the coordinate `at`, 1 from there on."""
        return Visits((self.coordinates >= at).astype(np.int64), self.coordinates, self.rewards)

    def statistics(self, count: int, open_children: NDArray[np.bool_] | None = None) -> ChildStatistics:
        """Sum up visits and rewards per child.

        Paper: one trial at a time. Here: an unfinished trial counts as a visit that earned the mean of its
        child so far (of all children where that has none): it lowers the exploration term, so that the
        next worker goes elsewhere, and leaves the mean alone (Liu et al. 2020, "Watch the unobserved").

        Args:
            count: Number of children.
            open_children: Children that may be chosen; [count]. None: all.
        """
        pending = np.isnan(self.rewards)
        earned, finished = self.rewards[~pending], self.children[~pending]
        visits = np.bincount(finished, minlength=count).astype(float)
        totals = np.bincount(finished, weights=earned, minlength=count).astype(float)
        if pending.any():
            unfinished = np.bincount(self.children[pending], minlength=count).astype(float)
            overall = earned.mean() if len(earned) else 0.5
            expected = np.where(visits > 0, totals / np.maximum(visits, 1), overall)
            visits, totals = visits + unfinished, totals + unfinished * expected
        return ChildStatistics(visits, totals, np.ones(count, bool) if open_children is None else open_children)


def open_children(finished: Split | None, running: Split | None, count: int) -> NDArray[np.bool_]:
    """Find the children below which something is untried; all of them where nothing is.

    Args:
        finished: The split in the tree of the finished trials.
        running: The same split in the tree of the unfinished ones.
        count: Number of children.
    """
    mask = np.ones(count, bool)
    known = next(split for split in (finished, running) if split)
    if not known.domain.enumerable:
        return mask
    if finished:
        mask[list(finished.exhausted)] = False
    for child, node in running.children.items() if running else ():
        if is_exhausted(finished.children.get(child) if finished else None, node):
            mask[child] = False
    return mask if mask.any() else ~mask
