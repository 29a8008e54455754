"""What the finished trials say about each objective: one surrogate each, over the same trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.nsga.verdicts import Verdicts
from optuna_kd.samplers.surrogate.belief import inputs_of
from optuna_kd.samplers.surrogate.kernel import Kernel
from optuna_kd.samplers.surrogate.likelihood import fit
from optuna_kd.samplers.surrogate.posterior import Posterior
from optuna_kd.samplers.surrogate.slots import PathLog, Paths, Slots

_OBSERVATIONS = 256  # in a surrogate at most: its cost grows with their square
_FITTED_TO = 128  # at most: the kernel needs fewer than the posterior does
_FIRST_FIT = 5  # trials
_GROWTH = 1.25  # between two fits of the kernel

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
SLACK = None  # in place of the number of an objective: how far the constraints are from being violated


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known about one objective.

    Args:
        slots: The parameters.
        posterior: Of rewards of mean 0 and variance 1.
        mean, deviation: What standardised them.
        trials: The trials that it rests on, by number, ascending.
        expected: The posterior mean of each, standardised.
    """

    slots: Slots
    posterior: Posterior
    mean: float
    deviation: float
    trials: Integers
    expected: Array

    def predict(self, paths: Paths) -> tuple[Array, Array]:
        """Give mean and standard deviation of the noise-free rewards of paths, standardised."""
        return self.posterior(inputs_of(self.slots, paths))

    @property
    def noise(self) -> float:
        """Variance of one observation, standardised."""
        return self.posterior.kernel.noise


class Beliefs:
    """The kernels of one study, refitted as trials come in."""

    def __init__(self) -> None:
        self._kernels: dict[int | None, tuple[object, Kernel]] = {}

    def believe(self, log: PathLog, verdicts: Verdicts, objective: int | None, running: Paths) -> Belief:
        """Fit to what one objective was observed to be.

        Args:
            log: The paths of the finished trials; at least one.
            verdicts: What they are worth.
            objective: Its number, or `SLACK`.
            running: The paths of unfinished trials, so far as they are known. They count as observations of just
                what is expected of them: their surroundings lose interest, and nothing else changes.
        """
        kernel = self._refitted(log, verdicts, objective)
        trials = selected(np.sort(np.array(log.numbers)), verdicts, _OBSERVATIONS)
        seen, rewards = _observed(log, verdicts, objective, trials)
        targets, mean, deviation = _unit(rewards)
        inputs = inputs_of(log.slots, seen)
        posterior = Posterior(kernel, inputs, targets)
        expected = posterior.expected
        if len(running):
            theirs = inputs_of(log.slots, running)
            posterior = Posterior(kernel, inputs.joined(theirs), np.concatenate([targets, posterior(theirs)[0]]))
        return Belief(log.slots, posterior, mean, deviation, trials, expected)

    def _refitted(self, log: PathLog, verdicts: Verdicts, objective: int | None) -> Kernel:
        """Fit the kernel to the first trials by number, as many as the last step of the schedule allows.

        The result depends on these trials alone, so that a resumed study has the same kernel as one that ran on.
        """
        count = _fit_size(len(log))
        if not count:
            return Kernel.typical(len(log.slots))
        numbers = np.sort(np.array(log.numbers))[:count]
        # Ranges that grew scale the places anew.
        ranges = [(slot.name, slot.low, slot.high) for slot in sorted(log.slots, key=lambda slot: slot.name)]
        key = numbers.tolist(), ranges
        known, kernel = self._kernels.get(objective, (None, None))
        if kernel is None or known != key:
            part = verdicts.of(numbers.tolist())
            seen, rewards = _observed(log, part, objective, selected(numbers, part, _FITTED_TO))
            kernel = fit(inputs_of(log.slots, seen), _unit(rewards)[0])
            self._kernels[objective] = key, kernel
        return kernel


def selected(numbers: Integers, verdicts: Verdicts, most: int) -> Integers:
    """Select what a surrogate rests on: all of the trials, or the latest half, the best and a spread of the rest.

    The latest trials were chosen before they were observed. The best ones alone would be the lucky ones.

    Args:
        numbers: Of the trials, ascending.
        verdicts: What they are worth.
        most: How many are selected at most.
    """
    if len(numbers) <= most:
        return numbers
    half, quarter = most // 2, most // 4
    older = numbers[: len(numbers) - half]
    place = {number: place for place, number in enumerate(verdicts.standing().tolist())}
    ranked = np.array(sorted(older.tolist(), key=lambda number: (place.get(number, len(numbers)), number)))
    rest = ranked[quarter:]
    spread = rest[np.unique(np.linspace(0, len(rest) - 1, most - half - quarter).astype(int))]
    return np.sort(np.concatenate([ranked[:quarter], spread, numbers[len(older) :]]))


def _observed(log: PathLog, verdicts: Verdicts, objective: int | None, trials: Integers) -> tuple[Paths, Array]:
    rows = {number: row for row, number in enumerate(log.numbers)}
    rewards = verdicts.slack() if objective is SLACK else verdicts.rewards(objective)
    return log.paths().take(np.array([rows[number] for number in trials.tolist()], np.intp)), rewards[trials]


def _fit_size(trials: int) -> int:
    """Give the size of the last step 5, 7, 9, 12, 16, ... that `trials` have reached; 0 before the first."""
    if trials < _FIRST_FIT:
        return 0
    size = _FIRST_FIT
    while (following := int(size * _GROWTH) + 1) <= trials:
        size = following
    return size


def _unit(rewards: Array) -> tuple[Array, float, float]:
    """Shift and scale to mean 0 and variance 1; returns the result, the mean and the standard deviation."""
    mean, deviation = float(rewards.mean()), float(rewards.std())
    deviation = deviation if deviation > 1e-12 else 1.0
    return (rewards - mean) / deviation, mean, deviation
