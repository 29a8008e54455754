"""How the surrogate guides the trials of one study: plans for those to come, a ranking of those that were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers._compat import fixed_by
from optuna_kd.samplers.domains import Choices, Domain, domain_of
from optuna_kd.samplers.notices import Notices
from optuna_kd.samplers.outline import outline
from optuna_kd.samplers.surrogate.belief import Surrogate
from optuna_kd.samplers.surrogate.planner import search
from optuna_kd.samplers.surrogate.slots import PathLog, Paths
from optuna_kd.samplers.surrogate.structure import Successor
from optuna_kd.samplers.tree import Step, is_exhausted, path_of
from optuna_kd.samplers.view import StudyView
from optuna_kd.samplers.visits import open_children

_MANY = 4  # failures, and no success: worth a warning
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


class Guide:
    """The surrogate of one study and the plans made with it."""

    def __init__(self) -> None:
        self.view = StudyView()
        self._notices = Notices()
        self._plans: dict[int, Plan] = {}
        self._surrogate, self._generation = Surrogate(), 0

    def suggest(
        self, study: Study, trial: FrozenTrial, name: str, domain: Domain, rng: np.random.Generator, startup: int
    ) -> float:
        """Choose the value of one parameter, as planned for its trial; returns Optuna's internal representation.

        A plan is made for the first parameter, and again where the trial leaves it: because a parameter was
        fixed from outside, or because another one comes next than was learned.

        Args:
            study: The study.
            trial: The trial with the parameters that it has so far.
            name: Of the parameter that is asked for.
            domain: Of that parameter.
            rng: The source of all draws.
            startup: Trials before the surrogate is asked.
        """
        path = path_of(trial)
        plan = self._plans.get(trial.number)
        if path and plan is not None and plan.started == trial.datetime_start:
            value = plan.value(path, name, domain)
            if value is not None:
                return value
        self.read(study, trial, path, name, domain)
        known = len(self.view.log)
        if known == 0 or known + len(self.view.unfinished) < startup:
            return self._least_taken(path, name, domain, rng)
        found, is_new = self._search(study, trial, path, name, domain, rng)
        if not is_new and (value := self._untried(path, name, domain, rng)) is not None:
            return value  # the last few recipes of a space are easier counted than met by simulation
        self._plans[trial.number] = found
        if len(self._plans) > _MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        return domain.internal(found.positions[name])

    def read(self, study: Study, trial: FrozenTrial, path: Sequence[Step], name: str, domain: Domain) -> None:
        """Read what is new in the study, and warn of what its user should know."""
        self.view.refresh(study, trial)
        evidence, notices = self.view.evidence, self._notices
        if evidence.failures >= _MANY and evidence.failures == len(evidence):
            notices.give(
                "failures",
                f"All {len(evidence)} finished trials of the study {study.study_name!r} failed. Failed trials count "
                "as the worst there is: until one succeeds, the sampler only keeps away from what they tried.",
            )
        if (number := evidence.infinite) is not None:
            notices.give(
                "infinity",
                f"Trial {number} of the study {study.study_name!r} has an infinite value. It counts like the best "
                "(or the worst) finite one, and does not stretch the scale of the others.",
            )
        node = self.view.finished.node_at(path)
        known = node is not None and (node.ended or node.splits) and all(step.domain.enumerable for step in path)
        if known and (name, domain) not in node.splits:  # type: ignore[union-attr]
            known_splits = node.splits  # type: ignore[union-attr]
            before = " or ".join(sorted(f"{other!r}, with {_range(its)}" for other, its in known_splits)) or "nothing"
            after = f"after {path[-1].name!r}" if path else "first"
            notices.give(
                "space",
                f"The search space of the study {study.study_name!r} seems to have changed: trial {trial.number} asks "
                f"for {name!r} {after}, with {_range(domain)}, where earlier trials asked for {before}. They stay "
                "evidence for what they share with it.",
            )

    def expect(self, study: Study) -> dict[int, float]:
        """Give what the surrogate expects of each completed trial, by number: its reward without the noise.

        Raises:
            ValueError: If no trial is complete.
        """
        self.view.refresh(study)
        view = self.view
        completed = _completed(study, view)
        expected = {number: float(view.rewards[number]) for number in completed}
        if len(view.log):
            belief = self._surrogate_of_now().believe(view.log, view.evidence)
            # Each recipe once: its repeats shall not differ, not even in the last bit.
            _, first, recipe = np.unique(view.log.paths().keys, return_index=True, return_inverse=True)
            means, _ = belief.rewards_of(view.log.paths().take(first))
            told = zip(view.log.numbers, means[recipe].tolist(), strict=True)
            expected |= {number: mean for number, mean in told if number in expected}
        return expected

    def average(self, study: Study) -> dict[int, float]:
        """Give the mean reward over the repeats of each complete trial, by number.

        Raises:
            ValueError: If no trial is complete.
        """
        self.view.refresh(study)
        view = self.view
        keys = dict(zip(view.log.numbers, view.log.paths().keys.tolist(), strict=True))
        repeats: dict[int | None, list[int]] = {}
        for number in _completed(study, view):
            repeats.setdefault(keys.get(number), []).append(number)
        return {number: float(view.rewards[numbers].mean()) for numbers in repeats.values() for number in numbers}

    def tree(self, study: Study) -> dict[str, Any]:
        """Describe the tree; see `MCTSSampler.tree`."""
        self.view.refresh(study)
        view = self.view
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False) if trial.number in view.evidence}
        belief = self._surrogate_of_now().believe(view.log, view.evidence) if len(view.log) else None
        return outline(view, trials, belief)

    def _surrogate_of_now(self) -> Surrogate:
        if self._generation != self.view.generation:
            self._surrogate, self._generation = Surrogate(), self.view.generation
        return self._surrogate

    def _search(
        self, study: Study, trial: FrozenTrial, path: list[Step], name: str, domain: Domain, rng: np.random.Generator
    ) -> tuple[Plan, bool]:
        """Make a plan; tell also whether it is one that nobody has tried or is trying."""
        view, slots = self.view, self.view.log.slots
        for step in path:  # others may have decided a parameter that no finished trial has
            slots.number(step.name, step.domain, trial.number)
        asked = Successor(slots.number(name, domain, trial.number), domain)
        running = self._running()
        belief = self._surrogate_of_now().believe(view.log, view.evidence, running)
        tried = np.concatenate([view.log.paths().keys, running.keys])
        pinned = _pinned(study, trial, view, {name, *(step.name for step in path)})
        found = search(belief, view.structure, path, asked, pinned, tried, rng)
        positions = dict(zip(slots.columns, found.positions[0].tolist(), strict=True))
        plan = Plan(trial.datetime_start, found, {name: p for name, p in positions.items() if not math.isnan(p)})
        return plan, found.keys[0] not in tried

    def _untried(self, path: Sequence[Step], name: str, domain: Domain, rng: np.random.Generator) -> float | None:
        """Draw from the children below which something is untried; None if there is none, or no counting them."""
        finished, running = self.view.finished, self.view.running
        if not domain.enumerable or is_exhausted(finished.node_at(path), running.node_at(path)):
            return None
        splits = finished.split_at(path, name, domain), running.split_at(path, name, domain)
        if splits == (None, None):
            return None
        children = np.flatnonzero(open_children(*splits, domain.children))
        return domain.draw(domain.cell(int(rng.choice(children))), rng)

    def _running(self) -> Paths:
        """Give the paths of unfinished trials: as planned here, else as far as they are known."""
        slots = self.view.log.slots
        unplanned, planned = PathLog(slots), []
        for trial in self.view.unfinished:
            plan = self._plans.get(trial.number)
            if plan is not None and plan.started == trial.datetime_start:
                planned.append(plan.path)
            else:
                unplanned.add(trial.number, path_of(trial))
        return Paths.joined([unplanned.paths(), *planned], len(slots))

    def _least_taken(self, path: Sequence[Step], name: str, domain: Domain, rng: np.random.Generator) -> float:
        """Draw from the children that were entered least: at this node, and of those in whatever branch.

        Children below which nothing is left to try are left out, as long as there are others.
        """
        view = self.view
        counts = np.zeros((2, domain.children))
        splits = view.finished.split_at(path, name, domain), view.running.split_at(path, name, domain)
        if splits != (None, None):
            counts[0, ~open_children(*splits, domain.children)] = np.inf
        for tree in (view.finished, view.running):
            split = tree.split_at(path, name, domain)
            if split is not None:
                counts[0] += np.bincount(split.choices, minlength=domain.children)
        slot = view.log.slots.columns.get(name)
        for paths in (view.log.paths(), self._running()):
            if slot is not None and slot < paths.positions.shape[1]:
                positions = paths.positions[:, slot]
                children = domain.children_at(domain.nearest(positions[~np.isnan(positions)]))
                counts[1] += np.bincount(children, minlength=domain.children)
        least = counts[0] == counts[0].min()
        least &= counts[1] == counts[1][least].min()
        return domain.draw(domain.cell(int(rng.choice(np.flatnonzero(least)))), rng)


def _completed(study: Study, view: StudyView) -> list[int]:
    numbers = view.evidence.completed()
    if not numbers:
        raise ValueError(f"The study {study.study_name!r} has no complete trial yet; run some first.")
    return numbers


def _same(one: float, other: float) -> bool:
    """Compare positions: log(exp(x)) is not always x."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _range(domain: Domain) -> str:
    if isinstance(domain, Choices):
        return f"{domain.children} choices"
    return f"the range {domain.low:g} to {domain.high:g}"


def _pinned(study: Study, trial: FrozenTrial, view: StudyView, taken: set[str]) -> dict[int, float]:
    """Find parameters to come that others decide: the queue, or a PartialFixedSampler; positions by slot."""
    decided = {**fixed_by(study.sampler), **trial.system_attrs.get("fixed_params", {})}
    pinned = {}
    for name, value in decided.items():
        distribution = view.distributions.get(name)
        if name in taken or distribution is None:
            continue
        domain = domain_of(distribution)
        try:
            position = domain.position(domain.coordinate(distribution.to_internal_repr(value)))
        except (
            OverflowError,
            TypeError,
            ValueError,
        ):  # not a value of this parameter; Optuna warns when it is asked for
            continue
        pinned[view.log.slots.columns[name]] = position
    return pinned
