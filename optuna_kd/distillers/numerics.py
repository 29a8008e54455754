"""Arithmetic that all losses share: full precision, unit vectors and divergences without NaN."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

EPS = 1e-12
R = TypeVar("R")


def promote(x: Tensor) -> Tensor:
    """Turn half-precision input into float32; float32 and float64 stay what they are.

    Raises:
        TypeError: If `x` does not hold floating-point numbers.
    """
    if not x.is_floating_point():
        raise TypeError(f"Knowledge is floating point (half, float32 or float64); got {x.dtype}.")
    return x.float() if x.dtype.itemsize < 4 else x


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Give a context in which autocast on the device of `x` is off."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def on_knowledge(function: Callable[..., R]) -> Callable[..., R]:
    """Run `function(student, teacher, ...)` in full precision, with the teacher detached.

    Half precision is promoted to float32, two types of different width meet at the wider one, and autocast
    is off inside.
    """

    @functools.wraps(function)
    def wrapped(student: Tensor, teacher: Tensor, **options: object) -> R:
        with full_precision(student):
            student, teacher = promote(student), promote(teacher.detach())
            dtype = torch.promote_types(student.dtype, teacher.dtype)
            return function(student.to(dtype), teacher.to(dtype), **options)

    return wrapped


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Scale vectors to length 1: x / max(‖x‖₂, 1e-12), with gradient zero where the floor holds.

    Args:
        x: Vectors along `dim`, of any finite size: they are divided by their largest entry first, so that
            neither 1e-30 nor 1e30 leaves the range of float32 when squared.
        dim: Axis of the vectors.
    """
    scaled = x / x.detach().abs().amax(dim, keepdim=True).clamp_min(EPS)
    # The largest entry is 1 unless it lies under the floor, so this norm is at least 1 exactly where
    # max(‖x‖, 1e-12) is ‖x‖.
    norm = torch.linalg.vector_norm(scaled, dim=dim, keepdim=True)
    # Under the floor the literal gradient is 1e12 in a direction that means nothing; one dead channel would
    # end the training.
    return torch.where(norm >= 1, scaled / torch.where(norm >= 1, norm, 1), scaled.detach())


def still_where_constant(x: Tensor) -> Tensor:
    """Cut the gradient of vectors whose entries are all equal, as logits of a zero-initialised classifier.

    Dividing by their deviation, which is 0, would give them a gradient of about 1 / ε instead.
    """
    return torch.where((x == x[..., :1]).all(-1, keepdim=True), x.detach(), x)


def gram(rows: Tensor) -> Tensor:
    """Give the inner products of the rows of each group, up to a common factor.

    Args:
        rows: [B, R, D]. Each group is divided by its largest entry (a constant for the gradient), which every
            normalised Gram matrix cancels: features of any scale give the same matrix.

    Returns:
        [B, R, R].
    """
    rows = rows / rows.detach().abs().amax((-2, -1), keepdim=True).clamp_min(EPS)
    return rows @ rows.mT


def kl_rows(student: Tensor, teacher: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """Compute τ²·KL(σ(teacher/τ) ‖ σ(student/τ)) along `dim`, averaged over all rows.

    Both sides stay logarithms; underflown probabilities count nothing instead of 0·∞.
    """
    log_s = torch.log_softmax(student / temperature, dim)
    log_t = torch.log_softmax(teacher / temperature, dim)
    p_t = log_t.exp()
    pointwise = torch.where(p_t > 0, p_t * (log_t - log_s), 0)
    return temperature**2 * pointwise.sum(dim).mean()


def pearson_rows(a: Tensor, b: Tensor, dim: int, eps: float = 1e-8) -> Tensor:
    """Compute the Pearson correlation along `dim`; `eps` is added to the product of the norms."""
    a = a - a.mean(dim, keepdim=True)
    b = b - b.mean(dim, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + eps)


def log2_purity(gram_matrix: Tensor) -> Tensor:
    """Compute log2 ‖A‖_F² of A = G / tr G, the negative Rényi entropy of order 2, in bits.

    Args:
        gram_matrix: Positive semi-definite [N, N]. A zero matrix has no trace to divide by; it counts as a
            single eigenvalue (entropy 0), without gradient.
    """
    trace = gram_matrix.diagonal().sum()
    empty = trace <= EPS
    density = gram_matrix / torch.where(empty, 1, trace)
    return torch.log2(torch.where(empty, 1, density.square().sum()))


def log2_spectrum(gram_matrix: Tensor, alpha: float) -> Tensor:
    """Compute the Rényi entropy of order `alpha` of A = G / tr G from its eigenvalues, in bits."""
    eigenvalues = torch.linalg.eigvalsh(gram_matrix / gram_matrix.diagonal().sum().clamp_min(EPS)).clamp_min(EPS)
    if math.isclose(alpha, 1.0):  # the limit: von Neumann's entropy
        return -(eigenvalues * eigenvalues.log2()).sum()
    return eigenvalues.pow(alpha).sum().log2() / (1 - alpha)
