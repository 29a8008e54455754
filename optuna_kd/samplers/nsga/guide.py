"""How the population guides the trials of one study: a child for each, planned when its first gene is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import Domain
from optuna_kd.samplers.notices import Notices
from optuna_kd.samplers.nsga.beliefs import Beliefs
from optuna_kd.samplers.nsga.breeding import Breeding
from optuna_kd.samplers.nsga.brood import Brood
from optuna_kd.samplers.nsga.screening import screen_of
from optuna_kd.samplers.nsga.shrinkage import Tally
from optuna_kd.samplers.nsga.view import PopulationView
from optuna_kd.samplers.plans import Plans, pinned, successor, untried
from optuna_kd.samplers.surrogate.slots import Paths, widened
from optuna_kd.samplers.surrogate.structure import Successor
from optuna_kd.samplers.tree import Step, path_of

TOTAL_TRIALS = "optuna_kd_total_trials"  # user attribute of a study
_LEAST = 12  # members of a population
_STARTUP = 10  # judged trials, with screening at most, before there are children
_USUAL = 20  # where nobody tells how many trials there will be
_MANY = 4  # failures, and no success: worth a warning

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study is searched.

    Args:
        population_size: None: a fifth of the trials, at least 12, where the study tells how many there will be, else
            20.
        startup_trials: Judged trials before there are children; None: a population of them, with screening at most
            10.
        children: How many are bred for one to be chosen by the surrogates; 0: none is, the first new one is taken.
        breeding: How children are made.
    """

    population_size: int | None = None
    startup_trials: int | None = None
    children: int = 64
    breeding: Breeding = Breeding()  # noqa: RUF009 - frozen


class Guide:
    """The population of one study and the plans made with it."""

    def __init__(self) -> None:
        self.view = PopulationView()
        self._notices, self._plans = Notices(), Plans(self.view)
        self._beliefs, self._generation = Beliefs(), 0

    def suggest(
        self, study: Study, trial: FrozenTrial, name: str, domain: Domain, rng: np.random.Generator, settings: Settings
    ) -> float:
        """Choose the value of one parameter, as planned for its trial; returns Optuna's internal representation.

        A plan is made for the first parameter, and again where the trial leaves it: because a parameter was
        fixed from outside, or because another one comes next than was learned.
        """
        path = path_of(trial)
        if (value := self._plans.value(trial, path, name, domain)) is not None:
            return value
        self.view.refresh(study, trial)
        self._warn(study)
        asked = successor(self.view, trial, path, name, domain)
        running = self._plans.running()
        tried = np.concatenate([self.view.log.paths().keys, running.keys])
        found = self._child(study, trial, path, asked, running, tried, rng, settings)
        if found.keys[0] in tried and (value := untried(self.view, path, name, domain, rng)) is not None:
            return value  # the last few recipes of a space are easier counted than bred
        return domain.internal(self._plans.keep(trial, found).positions[name])

    def tallies(self) -> dict[int, Tally]:
        """Count visits and failures of every option, by slot."""
        log = self.view.log
        positions, failed = log.paths().positions, np.isin(np.array(log.numbers), self.view.verdicts.failed())
        found = {}
        for column, slot in enumerate(log.slots):
            known = column < positions.shape[1]
            found[column] = Tally.of(slot, positions[:, column] if known else np.full(len(failed), np.nan), failed)
        return found

    def _child(
        self,
        study: Study,
        trial: FrozenTrial,
        path: Sequence[Step],
        asked: Successor,
        running: Paths,
        tried: NDArray[np.uint64],
        rng: np.random.Generator,
        settings: Settings,
    ) -> Paths:
        view, slots = self.view, self.view.log.slots
        decided = pinned(study, trial, view, {slots[asked.slot].name, *(step.name for step in path)})  # type: ignore[index]

        def walked(wishes: Array) -> Paths:
            wishes[:, list(decided)] = list(decided.values())
            return view.structure.walk(wishes, path, asked)

        brood = Brood(slots, self.tallies(), settings.breeding, walked, tried, rng)
        standing = view.verdicts.standing()
        size = population_size(study, settings)
        startup = settings.startup_trials
        if startup is None:
            startup = min(size, _STARTUP) if settings.children else size
        members = self._positions_of(standing[:size])
        if len(standing) < startup or not len(members):
            return brood.stranger()
        if not settings.children:
            return brood.child(members)
        screen = screen_of(self._beliefs_of_now(), view.log, view.verdicts, running, rng)
        return brood.best_child(members, screen, settings.children)

    def _positions_of(self, numbers: NDArray[np.int64]) -> Array:
        """Give the positions of trials, in their order, without those that have no parameters; [trials, slots]."""
        log = self.view.log
        rows = {number: row for row, number in enumerate(log.numbers)}
        found = np.array([rows[number] for number in numbers.tolist() if number in rows], np.intp)
        return widened(log.paths().positions[found], len(log.slots), np.nan)

    def _beliefs_of_now(self) -> Beliefs:
        if self._generation != self.view.generation:
            self._beliefs, self._generation = Beliefs(), self.view.generation
        return self._beliefs

    def _warn(self, study: Study) -> None:
        view = self.view
        if view.failures >= _MANY and view.failures == len(view.verdicts):
            self._notices.give(
                "failures",
                f"None of the {len(view.verdicts)} finished trials of the study {study.study_name!r} has values: all "
                "failed, broke a constraint, or were pruned before they reported any. Until one has, trials are drawn "
                "at random, away from what failed.",
            )
        if view.infinite is not None:
            self._notices.give(
                "infinity",
                f"Trial {view.infinite} of the study {study.study_name!r} has an infinite value. It counts like the "
                "best (or the worst) finite one, and does not stretch the scale of the others.",
            )


def population_size(study: Study, settings: Settings) -> int:
    """Give the number of members of the population."""
    if settings.population_size is not None:
        return settings.population_size
    total = getattr(study, "user_attrs", {}).get(TOTAL_TRIALS)  # a Hyperband bracket shows none
    return max(_LEAST, int(total) // 5) if isinstance(total, int | float) and total > 0 else _USUAL
