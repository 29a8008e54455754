"""Plans for the trials of one study: the path that each is to take, and what a plan has to keep clear of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers._compat import fixed_by
from optuna_kd.samplers.domains import Domain, domain_of
from optuna_kd.samplers.surrogate.slots import PathLog, Paths, Slots
from optuna_kd.samplers.surrogate.structure import Successor
from optuna_kd.samplers.tree import Step, is_exhausted, path_of
from optuna_kd.samplers.view import TrialsView
from optuna_kd.samplers.visits import open_children

_MAX_PLANS = 64  # of trials that run at the same time in one process


@dataclass(frozen=True, slots=True)
class Plan:
    """The path that a trial is to take.

    Args:
        started: When the trial did, for a number can come again in another study of the same name.
        path: In one row.
        positions: Of its parameters, by name.
    """

    started: datetime | None
    path: Paths
    positions: Mapping[str, float]

    def value(self, path: Sequence[Step], name: str, domain: Domain) -> float | None:
        """Give the internal value of the next parameter; None if the trial has left the plan."""
        position = self.positions.get(name)
        if position is None or not _same(float(domain.nearest(np.array([position]))[0]), position):
            return None
        for step in path:
            planned = self.positions.get(step.name)
            if planned is None or not _same(planned, step.domain.position(step.coordinate)):
                return None
        return domain.internal(position)

    def path_in(self, slots: Slots) -> Paths:
        """Give the path in the columns of now: they are numbered anew when a study is read from the start."""
        positions = [[self.positions.get(slot.name, math.nan) for slot in slots]]
        return Paths(np.array(positions), self.path.branches, self.path.keys)


class Plans:
    """The plans made for the trials of one study, the latest ones.

    Args:
        view: The study.
    """

    def __init__(self, view: TrialsView) -> None:
        self._view = view
        self._plans: dict[int, Plan] = {}

    def of(self, trial: FrozenTrial) -> Plan | None:
        """Give the plan of a trial, if there is one."""
        plan = self._plans.get(trial.number)
        return plan if plan is not None and plan.started == trial.datetime_start else None

    def value(self, trial: FrozenTrial, path: Sequence[Step], name: str, domain: Domain) -> float | None:
        """Give the internal value of the next parameter as planned; None at the first, or off the plan."""
        plan = self.of(trial) if path else None
        return plan.value(path, name, domain) if plan else None

    def keep(self, trial: FrozenTrial, path: Paths) -> Plan:
        """Plan a path, in one row, for a trial."""
        positions = dict(zip(self._view.log.slots.columns, path.positions[0].tolist(), strict=True))
        plan = Plan(trial.datetime_start, path, {name: p for name, p in positions.items() if not math.isnan(p)})
        self._plans[trial.number] = plan
        if len(self._plans) > _MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    def running(self) -> Paths:
        """Give the paths of unfinished trials: as planned here, else as far as they are known."""
        slots = self._view.log.slots
        unplanned, planned = PathLog(slots), []
        for trial in self._view.unfinished:
            if plan := self.of(trial):
                planned.append(plan.path_in(slots))
            else:
                unplanned.add(trial.number, path_of(trial))
        return Paths.joined([unplanned.paths(), *planned], len(slots))


def successor(view: TrialsView, trial: FrozenTrial, path: Sequence[Step], name: str, domain: Domain) -> Successor:
    """Give the parameter that is asked for, as it stands in the log; those before it stand there, too."""
    slots = view.log.slots
    for step in path:  # others may have decided a parameter that no finished trial has
        slots.number(step.name, step.domain, trial.number)
    return Successor(slots.number(name, domain, trial.number), domain)


def pinned(study: Study, trial: FrozenTrial, view: TrialsView, taken: set[str]) -> dict[int, float]:
    """Find parameters to come that others decide: the queue, or a PartialFixedSampler; positions by slot."""
    decided = {**fixed_by(study.sampler), **trial.system_attrs.get("fixed_params", {})}
    found = {}
    for name, value in decided.items():
        distribution = view.distributions.get(name)
        if name in taken or distribution is None:
            continue
        domain = domain_of(distribution)
        try:
            position = domain.position(domain.coordinate(distribution.to_internal_repr(value)))
        except (OverflowError, TypeError, ValueError):  # not a value of it; Optuna warns when it is asked for
            continue
        found[view.log.slots.columns[name]] = position
    return found


def untried(
    view: TrialsView, path: Sequence[Step], name: str, domain: Domain, rng: np.random.Generator
) -> float | None:
    """Draw from the children below which something is untried; None if there is none, or no counting them."""
    finished, running = view.finished, view.running
    if not domain.enumerable or is_exhausted(finished.node_at(path), running.node_at(path)):
        return None
    splits = finished.split_at(path, name, domain), running.split_at(path, name, domain)
    if splits == (None, None):
        return None
    children = np.flatnonzero(open_children(*splits, domain.children))
    return domain.draw(domain.cell(int(rng.choice(children))), rng)


def _same(one: float, other: float) -> bool:
    """Compare positions: log(exp(x)) is not always x."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
