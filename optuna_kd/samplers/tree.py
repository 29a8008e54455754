"""The tree of a study: a node is the beginning of a trial's parameters, in the order of suggestion.

Below a node stand the parameters that trials suggested next there: usually one, several where the
objective asks for different ones, or for the same one with another range. Each is a `Split`.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import Domain, domain_of


class Step(NamedTuple):
    """One parameter of a trial: which split it passed, through which child, and where exactly."""

    name: str
    domain: Domain
    child: int
    coordinate: float


@dataclass(slots=True)
class Split:
    """A choice that was made below a node: its children, and which trial took which.

    The three arrays run in parallel, ascending in trial number: sums over them must not depend on the order
    in which trials finished.
    """

    domain: Domain
    children: dict[int, Node] = field(default_factory=dict)
    exhausted: set[int] = field(default_factory=set)
    trials: array[int] = field(default_factory=lambda: array("q"))
    choices: array[int] = field(default_factory=lambda: array("q"))
    coordinates: array[float] = field(default_factory=lambda: array("d"))

    def add(self, number: int, step: Step) -> Node:
        """Record a trial; returns the child it went to."""
        place = bisect.bisect(self.trials, number)
        self.trials.insert(place, number)
        self.choices.insert(place, step.child)
        self.coordinates.insert(place, step.coordinate)
        return self.children.setdefault(step.child, Node())


@dataclass(slots=True)
class Node:
    """The beginning of at least one trial's parameters.

    Args:
        splits: What was suggested next, by name and domain. Empty: trials ended here.
        exhausted: Whether everything below has been tried, as far as it is known: a leaf, or a node
            whose splits consist of single values that are all exhausted. Intervals never are.
        ended: Whether a trial is known to have asked for no further parameter here.
    """

    splits: dict[tuple[str, Domain], Split] = field(default_factory=dict)
    exhausted: bool = False
    ended: bool = False


class Tree:
    """The paths of a set of trials."""

    def __init__(self) -> None:
        self.root = Node()

    def add(self, number: int, path: list[Step], *, ended: bool = False) -> None:
        """Add a trial to every node on its path. `ended`: it is known to ask for no further parameter."""
        passed: list[tuple[Split, int, Node]] = []
        node = self.root
        for step in path:
            split = node.splits.setdefault((step.name, step.domain), Split(step.domain))
            node = split.add(number, step)
            passed.append((split, step.child, node))
        node.ended = node.ended or ended
        for split, child, node in reversed(passed):
            # Both ways: a leaf becomes an inner node when a trial is seen to go on below it.
            node.exhausted = is_exhausted(node, None)
            if node.exhausted:
                split.exhausted.add(child)
            else:
                split.exhausted.discard(child)

    def node_at(self, path: Sequence[Step]) -> Node | None:
        """Find the node at the end of a path, if any trial has passed it."""
        node: Node | None = self.root
        for step in path:
            split = node.splits.get((step.name, step.domain)) if node else None
            node = split.children.get(step.child) if split else None
        return node

    def split_at(self, path: Sequence[Step], name: str, domain: Domain) -> Split | None:
        """Find the split of a parameter at the end of a path, if any trial has passed it."""
        node = self.node_at(path)
        return node.splits.get((name, domain)) if node else None


def path_of(trial: FrozenTrial) -> list[Step]:
    """Return the parameters that a trial has so far as a path, in the order of suggestion."""
    path = []
    for name, distribution in trial.distributions.items():
        domain = domain_of(distribution)
        coordinate = domain.coordinate(distribution.to_internal_repr(trial.params[name]))
        path.append(Step(name, domain, domain.child_at(coordinate), coordinate))
    return path


def is_exhausted(finished: Node | None, running: Node | None) -> bool:
    """Tell whether all that is known to lie below a node has been tried, or is being tried.

    Args:
        finished: The node in the tree of the finished trials.
        running: The same node in the tree of the unfinished ones.
    """
    if running is None:
        if finished is None:
            return False
        return all(
            split.domain.enumerable and len(split.exhausted) == split.domain.children
            for split in finished.splits.values()
        )
    if finished is not None and finished.exhausted:
        return True
    known = dict.fromkeys([*(finished.splits if finished else ()), *running.splits])
    return all(
        _split_is_exhausted(finished.splits.get(key) if finished else None, running.splits.get(key)) for key in known
    )


def _split_is_exhausted(finished: Split | None, running: Split | None) -> bool:
    domain = (finished or running).domain  # type: ignore[union-attr]  # one of them knows the split
    if not domain.enumerable:
        return False
    if running is None:
        return finished is not None and len(finished.exhausted) == domain.children
    done = finished.exhausted if finished else set()
    if len(done | running.children.keys()) < domain.children:
        return False
    return all(
        is_exhausted(finished.children.get(child) if finished else None, node)
        for child, node in running.children.items()
        if child not in done
    )
