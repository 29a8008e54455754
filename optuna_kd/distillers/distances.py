"""Distances: how two pieces of knowledge are compared, as a mean that does not grow with the batch.

One function is one distance. To add one, write `def name(student, teacher, *, options...)` that returns a
0-dim tensor, and decorate it with `@distance`: recipes and the shared tests pick it up.

Feature maps [N, C, H, W] that no transform has turned into rows are compared by position: H·W rows of C
channels per sample (Auto-KD leaves this open).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers.numerics import (
    Axis,
    full_precision,
    gram,
    kl_probabilities,
    kl_rows,
    log2_purity,
    log2_spectrum,
    pearson_rows,
    promote,
    rows_along,
    still_where_constant,
    unit,
)
from optuna_kd.distillers.operations import OptionInfo, distance

_ALL = ("features", "embeddings", "logits")
#: Larger maps are pooled to this side before the Gram matrix of positions, whose size is (H·W)².
_GRAM_SIDE = 16


@distance(
    "gl2",
    takes=("map", "rows", "matrix"),
    knowledge=_ALL,
    needs_equal_width=False,
    source="Auto-KD, Table 1 and supplement eqs. 1 and 3; SP (Tung and Mori 2019), ICKD (Liu et al. 2021)",
    options={
        "norm": OptionInfo("row", "what of the Gram matrix has length 1", choices=("row", "fro")),
        "squared": OptionInfo(True, "whether the norm of the difference is squared"),
    },
)
def gl2(student: Tensor, teacher: Tensor, *, norm: str, squared: bool) -> Tensor:
    """Compare normalised Gram matrices of the rows: mean over rows of ‖Ĝ_S − Ĝ_T‖².

    Paper: G / ‖G‖ as a whole, and the unsquared norm (`norm="fro", squared=False`, averaged over groups).
    Here: rows of length 1, squared, because SP and ICKD do so and one grid of weights then fits all options.
    """
    rows_s, rows_t = _gram_rows(student), _gram_rows(teacher)
    if rows_s.shape[:2] != rows_t.shape[:2]:
        raise ValueError(
            f"'gl2' compares the same rows of both sides (samples, channels or positions); got student "
            f"{tuple(student.shape)} and teacher {tuple(teacher.shape)}. Align them first (see Adapter)."
        )
    gram_s, gram_t = gram(rows_s), gram(rows_t)
    if norm == "fro":
        gram_s, gram_t = gram_s.flatten(1), gram_t.flatten(1)
    difference = unit(gram_s) - unit(gram_t)
    if squared:
        return difference.square().sum(-1).mean()
    return torch.linalg.vector_norm(difference, dim=-1).mean()


def _gram_rows(x: Tensor) -> Tensor:
    if x.dim() == 2:
        return x[None]
    if x.dim() == 3:
        return x
    h, w = x.shape[2:]
    if h * w > _GRAM_SIDE**2:
        x = F.adaptive_avg_pool2d(x, (min(h, _GRAM_SIDE), min(w, _GRAM_SIDE)))
    return x.flatten(2).mT


@distance(
    "kl",
    takes=("map", "rows", "matrix"),
    knowledge=_ALL,
    uses_temperature=True,
    knows_probabilities=True,
    source="Hinton et al. 2015; on rows Auto-KD, supplement eqs. 2 and 4",
)
def kl(student: Tensor, teacher: Tensor, *, temperature: float, probabilities_over: Axis | None) -> Tensor:
    """Compute τ²·KL(teacher ‖ student) of the softmax of each row; of maps, over the channels.

    What a transform has turned into probabilities already is compared as it is, along their axis.
    """
    if probabilities_over is not None:
        rows_s, rows_t = (rows_along(x, probabilities_over) for x in (student, teacher))
        return kl_probabilities(rows_s, rows_t, temperature)
    return kl_rows(student, teacher, temperature, dim=1 if student.dim() == 4 else -1)


@distance(
    "kl_intra",
    takes=("matrix",),
    knowledge=("logits",),
    uses_temperature=True,
    source="extended space: Auto-KD's intra-class transform with the KL divergence",
)
def kl_intra(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Compute τ²·KL of the softmax over the batch, one row per class."""
    return kl_rows(student, teacher, temperature, dim=0)


@distance(
    "l2",
    takes=("map", "rows", "matrix"),
    knowledge=_ALL,
    source="FitNet (Romero et al. 2015); rows Auto-KD, supplement",
)
def l2(student: Tensor, teacher: Tensor) -> Tensor:
    """Average squared differences of maps and matrices; of rows ‖unit(r_S) − unit(r_T)‖² = 2 − 2·cos.

    Without that normalisation `sample`, `channel` and no transform would be the same point.
    """
    if student.dim() == 3:
        return (unit(student) - unit(teacher)).square().sum(-1).mean()
    return (student - teacher).square().mean()


@distance(
    "l1",
    takes=("map", "rows", "matrix"),
    knowledge=_ALL,
    source="Auto-KD, Fig. 3 and Table 8 (the space without its tree)",
)
def l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Average absolute differences."""
    return (student - teacher).abs().mean()


@distance(
    "pearson",
    takes=("matrix",),
    knowledge=("logits",),
    uses_temperature=True,
    source="DIST (Huang et al. 2022), eqs. 6 to 10",
    options={"intra": OptionInfo(True, "whether classes are compared over the batch too")},
)
def pearson(student: Tensor, teacher: Tensor, *, temperature: float, intra: bool) -> Tensor:
    """Compare class probabilities by τ²·(1 − Pearson correlation), within samples and within classes.

    A batch of one has no correlation within classes: that part is left out.
    """
    p_s = torch.softmax(still_where_constant(student) / temperature, -1)
    p_t = torch.softmax(teacher / temperature, -1)
    loss = 1 - pearson_rows(p_s, p_t, dim=1).mean()
    if intra and len(p_s) > 1:
        loss = loss + 1 - pearson_rows(p_s, p_t, dim=0).mean()
    return temperature**2 * loss


@distance(
    "renyi",
    takes=("matrix",),
    knowledge=("embeddings",),
    needs_equal_width=False,
    zero_at_equality=False,
    source="extended space: the mutual term of ITRD (Miles et al. 2021) in logarithmic form",
)
def renyi(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute S₂(A_ST) − S₂(A_S) in bits: minus the matrix mutual information, up to a teacher's constant.

    A_S is the Gram matrix of the unit embeddings over its trace, A_ST that of the elementwise product with
    the teacher's. Paper: Auto-KD only names "Rényi entropy". Here: this form, without eigenvalues.
    """
    if len(student) != len(teacher):
        raise ValueError(f"'renyi' compares the same samples; got {len(student)} and {len(teacher)}.")
    unit_s, unit_t = unit(student), unit(teacher)
    gram_s, gram_t = unit_s @ unit_s.mT, unit_t @ unit_t.mT
    return log2_purity(gram_s) - log2_purity(gram_s * gram_t)


def renyi_entropy(embeddings: Tensor, alpha: float = 2.0) -> Tensor:
    """Compute the matrix-based Rényi entropy of a batch, in bits (Sánchez Giraldo et al. 2015).

    Args:
        embeddings: [N, D]; each row is scaled to length 1, so that log2 N is the largest entropy.
        alpha: Order, > 0; 1 is von Neumann's entropy, 2 needs no eigenvalues.
    """
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"The order alpha of a Rényi entropy is a finite number > 0; got {alpha!r}.")
    with full_precision(embeddings):
        rows = unit(promote(embeddings))
        matrix = rows @ rows.mT
        return -log2_purity(matrix) if alpha == 2 else log2_spectrum(matrix, alpha)
