"""What one sampler has read of one study: trees, paths and rewards, kept in step with the storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.evidence import Evidence
from optuna_kd.samplers.surrogate.slots import PathLog, Slots
from optuna_kd.samplers.surrogate.structure import Structure
from optuna_kd.samplers.tree import Tree, path_of

# Where Optuna's RetryHeartbeatStaleTrialCallback keeps the trials that it runs again, and the first of them.
_RETRIES, _ORIGINAL = "retry_history", "failed_trial"
_NUMBER = "optuna_kd:number"  # where `optuna_kd.storages` keeps the number that a trial goes by, behind such ones


class DrawNumber:
    """The number from which a trial draws: that which it would have if none had been interrupted and run again.

    Optuna reads the attributes of a running trial from the storage each time; here that is once a trial.
    """

    def __init__(self) -> None:
        self._known: tuple[tuple[int, datetime | None], int] = ((-1, None), -1)

    def __call__(self, trial: FrozenTrial) -> int:
        """Give it."""
        known, key = self._known, (trial.number, trial.datetime_start)
        if known[0] != key:
            known = self._known = key, _number_of(trial.system_attrs, trial.number)
        return known[1]


def _number_of(attributes: Mapping[str, Any], own: int) -> int:
    return int(attributes.get(_NUMBER, attributes.get(_ORIGINAL, own)))


class TrialsView(ABC):
    """A study as its finished trials, which are read once each, and the running ones, which are read anew.

    Attributes:
        finished, running: Trees of their paths.
        log: The paths of the finished trials, in the order in which they came.
        structure: Which parameter follows which.
        distributions: Of each parameter, that of the latest trial.
        unfinished: The running trials, without the current one.
        generation: How often all was read from the start.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._read_for: tuple[int, datetime | None, int, int] | None = None
        self._clear(self._nothing)

    _nothing: Any = ()  # the terms before a study was read

    @abstractmethod
    def _forget(self, terms: Any) -> None:
        """Forget what was judged; what comes now is to be judged by these terms."""

    def _terms_of(self, study: Study) -> Any:
        """Give what the judgement depends on: the directions; when they change, all is read anew."""
        return study.directions

    @abstractmethod
    def _judge(self, trial: FrozenTrial) -> None:
        """Take in what a finished trial is worth."""

    def _clear(self, terms: Any) -> None:
        self.generation += 1
        self.finished, self.running = Tree(), Tree()
        self.log = PathLog(Slots())
        self.structure = Structure(self.log)
        self.distributions: dict[str, BaseDistribution] = {}
        self._described_by: dict[str, int] = {}
        self.unfinished: list[FrozenTrial] = []
        self._terms = terms
        self._forget(terms)
        self._known: dict[int, datetime | None] = {}
        self._running_state: list[tuple[int, datetime | None, int]] = []

    def refresh(self, study: Study, current: FrozenTrial | None = None) -> None:
        """Read what is new; earlier trials are compared with the storage once per trial.

        Args:
            study: The study, or the part of it that Optuna shows the sampler (a Hyperband bracket).
            current: The trial for which a value is being suggested, if any; it is not evidence.
        """
        number, started = (current.number, current.datetime_start) if current else (-1, None)
        trials = study.get_trials(deepcopy=False)
        finished: list[FrozenTrial] = []
        others: list[FrozenTrial] = []
        failed = 0
        for trial in trials:
            state = trial.state
            if state is TrialState.RUNNING:
                if trial.number != number:
                    others.append(trial)
            elif state is not TrialState.WAITING:
                finished.append(trial)
                failed += state is TrialState.FAIL
        ended = len(finished)
        if failed:
            # A trial whose process was killed says nothing about its branch once it is queued to run again.
            retried = {n for trial in trials for n in trial.system_attrs.get(_RETRIES, ())}
            finished = [t for t in finished if t.state is not TrialState.FAIL or t.number not in retried]
        read_for = (number, started, ended, len(finished))
        if current is None or read_for != self._read_for:
            self._read_finished(finished, self._terms_of(study))
            self._read_for = read_for
        # With the start, for a number can come again in another study of the same name.
        running_state = [(trial.number, trial.datetime_start, len(trial.params)) for trial in others]
        if running_state != self._running_state:
            self.running, self.unfinished, self._running_state = Tree(), others, running_state
            for trial in others:
                self.running.add(trial.number, path_of(trial))

    def _read_finished(self, trials: list[FrozenTrial], terms: Any) -> None:
        known = self._known
        new: list[FrozenTrial] = []
        changed = terms != self._terms
        for trial in trials:
            number = trial.number
            if number not in known:
                new.append(trial)
            elif known[number] != trial.datetime_start:
                changed = True
        if changed or len(trials) - len(new) != len(known):
            # Another study under the same name (deleted and made again), or another bracket of Hyperband.
            self._clear(terms)
            new = trials
        for trial in new:
            self._known[trial.number] = trial.datetime_start
            self._judge(trial)
            for name, distribution in trial.distributions.items():
                if trial.number >= self._described_by.get(name, 0):
                    self.distributions[name], self._described_by[name] = distribution, trial.number
            path = path_of(trial)
            ended = trial.state is TrialState.COMPLETE
            self.finished.add(trial.number, path, ended=ended)
            if path:
                columns = self.log.add(trial.number, path)
                self.structure.add(len(self.log) - 1, path, columns, ended=ended)


class StudyView(TrialsView):
    """A study with one objective.

    Attributes:
        evidence: What the finished trials earned.
    """

    def _forget(self, terms: Sequence[StudyDirection]) -> None:
        self.evidence = Evidence(maximize=StudyDirection.MAXIMIZE in terms)

    def _judge(self, trial: FrozenTrial) -> None:
        self.evidence.add(trial)

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards of the finished trials, by trial number."""
        return self.evidence.rewards()
