"""The scale on which the Gaussian process sees rewards: one on which they look normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SPREAD = 0.5  # of λ around 1, a priori: a few rewards alone bend nothing
# From no bend to a logarithm of what is below the mean. Less than 1 would draw in the best ones: a search is there to
# tell them apart. More than 2 could not be turned back.
_BENDS = np.linspace(1.0, 2.0, 21)


@dataclass(frozen=True, slots=True)
class Scale:
    """Rewards shifted and scaled to mean 0 and variance 1, bent, and shifted and scaled again.

    The bend is Yeo and Johnson's power transformation (2000): with λ > 1 it spreads what is above the mean and
    draws in what is below. Rewards of trainings need it: many recipes are nearly as good as the best, and a few
    are disasters, beside which the differences between good ones look like noise.

    Args:
        mean, deviation: Of the rewards.
        bend: λ; 1 bends nothing.
        shift, stretch: Mean and standard deviation of the bent rewards.
    """

    mean: float
    deviation: float
    bend: float
    shift: float
    stretch: float

    @classmethod
    def plain(cls, rewards: Sequence[float] | Array) -> Scale:
        """Give the scale without a bend."""
        return cls(*_moments(np.asarray(rewards, float)), bend=1.0, shift=0.0, stretch=1.0)

    @classmethod
    def of(cls, rewards: Sequence[float] | Array) -> Scale:
        """Find the scale of some rewards; λ is the most probable one, with a prior around 1.

        Args:
            rewards: Finite; [observations].
        """
        values = np.asarray(rewards, float)
        mean, deviation = _moments(values)
        plain = (values - mean) / deviation
        bent = np.array([_bent(plain, bend) for bend in _BENDS])
        variances = bent.var(axis=1)
        if variances.min() < 1e-12:
            return cls.plain(values)
        density = -0.5 * len(plain) * np.log(variances)
        density += (_BENDS - 1) * (np.sign(plain) * np.log1p(np.abs(plain))).sum()
        density -= 0.5 * ((_BENDS - 1) / _SPREAD) ** 2
        best = int(density.argmax())
        return cls(mean, deviation, float(_BENDS[best]), *_moments(bent[best]))

    def to(self, rewards: Sequence[float] | Array) -> Array:
        """Bring rewards onto the scale."""
        plain = (np.asarray(rewards, float) - self.mean) / self.deviation
        return (_bent(plain, self.bend) - self.shift) / self.stretch

    def back(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Turn means and standard deviations on the scale into medians and spreads of rewards.

        The spread is what the standard deviation amounts to at the median, to first order.
        """
        bent = mean * self.stretch + self.shift
        plain = _straight(bent, self.bend)
        slope = (1 + np.abs(plain)) ** np.where(plain >= 0, self.bend - 1, 1 - self.bend)
        return plain * self.deviation + self.mean, deviation * self.stretch * self.deviation / slope


def _bent(plain: Array, bend: float) -> Array:
    above, below = np.maximum(plain, 0), np.maximum(-plain, 0)
    return _power(above, bend) - _power(below, 2 - bend)


def _power(x: Array, exponent: float) -> Array:
    return np.log1p(x) if exponent == 0 else ((1 + x) ** exponent - 1) / exponent


def _straight(bent: Array, bend: float) -> Array:
    above, below = np.maximum(bent, 0), np.maximum(-bent, 0)
    return _root(above, bend) - _root(below, 2 - bend)


def _root(x: Array, exponent: float) -> Array:
    return np.expm1(x) if exponent == 0 else (1 + exponent * x) ** (1 / exponent) - 1


def _moments(values: Array) -> tuple[float, float]:
    """Give mean and standard deviation; 1 where all values are the same."""
    deviation = float(values.std())
    return float(values.mean()), deviation if deviation > 1e-12 else 1.0
