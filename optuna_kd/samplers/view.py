"""What one sampler has read of one study: trees, paths and rewards, kept in step with the storage."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.evidence import Evidence
from optuna_kd.samplers.surrogate.slots import PathLog, Slots
from optuna_kd.samplers.surrogate.structure import Structure
from optuna_kd.samplers.tree import Tree, path_of

_RETRIES = "retry_history"  # where Optuna's RetryHeartbeatStaleTrialCallback keeps the trials that it runs again


class StudyView:
    """A study as its finished trials, which are read once each, and the running ones, which are read anew.

    Attributes:
        finished, running: Trees of their paths.
        log: The paths of the finished trials, in the order in which they came.
        structure: Which parameter follows which.
        distributions: Of each parameter, that of the latest trial.
        evidence: What the finished trials earned.
        unfinished: The running trials, without the current one.
        generation: How often all was read from the start.
    """

    def __init__(self) -> None:
        self._direction = StudyDirection.NOT_SET
        self.generation = 0
        self._read_for: tuple[int, datetime | None] | None = None
        self._clear(self._direction)

    def _clear(self, direction: StudyDirection) -> None:
        self.generation += 1
        self.finished, self.running = Tree(), Tree()
        self.log = PathLog(Slots())
        self.structure = Structure(self.log)
        self.distributions: dict[str, BaseDistribution] = {}
        self._described_by: dict[str, int] = {}
        self.unfinished: list[FrozenTrial] = []
        self._direction = direction
        self.evidence = Evidence(maximize=direction is StudyDirection.MAXIMIZE)
        self._known: dict[int, datetime | None] = {}
        self._running_state: list[tuple[int, int]] = []

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards of the finished trials, by trial number."""
        return self.evidence.rewards()

    def refresh(self, study: Study, current: FrozenTrial | None = None) -> None:
        """Read what is new; earlier trials are compared with the storage once per trial.

        Args:
            study: The study, or the part of it that Optuna shows the sampler (a Hyperband bracket).
            current: The trial for which a value is being suggested, if any; it is not evidence.
        """
        identity = (current.number, current.datetime_start) if current else (-1, None)
        finished: list[FrozenTrial] = []
        others: list[FrozenTrial] = []
        failed = 0
        for trial in study.get_trials(deepcopy=False):
            state = trial.state
            if state is TrialState.RUNNING:
                if trial.number != identity[0]:
                    others.append(trial)
            elif state is not TrialState.WAITING:
                finished.append(trial)
                failed += state is TrialState.FAIL
        if failed:
            # A trial whose process was killed says nothing about its branch once it is queued to run again.
            retried = {n for trial in study.get_trials(deepcopy=False) for n in trial.system_attrs.get(_RETRIES, ())}
            finished = [t for t in finished if t.state is not TrialState.FAIL or t.number not in retried]
        if identity != self._read_for or len(finished) != len(self._known):
            self._read_finished(finished, study.direction)
            self._read_for = identity
        running_state = [(trial.number, len(trial.params)) for trial in others]
        if running_state != self._running_state:
            self.running, self.unfinished, self._running_state = Tree(), others, running_state
            for trial in others:
                self.running.add(trial.number, path_of(trial))

    def _read_finished(self, trials: list[FrozenTrial], direction: StudyDirection) -> None:
        known = self._known
        new: list[FrozenTrial] = []
        changed = direction is not self._direction
        for trial in trials:
            number = trial.number
            if number not in known:
                new.append(trial)
            elif known[number] != trial.datetime_start:
                changed = True
        if changed or len(trials) - len(new) != len(known):
            # Another study under the same name (deleted and made again), or another bracket of Hyperband.
            self._clear(direction)
            new = trials
        for trial in new:
            self._known[trial.number] = trial.datetime_start
            self.evidence.add(trial)
            for name, distribution in trial.distributions.items():
                if trial.number >= self._described_by.get(name, 0):
                    self.distributions[name], self._described_by[name] = distribution, trial.number
            path = path_of(trial)
            ended = trial.state is TrialState.COMPLETE
            self.finished.add(trial.number, path, ended=ended)
            if path:
                columns = self.log.add(trial.number, path)
                self.structure.add(len(self.log) - 1, path, columns, ended=ended)
