"""The distances of UniADS (Table 1) that Auto-KD does not have; `kl` and `l1` serve both.

Paper: a list of names. Here: the usual meaning of each, averaged over rows. A row is a sample, [N, C, H, W] read
as [N, C·H·W], unless a transform has made rows [B, R, D] of another kind.

Paper: eq. 1 divides by τ and multiplies by τ², whatever the distance. Here: only `kl`, and terms whose chain has
a softmax, because τ² would be a mere weight for distances that ignore scale. A chain that ends with `over_tau` is
eq. 1 as printed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers.numerics import Axis, centred_unit, log_probabilities, rows_along, unit
from optuna_kd.distillers.operations import Form, distance

_ALL = ("features", "embeddings", "logits")
_FORMS: tuple[Form, ...] = ("map", "rows", "matrix")


@distance("mse", takes=_FORMS, knowledge=_ALL, source="UniADS, Table 1 (ℓ2)")
def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Average squared differences of all elements; unlike `l2`, of rows too.

    Auto-KD's `l2` scales rows to length 1. That of UniADS sees rows as the numbers that they are.
    """
    return (student - teacher).square().mean()


@distance("smooth_l1", takes=_FORMS, knowledge=_ALL, source="UniADS, Table 1 (smooth ℓ1)")
def smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """Average d²/2 where |d| < 1, and |d| − 1/2 elsewhere."""
    return F.smooth_l1_loss(student, teacher)


@distance(
    "hard",
    takes=_FORMS,
    knowledge=_ALL,
    zero_at_equality=False,
    knows_probabilities=True,
    source="UniADS, Table 1 (ℓ_hard); for logits the hard distillation of DeiT (Touvron et al. 2021)",
)
def hard(student: Tensor, teacher: Tensor, *, probabilities_over: Axis | None) -> Tensor:
    """Compute the cross-entropy of the student's rows with the position of the teacher's largest entry.

    What a transform has turned into probabilities already goes through no second softmax, which would take the
    gradient from a student that is sure and wrong.
    """
    if probabilities_over is None:
        rows_s, rows_t = _rows(student), _rows(teacher)
        log_s = torch.log_softmax(rows_s, -1)
    else:
        rows_s, rows_t = (rows_along(x, probabilities_over) for x in (student, teacher))
        log_s = log_probabilities(rows_s)
    return -log_s.gather(-1, rows_t.argmax(-1, keepdim=True)).mean()


@distance("cosine", takes=_FORMS, knowledge=_ALL, source="UniADS, Table 1 (ℓ_Cosine)")
def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Average 1 − cos of the angle between the student's and the teacher's row."""
    return 1 - (unit(_rows(student)) * unit(_rows(teacher))).sum(-1).mean()


@distance("row_pearson", takes=_FORMS, knowledge=_ALL, source="UniADS, Table 1 (ℓ_Pearson)")
def row_pearson(student: Tensor, teacher: Tensor) -> Tensor:
    """Average 1 − Pearson's ρ between the student's and the teacher's row.

    Unlike `pearson`, it takes no softmax, has no part within classes, and works on all knowledge.
    """
    return 1 - (centred_unit(_rows(student)) * centred_unit(_rows(teacher))).sum(-1).mean()


@distance(
    "correlation",
    takes=_FORMS,
    knowledge=_ALL,
    needs_equal_width=False,
    source="UniADS, Table 1 (ℓ_Correlation); relations between samples as in CC (Peng et al. 2019)",
)
def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how the rows of each side correlate with each other: mean of (ρ_S(i, j) − ρ_T(i, j))².

    Paper: a name. Here: a loss on relations, because between the two sides it would be `row_pearson` again.
    """
    unit_s, unit_t = centred_unit(_rows(student)), centred_unit(_rows(teacher))
    if unit_s.shape[:2] != unit_t.shape[:2]:
        raise ValueError(
            f"'correlation' compares the same rows of both sides; got student {tuple(student.shape)} and teacher "
            f"{tuple(teacher.shape)}. Align them first (see Adapter)."
        )
    return (unit_s @ unit_s.mT - unit_t @ unit_t.mT).square().mean()


def _rows(x: Tensor) -> Tensor:
    return x if x.dim() == 3 else x.flatten(1)[None]
