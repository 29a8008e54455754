"""From a population to the child that is worth a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.nsga.breeding import Breeding, breed, from_space
from optuna_kd.samplers.nsga.screening import Screen
from optuna_kd.samplers.nsga.shrinkage import Tally
from optuna_kd.samplers.surrogate.slots import Paths, Slots

_SPARE = 16  # bred at a time without screening, of which the first that is new is taken
_ROUNDS = 3  # of children before one is chosen: those of the population, and then those of the best children
_BEST = 8  # children that are bred again
_STRANGERS = 0.25  # random draws in the first round, for each child
_LAST = 1e6  # larger than any difference of two scores

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Brood:
    """The children that one trial may become.

    Args:
        slots: The parameters.
        tallies: The shrunken space, by slot.
        breeding: How children are made.
        walk: Turns wishes for every parameter into paths through the space.
        tried: Keys of paths that need no repetition while another one is to be had.
        rng: The source of all draws.
    """

    slots: Slots
    tallies: Mapping[int, Tally]
    breeding: Breeding
    walk: Callable[[Array], Paths]
    tried: NDArray[np.uint64]
    rng: np.random.Generator

    def stranger(self) -> Paths:
        """Draw from the shrunken space; one path."""
        return self._first_new(self.walk(from_space(self.slots, self.tallies, _SPARE, self.rng)))

    def child(self, members: Array) -> Paths:
        """Breed from a population, the best first; one path."""
        return self._first_new(self._bred(members, _SPARE))

    def best_child(self, members: Array, screen: Screen, count: int) -> Paths:
        """Breed from a population, then from the most promising children, and take the most promising of all.

        Args:
            members: The population, the best first; [members, slots].
            screen: Tells what children promise.
            count: Children in each round.
        """
        strangers = from_space(self.slots, self.tallies, int(count * _STRANGERS), self.rng)
        best, scores = Paths.joined([self.walk(strangers[:0])], len(self.slots)), np.empty(0)
        for turn in range(_ROUNDS):
            fresh = self._bred(members, count)
            if turn == 0:
                fresh = Paths.joined([self.walk(strangers), fresh], len(self.slots))
            pool = Paths.joined([best, fresh], len(self.slots))
            # A repetition is the last resort: everything else goes before it.
            scores = np.concatenate([scores, screen.scores(fresh) - _LAST * np.isin(fresh.keys, self.tried)])
            order = np.argsort(-scores, kind="stable")
            _, firsts = np.unique(pool.keys[order], return_index=True)
            kept = order[np.sort(firsts)[:_BEST]]
            best, scores = pool.take(kept), scores[kept]
            members = best.positions
        return best.take(np.array([0]))

    def _bred(self, members: Array, count: int) -> Paths:
        return self.walk(breed(self.slots, members, self.tallies, self.breeding, count, self.rng))

    def _first_new(self, paths: Paths) -> Paths:
        """Take the first path that nobody has tried or is trying; the first of all where there is none."""
        new = np.flatnonzero(~np.isin(paths.keys, self.tried))
        return paths.take(new[:1] if len(new) else np.array([0]))
