"""Trials as rows of numbers: one column for each parameter name that a study has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.domains import Choices, Domain
from optuna_kd.samplers.tree import Step

_BITS = 2**64 - 1
_ODD, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # the constants of splitmix64


@dataclass(slots=True)
class Slot:
    """A parameter by name, whatever its range: Optuna keeps its kind, and the choices, fixed within a study.

    Args:
        name: Of the parameter.
        code: A number made from the name, the same in every process.
        domain: Its latest domain, that of trial `seen`.
        seen: The latest trial that had it.
        low: The lowest position seen in any domain.
        high: The highest.
    """

    name: str
    code: int
    domain: Domain
    seen: int
    low: float
    high: float

    @property
    def is_categorical(self) -> bool:
        """Whether positions are numbers of choices, which have no order."""
        return isinstance(self.domain, Choices)

    def scaled(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map positions to [0, 1] over all domains seen; a value enqueued from outside of them to the nearest end."""
        # In halves, because the width of the widest ranges overflows.
        width = self.high / 2 - self.low / 2
        return np.clip((positions / 2 - self.low / 2) / width, 0, 1) if width > 0 else positions * 0.0


class Slots(list[Slot]):
    """All parameters seen, in the order in which they first came.

    That order depends on which trial finished first. Whatever must not (draws, sums) goes by `canonical`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns: dict[str, int] = {}

    @property
    def canonical(self) -> list[int]:
        """Columns in an order that every process agrees on: by name."""
        return [self.columns[name] for name in sorted(self.columns)]

    def number(self, name: str, domain: Domain, trial: int) -> int:
        """Find the column of a parameter of a trial, and widen its range; a new one gets the next."""
        column = self.columns.get(name)
        if column is not None and self[column].domain == domain:
            self[column].seen = max(self[column].seen, trial)
            return column
        low, high = domain.bounds()
        if column is None:
            self.columns[name] = len(self)
            code = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
            self.append(Slot(name, code, domain, trial, low, high))
        slot = self[self.columns[name]]
        slot.low, slot.high = min(slot.low, low), max(slot.high, high)
        if trial >= slot.seen:
            slot.domain, slot.seen = domain, trial
        return self.columns[name]


@dataclass(slots=True)
class Paths:
    """Paths through the space, one in each row.

    Args:
        positions: Where in its domain each parameter is, NaN where the path has no such parameter; [paths, slots].
        branches: A number for the choices made so far, one for each categorical parameter on the way, 0 beyond
            the last; [paths, depths].
        keys: A number for all parameters with their exact values, in whatever order they came; [paths].
    """

    positions: NDArray[np.float64]
    branches: NDArray[np.uint64]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: NDArray[np.intp]) -> Paths:
        """Keep some rows."""
        return Paths(self.positions[rows], self.branches[rows], self.keys[rows])

    @classmethod
    def joined(cls, parts: Sequence[Paths], slots: int) -> Paths:
        """Put the rows of several together, over `slots` parameters."""
        depth = max(part.branches.shape[1] for part in parts)
        return cls(
            np.concatenate([widened(part.positions, slots, np.nan) for part in parts]),
            np.concatenate([widened(part.branches, depth, np.uint64(0)) for part in parts]),
            np.concatenate([part.keys for part in parts]),
        )


class PathLog:
    """The paths of trials, one row each, in arrays that grow.

    Args:
        slots: The parameters, which may be shared with another log.
    """

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.numbers: list[int] = []
        self._positions = np.full((16, 0), np.nan)
        self._depths = np.full((16, 0), -1, np.int16)
        self._branches = np.zeros((16, 0), np.uint64)
        self._keys = np.zeros(16, np.uint64)
        self._hashed = 0  # rows that have their key

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int, path: Sequence[Step]) -> list[int]:
        """Append a trial; returns the slots of its steps."""
        row = len(self.numbers)
        self.numbers.append(number)
        columns = [self.slots.number(step.name, step.domain, number) for step in path]
        branch, branches = 0, []
        for column, step in zip(columns, path, strict=True):
            slot = self.slots[column]
            if slot.is_categorical:
                branch = _mixed((branch ^ slot.code) + step.child * _ODD)
                branches.append(branch)
        if row == len(self._keys):
            self._positions = np.concatenate([self._positions, np.full_like(self._positions, np.nan)])
            self._depths = np.concatenate([self._depths, np.full_like(self._depths, -1)])
            self._branches = np.concatenate([self._branches, np.zeros_like(self._branches)])
            self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
        self._positions = widened(self._positions, len(self.slots), np.nan)
        self._depths = widened(self._depths, len(self.slots), -1)
        self._branches = widened(self._branches, len(branches), np.uint64(0))
        self._positions[row, columns] = [step.domain.position(step.coordinate) for step in path]
        self._depths[row, columns] = range(len(path))
        self._branches[row, : len(branches)] = branches
        return columns

    def paths(self) -> Paths:
        """Give all rows, without copying them."""
        rows = len(self.numbers)
        self._keys[self._hashed : rows] = keys_of(self.slots, self._positions[self._hashed : rows])
        self._hashed = rows
        return Paths(self._positions[:rows], self._branches[:rows], self._keys[:rows])

    def before(
        self, rows: NDArray[np.intp], depths: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cut paths off.

        Args:
            rows: Which paths; [rows].
            depths: How many parameters each keeps; [rows].

        Returns:
            The positions, NaN for what was cut off, [rows, slots]; and how deep each parameter comes on average in
            the rest, -1 for those that are in none, [slots].
        """
        own = self._depths[rows]
        kept = (own >= 0) & (own < depths[:, None])
        counts = kept.sum(axis=0)
        means = np.where(counts > 0, np.where(kept, own, 0).sum(axis=0) / np.maximum(counts, 1), -1.0)
        return np.where(kept, self._positions[rows], np.nan), means


def keys_of(slots: Slots, positions: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Number recipes: equal for equal values of the same parameters, else different but for chances of 2⁻⁶⁴.

    Args:
        slots: The parameters; there may be more than columns.
        positions: NaN for a parameter that is not there; [paths, slots].
    """
    codes = np.array([slot.code for slot in slots[: positions.shape[1]]], np.uint64)
    bits = (positions + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    mixed = _mixed_all((bits ^ codes) * np.uint64(_ODD) + codes)
    return np.where(np.isnan(positions), np.uint64(0), mixed).sum(axis=1, dtype=np.uint64)


def extend(branches: NDArray[np.uint64], slot: Slot, choices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Number branches that go on with a choice.

    Args:
        branches: The number so far, 0 at the root; [paths].
        slot: The next categorical parameter.
        choices: What each path takes; [paths].
    """
    return _mixed_all((branches ^ np.uint64(slot.code)) + choices.astype(np.uint64) * np.uint64(_ODD))


def _mixed(number: int) -> int:
    """Mix the bits of a number as splitmix64 does."""
    number &= _BITS
    number = ((number ^ (number >> 30)) * _FIRST) & _BITS
    number = ((number ^ (number >> 27)) * _SECOND) & _BITS
    return number ^ (number >> 31)


def _mixed_all(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(_FIRST)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(_SECOND)
    return numbers ^ (numbers >> np.uint64(31))


def widened(array: NDArray, columns: int, fill: object) -> NDArray:
    """Add columns of `fill` on the right, up to a number of columns; [rows, columns]."""
    if array.shape[1] >= columns:
        return array
    return np.concatenate([array, np.full((len(array), columns - array.shape[1]), fill, array.dtype)], axis=1)
