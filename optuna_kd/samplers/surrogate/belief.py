"""What the finished trials of a study say about any path: the surrogate, fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.evidence import Evidence
from optuna_kd.samplers.surrogate.kernel import Inputs, Kernel
from optuna_kd.samplers.surrogate.likelihood import fit
from optuna_kd.samplers.surrogate.posterior import Posterior
from optuna_kd.samplers.surrogate.scale import Scale
from optuna_kd.samplers.surrogate.slots import PathLog, Paths, Slots

_OBSERVATIONS = 256  # in the surrogate at most: its cost grows with their square
_CHUNK = 1000  # paths in one prediction
_FIRST_FIT = 5  # trials
_GROWTH = 1.1  # between two fits of the kernel


@dataclass(frozen=True)
class Belief:
    """A posterior over paths.

    Args:
        slots: The parameters.
        posterior: Of rewards on the scale.
        scale: Theirs.
        seen: The paths that it rests on, ascending in trial number.
        trials: Their numbers.
        expected: The posterior mean of each, on the scale.
    """

    slots: Slots
    posterior: Posterior
    scale: Scale
    seen: Paths
    trials: NDArray[np.int64]
    expected: NDArray[np.float64]

    def predict(self, paths: Paths) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give mean and standard deviation of the noise-free rewards of paths, on the scale."""
        return self.posterior(inputs_of(self.slots, paths))

    def rewards_of(self, paths: Paths) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give median and spread of the noise-free rewards of any number of paths, as rewards; see `Scale.back`."""
        pieces = [
            self.predict(paths.take(np.arange(a, min(a + _CHUNK, len(paths))))) for a in range(0, len(paths), _CHUNK)
        ]
        means, deviations = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
        return self.scale.back(means, deviations)

    @property
    def noise(self) -> float:
        """Variance of one observation, on the scale."""
        return self.posterior.kernel.noise


class Surrogate:
    """The kernel of a study, refitted as trials come in."""

    def __init__(self) -> None:
        self._fitted: tuple[list[int], list[tuple[str, float, float]]] | None = None
        self._kernel = Kernel.typical(0)

    def believe(self, log: PathLog, evidence: Evidence, running: Paths | None = None) -> Belief:
        """Fit to all finished trials of the log.

        Args:
            log: The paths of the finished trials; at least one.
            evidence: What they earned.
            running: The paths of unfinished trials, so far as they are known. They count as observations of just
                what is expected of them: their surroundings lose interest, and nothing else changes.
        """
        kernel = self._refitted(log, evidence)
        seen, trials, rewards = _observations(log, evidence.rewards(), np.sort(np.array(log.numbers)))
        scale = Scale.of(rewards)
        targets = scale.to(rewards)
        inputs = inputs_of(log.slots, seen)
        posterior = Posterior(kernel, inputs, targets)
        expected = posterior.expected
        if running is not None and len(running):
            theirs = inputs_of(log.slots, running)
            posterior = Posterior(kernel, inputs.joined(theirs), np.concatenate([targets, posterior(theirs)[0]]))
        return Belief(log.slots, posterior, scale, seen, trials, expected)

    def _refitted(self, log: PathLog, evidence: Evidence) -> Kernel:
        """Fit the kernel to the first trials by number, as many as the last step of the schedule allows.

        The result depends on these trials alone, so that a resumed study has the same kernel as one that ran on.
        """
        count = _fit_size(len(log))
        if not count:
            return Kernel.typical(len(log.slots))
        numbers = np.sort(np.array(log.numbers))[:count]
        # Ranges that grew scale the places anew.
        ranges = [
            (log.slots[column].name, log.slots[column].low, log.slots[column].high) for column in log.slots.canonical
        ]
        key = numbers.tolist(), ranges
        if key != self._fitted:
            seen, _, rewards = _observations(log, evidence.of(numbers.tolist()).rewards(), numbers)
            self._kernel, self._fitted = fit(inputs_of(log.slots, seen), Scale.of(rewards).to(rewards)), key
        return self._kernel


def inputs_of(slots: Slots, paths: Paths) -> Inputs:
    """Bring paths into the form of the process: parameters by name, places scaled to [0, 1]."""
    columns = slots.canonical
    missing = len(slots) - paths.positions.shape[1]
    positions = np.pad(paths.positions, ((0, 0), (0, missing)), constant_values=np.nan)
    ordered = np.array([not slots[column].is_categorical for column in columns], bool)
    values = positions[:, columns]
    for place in np.flatnonzero(ordered):
        values[:, place] = slots[columns[place]].scaled(values[:, place])
    return Inputs(values, ordered, paths.branches)


def _fit_size(trials: int) -> int:
    """Give the size of the last step 5, 6, 7, 8, 9, 10, 12, 14, ... that `trials` have reached; 0 before the first."""
    if trials < _FIRST_FIT:
        return 0
    size = _FIRST_FIT
    while (following := int(size * _GROWTH) + 1) <= trials:
        size = following
    return size


def _observations(
    log: PathLog, rewards: NDArray[np.float64], numbers: NDArray[np.int64]
) -> tuple[Paths, NDArray[np.int64], NDArray[np.float64]]:
    """Select what the surrogate rests on: all of the trials, or the latest half, the best and a spread of the rest.

    The latest trials were chosen before they were observed. The best ones alone would be the lucky ones.
    """
    rows = np.argsort(np.array(log.numbers), kind="stable")
    rows = rows[np.isin(np.array(log.numbers)[rows], numbers)]
    if len(numbers) > _OBSERVATIONS:
        half, quarter = _OBSERVATIONS // 2, _OBSERVATIONS // 4
        older = np.arange(len(numbers) - half)
        ranked = older[np.argsort(-rewards[numbers[older]], kind="stable")]
        spread = ranked[quarter:][np.linspace(0, len(ranked) - quarter - 1, _OBSERVATIONS - half - quarter).astype(int)]
        kept = np.sort(np.concatenate([ranked[:quarter], np.unique(spread), np.arange(len(older), len(numbers))]))
        rows, numbers = rows[kept], numbers[kept]
    return log.paths().take(rows), numbers, rewards[numbers]
