"""Which child of a tree node a trial enters: the upper confidence bound, and the place for other rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optuna_kd.registry import Registry


@dataclass(frozen=True, slots=True)
class ChildStatistics:
    """What is known about the children of one node when one of them has to be chosen.

    Args:
        visits: Trials that went through each child, unfinished ones included; [children].
        totals: Their summed rewards, each in [0, 1]; [children].
        open: Children that may be chosen; at least one; [children]. The others are exhausted: everything
            below them has been tried, and something elsewhere below this node has not.
    """

    visits: NDArray[np.float64]
    totals: NDArray[np.float64]
    open: NDArray[np.bool_]

    @property
    def parent_visits(self) -> float:
        """How many trials made this choice."""
        return float(self.visits.sum())


class SelectionRule(Protocol):
    """Chooses a child. It must draw from `rng` only, so that a trial can be repeated."""

    def __call__(self, children: ChildStatistics, rng: np.random.Generator) -> int:
        """Return the index of an open child."""
        ...


def ucb(total_reward: ArrayLike, visits: ArrayLike, parent_visits: float, exploration: float) -> NDArray[np.float64]:
    """Compute the upper confidence bound R/N + C·√(2·ln N_b / N) of nodes (Auto-KD, eq. 2).

    Args:
        total_reward: R, the sum of the rewards backed up through each node; any shape.
        visits: N, the visits of each node; same shape. A node without visits gets +∞.
        parent_visits: N_b, the visits of their parent.
        exploration: C, the weight of the second term, >= 0.

    Example:
        >>> float(ucb(3.2, visits=5, parent_visits=20, exploration=0.5))
        1.1873328305111974
    """
    total, count = np.asarray(total_reward, float), np.asarray(visits, float)
    tried = np.maximum(count, 1.0)
    bound = total / tried + exploration * np.sqrt(2.0 * math.log(max(parent_visits, 1.0)) / tried)
    return np.where(count > 0, bound, np.inf)[()]


@dataclass(frozen=True, slots=True)
class UCT:
    """The paper's rule: the open child with the highest `ucb`, ties broken at random.

    Args:
        exploration: C of eq. 2, finite and >= 0.
            Paper: C is not given, rewards are raw. Here: 0.5, because rewards are rescaled to [0, 1].

    Raises:
        ValueError: If `exploration` is negative or not finite.
    """

    exploration: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.exploration) and self.exploration >= 0):
            raise ValueError(f"exploration is a finite number >= 0; got {self.exploration!r}.")

    def __call__(self, children: ChildStatistics, rng: np.random.Generator) -> int:
        """Return the index of the chosen child."""
        bounds = ucb(children.totals, children.visits, children.parent_visits, self.exploration)
        bounds = np.where(children.open, bounds, -np.inf)
        return int(rng.choice(np.flatnonzero(bounds == bounds.max())))


@dataclass(frozen=True, slots=True)
class SurrogateSearch:
    """Selection by a surrogate: each trial follows the best of many walks that were simulated down the tree.

    See `optuna_kd.samplers.surrogate`.

    Args:
        startup_trials: Trials, >= 1, before the surrogate chooses; they take the options that were taken least.

    Raises:
        ValueError: If `startup_trials` is less than 1.
    """

    startup_trials: int = 4

    def __post_init__(self) -> None:
        if self.startup_trials < 1:
            raise ValueError(f"startup_trials must be at least 1; got {self.startup_trials!r}.")


SELECTION_RULES: Registry[Callable[[], SelectionRule | SurrogateSearch]] = Registry("selection rule")
SELECTION_RULES.add("surrogate", SurrogateSearch)
SELECTION_RULES.add("uct", UCT)


def resolve_rule(selection: str | SelectionRule | SurrogateSearch) -> SelectionRule | SurrogateSearch:
    """Turn a registered name, or a rule itself, into a rule.

    Raises:
        UnknownNameError: For a name that is not registered.
        TypeError: For anything that cannot be called as a rule.
    """
    if isinstance(selection, str):
        return SELECTION_RULES[selection]()
    if isinstance(selection, SurrogateSearch):
        return selection
    if isinstance(selection, type) or not callable(selection):
        raise TypeError(
            f"selection is a name ({', '.join(sorted(SELECTION_RULES))}) or a callable rule such as "
            f"UCT(exploration=0.5); got {selection!r}."
        )
    return selection
