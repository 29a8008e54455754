"""How the surrogate guides the trials of one study: plans for those to come, a ranking of those that were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import Choices, Domain
from optuna_kd.samplers.notices import Notices
from optuna_kd.samplers.outline import outline
from optuna_kd.samplers.plans import Plans, pinned, successor, untried
from optuna_kd.samplers.surrogate.belief import Surrogate
from optuna_kd.samplers.surrogate.planner import search
from optuna_kd.samplers.surrogate.slots import Paths
from optuna_kd.samplers.tree import Step, path_of
from optuna_kd.samplers.view import StudyView
from optuna_kd.samplers.visits import open_children

_MANY = 4  # failures, and no success: worth a warning


class Guide:
    """The surrogate of one study and the plans made with it."""

    def __init__(self) -> None:
        self.view = StudyView()
        self._notices, self._plans = Notices(), Plans(self.view)
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
        if (value := self._plans.value(trial, path, name, domain)) is not None:
            return value
        self.read(study, trial, path, name, domain)
        known = len(self.view.log)
        if known == 0 or known + len(self.view.unfinished) < startup:
            return self._least_taken(path, name, domain, rng)
        found, is_new = self._search(study, trial, path, name, domain, rng)
        if not is_new and (value := untried(self.view, path, name, domain, rng)) is not None:
            return value  # the last few recipes of a space are easier counted than met by simulation
        return domain.internal(self._plans.keep(trial, found).positions[name])

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
    ) -> tuple[Paths, bool]:
        """Find a path, in one row; tell also whether it is one that nobody has tried or is trying."""
        view = self.view
        asked = successor(view, trial, path, name, domain)
        running = self._plans.running()
        belief = self._surrogate_of_now().believe(view.log, view.evidence, running)
        tried = np.concatenate([view.log.paths().keys, running.keys])
        decided = pinned(study, trial, view, {name, *(step.name for step in path)})
        found = search(belief, view.structure, path, asked, decided, tried, rng)
        return found, found.keys[0] not in tried

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
        for paths in (view.log.paths(), self._plans.running()):
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


def _range(domain: Domain) -> str:
    if isinstance(domain, Choices):
        return f"{domain.children} choices"
    return f"the range {domain.low:g} to {domain.high:g}"
