"""Options with which trials hardly ever end well: rejected, failed, stopped or diverged, far more than with others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from scipy.stats import fisher_exact

from optuna_kd.analysis.statistics import ALPHA, holm
from optuna_kd.analysis.table import TrialTable
from optuna_kd.pruners.rejection import REJECT_REASON

_FEWEST = 5  # trials of an option; fewer may all have had bad luck
_NEARLY_ALL = 0.9
_COMPLETE, _REJECTED, _FAILED, _STOPPED, _DIVERGED = "complete", "rejected", "failed", "stopped", "diverged"


@dataclass(frozen=True, eq=False)
class Ending:
    """How the trials of one option ended.

    Args:
        parameter, value: The option.
        visits: Its finished trials.
        rejected, failed, stopped, diverged: How many of them ended badly: rejected with a reason, failed, stopped at a
            rung, or at the end with an infinite value.
        others: Finished trials with other options of the parameter.
        others_ended: How many of those ended badly.
        reason: Why most of the rejected ones were; empty if none was.
        adjusted: p-value of Fisher's exact test that it is no more than with the others, after Holm's correction for
            all options of all parameters.
    """

    parameter: str
    value: Any
    visits: int
    rejected: int
    failed: int
    stopped: int
    diverged: int
    others: int
    others_ended: int
    reason: str
    adjusted: float

    @property
    def ended(self) -> int:
        """How many ended badly."""
        return self.rejected + self.failed + self.stopped + self.diverged


def bad_endings(table: TrialTable) -> tuple[Ending, ...]:
    """Give the options with which nearly no trial ends well, those with the most trials first."""
    finished = finished_trials(table)
    fates = {trial.number: _fate(trial) for trial in finished}
    found: dict[str, Ending] = {}
    for name, groups in options_tried(finished).items():
        counts = {key: Counter(fates[trial.number] for trial in trials) for key, trials in groups.items()}
        everywhere = sum(counts.values(), Counter())
        for key, trials in groups.items():
            if len(trials) < _FEWEST or len(groups) < 2:
                continue
            ending = _ending(name, trials, counts[key], everywhere)
            found[f"{name}\n{key}"] = ending
    # One that ends no worse than it may counts as 1 here: that makes none of the others smaller.
    adjusted = holm({key: ending.adjusted for key, ending in found.items()})
    kept = [replace(ending, adjusted=adjusted[key]) for key, ending in found.items() if adjusted[key] < ALPHA]
    return tuple(sorted(kept, key=lambda ending: -ending.visits))


def finished_trials(table: TrialTable) -> list[FrozenTrial]:
    """Give all trials that came to an end, usable or not."""
    return [trial for trial in (*table.trials, *table.others) if trial.state.is_finished()]


def options_tried(trials: Sequence[FrozenTrial]) -> Mapping[str, Mapping[str, list[FrozenTrial]]]:
    """Group trials by parameter and value; values by how they print, for they may be anything."""
    groups: dict[str, dict[str, list[FrozenTrial]]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            groups.setdefault(name, {}).setdefault(repr(value), []).append(trial)
    return groups


def _is_bad(ending: Ending) -> bool:
    return ending.ended >= _NEARLY_ALL * ending.visits


def _ending(name: str, trials: Sequence[FrozenTrial], fates: Counter[str], everywhere: Counter[str]) -> Ending:
    others = everywhere.total() - len(trials)
    others_complete = everywhere[_COMPLETE] - fates[_COMPLETE]
    reasons = Counter(_kind(trial.user_attrs[REJECT_REASON]) for trial in trials if _is_rejected(trial))
    ending = Ending(
        name,
        trials[0].params[name],
        len(trials),
        fates[_REJECTED],
        fates[_FAILED],
        fates[_STOPPED],
        fates[_DIVERGED],
        others,
        others - others_complete,
        reasons.most_common(1)[0][0] if reasons else "",
        1.0,
    )
    if not _is_bad(ending):
        return ending
    both = [[ending.ended, fates[_COMPLETE]], [ending.others_ended, others_complete]]
    return replace(ending, adjusted=float(fisher_exact(both, alternative="greater").pvalue))


def _fate(trial: FrozenTrial) -> str:
    if trial.state is TrialState.COMPLETE:
        return _DIVERGED if any(map(math.isinf, trial.values)) else _COMPLETE
    if trial.state is TrialState.FAIL:
        return _FAILED
    return _REJECTED if _is_rejected(trial) else _STOPPED


def _is_rejected(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.PRUNED and isinstance(trial.user_attrs.get(REJECT_REASON), str)


def _kind(reason: str) -> str:
    """Give what a reason begins with; the numbers after it differ from trial to trial."""
    return reason.partition(":")[0]
