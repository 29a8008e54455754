"""Which parameter comes next: learned from the trials, because a define-by-run objective declares nothing.

After each parameter one small decision tree tells, from the values so far, what was suggested next. It is
right about every path that was seen, and guesses for the others; a wrong guess costs a new plan in the middle
of a trial, nothing else.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.domains import Domain
from optuna_kd.samplers.surrogate.slots import PathLog, Paths, extend, keys_of
from optuna_kd.samplers.tree import Step

START = -1
_EXAMPLES = 48  # for each successor of a parameter; the latest
_DOMAINS = 16  # of one parameter after another; with more, the latest stands for all
_DEPTH = 12


class Successor(NamedTuple):
    """What follows: a parameter with its domain, or nothing (`slot` is None) at the end of a path."""

    slot: int | None
    domain: Domain | None


END = Successor(None, None)


@dataclass(slots=True)
class _Test:
    """A question to the values so far; rows that answer yes go on with `yes`."""

    slot: int
    threshold: float  # yes: position <= threshold; with `equal`: position == threshold, NaN for "not there"
    equal: bool
    yes: _Test | int
    no: _Test | int

    def ask(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        return _answers(positions[:, self.slot], self.threshold, self.equal)


Example = tuple[int, int, int]  # trial, its row in the log, depth
Fulfil = Callable[[Domain, NDArray[np.float64]], NDArray[np.float64]]


@dataclass(slots=True)
class _Follow:
    """What was seen to follow one parameter, and the tree that tells it; leaves are numbers of `successors`."""

    examples: dict[Successor, list[Example]] = field(default_factory=dict)
    successors: list[Successor] = field(default_factory=list)
    tree: _Test | int | None = None

    def add(self, example: Example, successor: Successor) -> None:
        kept = self.examples.setdefault(successor, [])
        bisect.insort(kept, example)
        if len(kept) > _EXAMPLES:
            del kept[0]  # the earliest by number, not by arrival: every process keeps the same
        if len(self.examples) == 1:
            self.successors, self.tree = [successor], 0
        else:
            self.tree = None

    def labelled(self) -> list[tuple[Example, int]]:
        """Number the successors anew and give all examples with them, the latest trial last.

        Ranges without end: of more than `_DOMAINS` of one parameter, the latest stands for the older ones.
        """
        self.successors = sorted(self.examples, key=lambda successor: self.examples[successor][-1], reverse=True)
        rows, seen = [], defaultdict[int | None, list[int]](list)
        for label, successor in enumerate(self.successors):
            same = seen[successor.slot]
            same.append(label)
            rows += [(example, label if len(same) <= _DOMAINS else same[0]) for example in self.examples[successor]]
        return sorted(rows)


def _nearest(domain: Domain, wishes: NDArray[np.float64]) -> NDArray[np.float64]:
    return domain.nearest(wishes)


class Structure:
    """The decision trees of all parameters.

    Args:
        log: The paths to learn from.
    """

    def __init__(self, log: PathLog) -> None:
        self.log = log
        self._after: dict[int, _Follow] = {}

    def add(self, row: int, path: Sequence[Step], columns: Sequence[int], *, ended: bool) -> None:
        """Learn from a trial.

        Args:
            row: Of the trial in the log.
            path: Its parameters.
            columns: Their slots.
            ended: Whether the trial is known to have asked for no more.
        """
        number, last = self.log.numbers[row], START
        for depth, (step, column) in enumerate(zip(path, columns, strict=True)):
            self._after.setdefault(last, _Follow()).add((number, row, depth), Successor(column, step.domain))
            last = column
        if ended:
            self._after.setdefault(last, _Follow()).add((number, row, len(path)), END)

    def walk(
        self,
        wishes: NDArray[np.float64],
        fixed: Sequence[Step],
        first: Successor | None = None,
        *,
        fulfil: Fulfil = _nearest,
    ) -> Paths:
        """Follow the structure from the end of a path, and take each value from `wishes` on the way.

        Args:
            wishes: A position for every slot, used where the path comes to it; [paths, slots].
            fixed: The path so far.
            first: What comes next, where that is known.
            fulfil: What a domain makes of wishes; without it they are positions, and the nearest that exist are taken.
        """
        slots = self.log.slots
        positions = np.full((len(wishes), len(slots)), np.nan)
        branch, known, last = np.zeros(1, np.uint64), [], START
        for step in fixed:
            last = slots.columns[step.name]
            positions[:, last] = step.domain.position(step.coordinate)
            if slots[last].is_categorical:
                branch = extend(branch, slots[last], np.array([step.child]))
                known.append(branch[0])
        branches = np.zeros((len(wishes), len(known) + len(slots)), np.uint64)
        branches[:, : len(known)] = known
        branch = np.repeat(branch, len(wishes))
        depths = np.full(len(wishes), len(known))
        waiting: dict[int, list[NDArray[np.intp]]] = {}  # by last parameter: rows

        def enter(group: NDArray[np.intp], successor: Successor) -> None:
            slot, domain = successor
            if slot is None or domain is None:
                return
            fresh = np.isnan(positions[group, slot])  # a loop in what was learned ends here
            if not fresh.all():
                group = group[fresh]
            taken = fulfil(domain, wishes[group, slot])
            positions[group, slot] = taken
            if slots[slot].is_categorical:
                branch[group] = extend(branch[group], slots[slot], taken.astype(np.int64))
                branches[group, depths[group]] = branch[group]
                depths[group] += 1
            waiting.setdefault(slot, []).append(group)

        if first is not None:
            enter(np.arange(len(wishes)), first)
        else:
            waiting[last] = [np.arange(len(wishes))]
        while waiting:
            slot = min(waiting)  # parameters mostly come in the order in which they were first seen
            groups = waiting.pop(slot)
            follow = self._after.get(slot)
            if follow is None:
                continue
            if follow.tree is None:
                follow.tree = self._grow(follow)
            group = groups[0] if len(groups) == 1 else np.concatenate(groups)
            self._descend(follow, follow.tree, group, positions, enter)
        return Paths(positions, branches[:, : int(depths.max(initial=0))], keys_of(slots, positions))

    def _descend(
        self,
        follow: _Follow,
        tree: _Test | int,
        group: NDArray[np.intp],
        positions: NDArray[np.float64],
        enter: Callable[[NDArray[np.intp], Successor], None],
    ) -> None:
        if not len(group):
            return
        if isinstance(tree, int):
            enter(group, follow.successors[tree])
            return
        yes = tree.ask(positions[group])
        self._descend(follow, tree.yes, group[yes], positions, enter)
        self._descend(follow, tree.no, group[~yes], positions, enter)

    def _grow(self, follow: _Follow) -> _Test | int:
        labelled = follow.labelled()
        rows, cuts = np.array([(row, depth) for (_, row, depth), _ in labelled]).T
        table, depths = self.log.before(rows, cuts)
        # The parameter suggested last comes first, and wins a tie.
        order = sorted(
            np.flatnonzero(depths >= 0).tolist(), key=lambda slot: (-depths[slot], self.log.slots[slot].name)
        )
        labels = np.array([label for _, label in labelled])
        return self._split(table, labels, order, len(follow.successors), _DEPTH)

    def _split(
        self, table: NDArray[np.float64], labels: NDArray[np.int64], order: list[int], count: int, depth: int
    ) -> _Test | int:
        latest = int(labels[-1])
        if depth == 0 or (labels == latest).all():
            return latest
        best, test = 1e-9, None
        entropy = _entropy(np.bincount(labels, minlength=count))
        for slot in order:
            column = table[:, slot]
            values = np.unique(column)  # NaN once, at the end
            if len(values) < 2:
                continue
            equal = self.log.slots[slot].is_categorical
            here = values[~np.isnan(values)]
            thresholds = here if equal else (here[1:] + here[:-1]) / 2
            candidates = [(float(t), equal) for t in thresholds[:: max(1, len(thresholds) // 16)]]
            if len(here) < len(values):
                candidates.append((np.nan, True))
            for threshold, same in candidates:
                yes = _answers(column, threshold, same)
                inside, outside = labels[yes], labels[~yes]
                if not len(inside) or not len(outside):
                    continue
                rest = len(inside) * _entropy(np.bincount(inside, minlength=count))
                rest += len(outside) * _entropy(np.bincount(outside, minlength=count))
                if entropy - rest / len(labels) > best + 1e-9:
                    best, test = entropy - rest / len(labels), (slot, threshold, same, yes)
        if test is None:
            return latest
        slot, threshold, same, yes = test
        return _Test(
            slot, threshold, same,
            self._split(table[yes], labels[yes], order, count, depth - 1),
            self._split(table[~yes], labels[~yes], order, count, depth - 1),
        )  # fmt: skip


def _answers(column: NDArray[np.float64], threshold: float, equal: bool) -> NDArray[np.bool_]:
    if not equal:
        return column <= threshold
    return np.isnan(column) if np.isnan(threshold) else column == threshold


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
