"""What one sampler has read of one study: paths and verdicts, kept in step with the storage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.nsga.verdicts import Verdicts, outcome_of
from optuna_kd.samplers.view import TrialsView


class PopulationView(TrialsView):
    """A study with any number of objectives.

    Attributes:
        verdicts: What the finished trials are worth.
        failures: How many of them have no values.
        infinite: One of them that has an infinite value.
    """

    def _forget(self, directions: Sequence[StudyDirection]) -> None:
        self._signs = tuple(-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions)
        self.verdicts = Verdicts(len(directions))
        self.failures = 0
        self.infinite: int | None = None

    def _judge(self, trial: FrozenTrial) -> None:
        outcome = outcome_of(trial, self._signs)
        self.verdicts.add(trial.number, outcome)
        self.failures += outcome.values is None
        if trial.state is TrialState.COMPLETE and any(map(math.isinf, trial.values)):
            self.infinite = trial.number
