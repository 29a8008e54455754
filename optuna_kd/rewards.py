"""What a proxy is worth: cross-entropy, representation gap (CKA) and the rewards made from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from optuna_kd.registry import Registry


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA in its biased form (Kornblith et al. 2019, eq. 3 to 5).

    Biased upwards when samples are few: unrelated features of width 4,096 score 0.97 at 128 samples. The
    reward uses `MinibatchCKA`.

    Args:
        x: Features [n, p]; maps are flattened to [n, C·H·W] first.
        y: Features [n, q] of the same samples.

    Returns:
        A similarity in [0, 1]; 0 where one of them does not vary.
    """
    grams = []
    for features in (x, y):
        flat = features.detach().flatten(1).double()
        flat = flat - flat.mean(0)
        norm = flat.norm()
        if norm**2 < 1e-12 * len(flat):
            return 0.0
        flat = flat / norm
        grams.append(flat @ flat.T)
    first, second = grams
    return float(((first * second).sum() / (first.norm() * second.norm())).clamp(0, 1))


def unbiased_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741  (K and L are the names in the literature)
    """Unbiased HSIC₁ of two Gram matrices [n, n], n >= 4, by U-centring (Székely & Rizzo 2014; Song et al. 2012)."""
    n = len(k)
    first, second = _u_centre(k), _u_centre(l)
    return (first * second).sum() / (n * (n - 3))


class MinibatchCKA:
    """Unbiased linear CKA over minibatches: the three HSIC are averaged, then the ratio is taken.

    Nguyen et al. 2021, eq. 2 and 3; Gram matrices in float64. Unbiased, it may leave [0, 1] by chance:
    `value()` clips it, `raw()` does not.

    Example:
        >>> cka = MinibatchCKA()
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> cka.update(x, 3 * x + 1)
        >>> round(cka.value(), 6)
        1.0
    """

    MINIMUM = 4  # samples in a batch, below which the unbiased estimate does not exist

    def __init__(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._batches = 0

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add one batch of features [n, ...] and [n, ...]; batches of fewer than 4 samples are left out."""
        if len(x) != len(y):
            raise ValueError(f"CKA compares the same samples; got {len(x)} and {len(y)}.")
        if len(x) < self.MINIMUM:
            return
        k, l = (_gram(features) for features in (x, y))  # noqa: E741
        self._sums += torch.stack([unbiased_hsic(k, l), unbiased_hsic(k, k), unbiased_hsic(l, l)]).cpu()
        self._batches += 1

    def raw(self) -> float:
        """Give the ratio, which may leave [0, 1]; 0 where one side does not vary."""
        if not self._batches:
            raise ValueError("CKA needs at least one batch of 4 or more samples.")
        cross, first, second = (self._sums / self._batches).tolist()
        return cross / math.sqrt(first) / math.sqrt(second) if first > 0 and second > 0 else 0.0

    def value(self) -> float:
        """Give the ratio clipped to [0, 1]."""
        return min(1.0, max(0.0, self.raw()))


@dataclass(frozen=True)
class Metrics:
    """What a student scores on held-out data.

    Args:
        accuracy: Share of correct classes, in [0, 1].
        cross_entropy: Mean, in nats.
        cka: Unbiased minibatch CKA of the tapped maps of student and teacher, clipped to [0, 1].
        l1: Mean over samples of ‖σ(z_S) − σ(z_T)‖₁, in [0, 2].
        num_classes: K.
    """

    accuracy: float
    cross_entropy: float
    cka: float
    l1: float
    num_classes: int

    @classmethod
    def useless(cls, num_classes: int) -> Metrics:
        """What a student counts for whose training had to be stopped: far worse than guessing."""
        return cls(0.0, 10 * math.log(num_classes), 0.0, 2.0, num_classes)

    @property
    def gap(self) -> float:
        """The representation gap, 1 − CKA."""
        return 1.0 - self.cka


Reward = Callable[[Metrics], float]
REWARDS: Registry[Reward] = Registry("reward")


def paper(metrics: Metrics) -> float:
    """R = 1 − (L_CE + L_CKA), Auto-KD eq. 3, with L_CKA = 1 − CKA.

    Paper: "L_CKA is the CKA metric". Here: its complement, because a raw CKA would reward dissimilarity.
    """
    return 1.0 - (metrics.cross_entropy + metrics.gap)


def bounded(metrics: Metrics) -> float:
    """Eq. 3 mapped to [0, 1] without changing the ranking: 1 − (L_CE + 1 − CKA) / (ln K + 1), clipped."""
    return _clip(1.0 - (metrics.cross_entropy + metrics.gap) / (math.log(metrics.num_classes) + 1.0))


def cross_entropy_only(metrics: Metrics) -> float:
    """Table 9, L_CE alone: 1 − L_CE / ln K, clipped to [0, 1]."""
    return _clip(1.0 - metrics.cross_entropy / math.log(metrics.num_classes))


def cross_entropy_l1(metrics: Metrics) -> float:
    """Table 9, L_CE + L_L1: 1 − (L_CE + L1) / (ln K + 2), clipped to [0, 1].

    Paper: says "L1 distance of the teacher model". Here: between the two softmax outputs, because the maps
    of two networks have different channels, and a run without an adapter must be scored as well.
    """
    return _clip(1.0 - (metrics.cross_entropy + metrics.l1) / (math.log(metrics.num_classes) + 2.0))


def accuracy(metrics: Metrics) -> float:
    """Table 9, top-1 accuracy."""
    return metrics.accuracy


for _name, _reward in (
    ("bounded", bounded),
    ("paper", paper),
    ("ce", cross_entropy_only),
    ("ce-l1", cross_entropy_l1),
    ("accuracy", accuracy),
):
    REWARDS.add(_name, _reward)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _gram(features: Tensor) -> Tensor:
    """Gram matrix [n, n] in float64. Centring changes nothing in exact arithmetic and saves digits here."""
    flat = features.detach().flatten(1).double()
    flat = flat - flat.mean(0)
    return flat @ flat.T


def _u_centre(gram: Tensor) -> Tensor:
    n = len(gram)
    gram = gram - torch.diag(torch.diagonal(gram))
    means = gram.sum(1) / (n - 2)
    means = means - means.sum() / (2 * (n - 1))
    centred = gram - means[:, None] - means[None, :]
    return centred - torch.diag(torch.diagonal(centred))
