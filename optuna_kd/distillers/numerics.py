"""Arithmetic that all losses share: full precision, unit vectors and divergences without NaN."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

EPS = 1e-12
#: What [N, C, H, W] and [N, D] can be read along: samples, channels (or D), positions.
Axis = Literal["N", "C", "HW"]
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


def unit(x: Tensor, dim: int = -1, order: int = 2) -> Tensor:
    """Scale vectors to length 1: x / max(‖x‖, 1e-12), with gradient zero where the floor holds.

    Args:
        x: Vectors along `dim`, of any finite size: they are divided by their largest entry first, so that
            neither 1e-30 nor 1e30 leaves the range of float32 when squared.
        dim: Axis of the vectors.
        order: 2 for Euclid's norm, 1 for the sum of the absolute values.
    """
    scaled = x / x.detach().abs().amax(dim, keepdim=True).clamp_min(EPS)
    # The largest entry is 1 unless it lies under the floor, so this norm is at least 1 exactly where
    # max(‖x‖, 1e-12) is ‖x‖.
    norm = torch.linalg.vector_norm(scaled, order, dim=dim, keepdim=True)
    # Under the floor the literal gradient is 1e12 in a direction that means nothing; one dead channel would
    # end the training.
    return torch.where(norm >= 1, scaled / torch.where(norm >= 1, norm, 1), scaled.detach())


def centred_unit(rows: Tensor) -> Tensor:
    """Centre vectors along the last axis and scale them to length 1: their inner products are Pearson's ρ.

    Vectors whose entries are all equal give zero, without gradient: what rounding leaves of them means nothing.
    """
    constant = (rows == rows[..., :1]).all(-1, keepdim=True)
    return unit(torch.where(constant, 0, rows - rows.mean(-1, keepdim=True)))


def still_where_constant(x: Tensor) -> Tensor:
    """Cut the gradient of vectors whose entries are all equal, as logits of a zero-initialised classifier.

    Dividing by their deviation, which is 0, would give them a gradient of about 1 / ε instead.
    """
    return torch.where((x == x[..., :1]).all(-1, keepdim=True), x.detach(), x)


def rows_along(x: Tensor, axis: Axis) -> Tensor:
    """Put one axis of [N, C, H, W], [B, R, D] or [N, D] last; positions are flattened.

    Args:
        x: Rows [B, R, D] have only the axis `"C"`, which is D.
        axis: The axis.
    """
    if axis == "HW":
        return x.flatten(2)
    return x.movedim(0 if axis == "N" else _channels(x), -1)


def softmax_along(x: Tensor, axis: Axis) -> Tensor:
    """Compute the softmax along an axis of [N, C, H, W], [B, R, D] (of D) or [N, D]; keeps the shape."""
    if axis == "HW":
        return torch.softmax(x.flatten(2), -1).view_as(x)
    return torch.softmax(x, 0 if axis == "N" else _channels(x))


def _channels(x: Tensor) -> int:
    return -1 if x.dim() == 3 else 1


def log_probabilities(rows: Tensor) -> Tensor:
    """Give the logarithm of probabilities along the last axis, after adding 1e-8: underflow stays finite."""
    rows = rows + 1e-8
    return torch.log(rows / rows.sum(-1, keepdim=True))


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


def kl_probabilities(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute τ²·KL(teacher ‖ student) of probabilities along the last axis, averaged over all rows."""
    log_s, log_t = log_probabilities(student), log_probabilities(teacher)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(-1).mean()


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
