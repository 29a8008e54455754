"""What one sampler has read of one study: paths and verdicts, kept in step with the storage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.samplers.nsga.verdicts import Verdicts, outcome_of
from optuna_kd.samplers.view import TrialsView
from optuna_kd.scales import log_objectives


class PopulationView(TrialsView):
    """A study with any number of objectives.

    Attributes:
        verdicts: What the finished trials are worth.
        failures: How many of them have no values.
        infinite: One of them that has an infinite value.
    """

    _nothing = ((), ())

    def _terms_of(self, study: Study) -> tuple[Sequence[StudyDirection], tuple[bool, ...]]:
        return study.directions, log_objectives(study)

    def _forget(self, terms: tuple[Sequence[StudyDirection], tuple[bool, ...]]) -> None:
        directions, self._logarithmic = terms
        self._signs = tuple(-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions)
        self.verdicts = Verdicts(len(directions))
        self.failures = 0
        self.infinite: int | None = None

    def _judge(self, trial: FrozenTrial) -> None:
        outcome = outcome_of(trial, self._signs, self._logarithmic)
        self.verdicts.add(trial.number, outcome)
        self.failures += outcome.values is None
        if trial.state is TrialState.COMPLETE and any(map(math.isinf, trial.values)):
            self.infinite = trial.number
