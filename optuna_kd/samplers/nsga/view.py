"""What one sampler has read of one study: paths and verdicts, kept in step with the storage."""

from __future__ import annotations

import math
from datetime import datetime

from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.nsga.verdicts import Verdicts, outcome_of
from optuna_kd.samplers.surrogate.slots import PathLog, Slots
from optuna_kd.samplers.surrogate.structure import Structure
from optuna_kd.samplers.tree import Tree, path_of

_RETRIES = "retry_history"  # where Optuna's RetryHeartbeatStaleTrialCallback keeps the trials that it runs again


class PopulationView:
    """A study as its finished trials, which are read once each, and the running ones, which are read anew.

    Attributes:
        finished, running: Trees of their paths.
        log: The paths of the finished trials, in the order in which they came.
        structure: Which parameter follows which.
        distributions: Of each parameter, that of the latest trial.
        verdicts: What the finished trials are worth.
        unfinished: The running trials, without the current one.
        generation: How often all was read from the start.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._clear(())

    def _clear(self, signs: tuple[float, ...]) -> None:
        self.generation += 1
        self.signs = signs
        self.finished, self.running = Tree(), Tree()
        self.log = PathLog(Slots())
        self.structure = Structure(self.log)
        self.distributions: dict[str, BaseDistribution] = {}
        self._described_by: dict[str, int] = {}
        self.unfinished: list[FrozenTrial] = []
        self.verdicts = Verdicts(len(signs))
        self.failures = 0
        self.infinite: int | None = None
        self._known: dict[int, datetime | None] = {}

    def refresh(self, study: Study, current: FrozenTrial | None = None) -> None:
        """Read what is new.

        Args:
            study: The study.
            current: The trial for which a value is being suggested, if any; it is not evidence.
        """
        signs = tuple(-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in study.directions)
        finished: list[FrozenTrial] = []
        unfinished: list[FrozenTrial] = []
        retried: set[int] = set()
        for trial in study.get_trials(deepcopy=False):
            retried.update(trial.system_attrs.get(_RETRIES, ()))
            if trial.state is TrialState.RUNNING:
                if current is None or trial.number != current.number:
                    unfinished.append(trial)
            elif trial.state is not TrialState.WAITING and (current is None or trial.number != current.number):
                finished.append(trial)
        # A trial whose process was killed says nothing about its branch once it is queued to run again.
        finished = [trial for trial in finished if trial.state is not TrialState.FAIL or trial.number not in retried]
        self._read_finished(finished, signs)
        self.running, self.unfinished = Tree(), unfinished
        for trial in unfinished:
            self.running.add(trial.number, path_of(trial))

    def _read_finished(self, trials: list[FrozenTrial], signs: tuple[float, ...]) -> None:
        known = self._known
        new = [trial for trial in trials if trial.number not in known]
        changed = any(known.get(trial.number, trial.datetime_start) != trial.datetime_start for trial in trials)
        if signs != self.signs or changed or len(trials) - len(new) != len(known):
            # Another study under the same name (deleted and made again), or another bracket of Hyperband.
            self._clear(signs)
            new = trials
        for trial in new:
            self._known[trial.number] = trial.datetime_start
            outcome = outcome_of(trial, signs)
            self.verdicts.add(trial.number, outcome)
            self.failures += outcome.values is None
            if trial.state is TrialState.COMPLETE and any(map(math.isinf, trial.values)):
                self.infinite = trial.number
            for name, distribution in trial.distributions.items():
                if trial.number >= self._described_by.get(name, 0):
                    self.distributions[name], self._described_by[name] = distribution, trial.number
            path = path_of(trial)
            ended = trial.state is TrialState.COMPLETE
            self.finished.add(trial.number, path, ended=ended)
            if path:
                columns = self.log.add(trial.number, path)
                self.structure.add(len(self.log) - 1, path, columns, ended=ended)
