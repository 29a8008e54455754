"""What one sampler has read of one study: two trees and the rewards, kept in step with the storage."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.evidence import Evidence
from optuna_kd.samplers.tree import Tree, path_of

_RETRIES = "retry_history"  # where Optuna's RetryHeartbeatStaleTrialCallback keeps the trials that it runs again


class StudyView:
    """A study as trees: `finished` grows by the new trials only, `running` is read anew."""

    def __init__(self) -> None:
        self._direction = StudyDirection.NOT_SET
        self._read_for: tuple[int, datetime | None] | None = None
        self._clear(self._direction)

    def _clear(self, direction: StudyDirection) -> None:
        self.finished, self.running = Tree(), Tree()
        self._direction = direction
        self._evidence = Evidence(maximize=direction is StudyDirection.MAXIMIZE)
        self._known: dict[int, datetime | None] = {}
        self._running_state: list[tuple[int, int]] = []

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards of the finished trials, by trial number."""
        return self._evidence.rewards()

    def refresh(self, study: Study, current: FrozenTrial) -> None:
        """Read what is new; earlier trials are compared with the storage once per trial.

        Args:
            study: The study, or the part of it that Optuna shows the sampler (a Hyperband bracket).
            current: The trial for which a value is being suggested; it is not evidence.
        """
        stored = study.get_trials(deepcopy=False)
        # A trial whose process was killed says nothing about its branch once it is queued to run again.
        interrupted = {n for trial in stored if trial.system_attrs for n in trial.system_attrs.get(_RETRIES, ())}
        trials = [
            trial
            for trial in stored
            if trial.state is not TrialState.WAITING
            and not (trial.state is TrialState.FAIL and trial.number in interrupted)
        ]
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        identity = current.number, current.datetime_start
        if identity != self._read_for or len(trials) - len(running) != len(self._known):
            self._read_finished([trial for trial in trials if trial.state.is_finished()], study.direction)
            self._read_for = identity
        others = [trial for trial in running if trial.number != current.number]
        state = [(trial.number, len(trial.params)) for trial in others]
        if state != self._running_state:
            self.running, self._running_state = Tree(), state
            for trial in others:
                self.running.add(trial.number, path_of(trial))

    def _read_finished(self, trials: list[FrozenTrial], direction: StudyDirection) -> None:
        known = self._known
        new = [trial for trial in trials if trial.number not in known]
        gone = len(trials) - len(new) != len(known)
        changed = any(trial.datetime_start != known.get(trial.number, trial.datetime_start) for trial in trials)
        if gone or changed or direction is not self._direction:
            # Another study under the same name (deleted and made again), or another bracket of Hyperband.
            self._clear(direction)
            new = trials
        for trial in new:
            self._known[trial.number] = trial.datetime_start
            self._evidence.add(trial)
            self.finished.add(trial.number, path_of(trial))
