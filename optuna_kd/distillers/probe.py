"""Which points of the feature space cannot teach at a given map size, found by computing them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from optuna_kd.distillers.adapters import check_shape
from optuna_kd.distillers.dead_terms import dead_reason
from optuna_kd.distillers.terms import build_term
from optuna_kd.recipe import OpConfig, TermConfig

GLOBAL_TRANSFORMS = ("attention", "mask", "none")
INTRA_TRANSFORMS = ("multiscale", "local", "none")
INTER_TRANSFORMS = ("sample", "channel", "none")
FEATURE_DISTANCES = ("gl2", "kl", "l2")

#: Sizes above this behave alike for every operation at its default options; it keeps the probe fast.
_LARGEST = 8


def probe_cells(
    student_shape: Sequence[int], teacher_shape: Sequence[int], *, batch: int = 8
) -> dict[tuple[str, str, str, str], str]:
    """Compute all 81 feature cells of Auto-KD on random maps of this size and report the dead ones.

    A cell is dead if its loss is zero, constant or without gradient for any student, or if an operation
    refuses the size. On 2x2 maps nine cells are dead, from 4x4 on none.

    Args:
        student_shape: (C, H, W) of the student's tapped map.
        teacher_shape: (C, H, W) of the teacher's.
        batch: Number of samples; with one, the sample Gram matrix is dead too.

    Returns:
        The reason by (global, intra, inter, distance), `none` included.

    Example:
        >>> sorted({cell[1:] for cell in probe_cells((8, 2, 2), (8, 2, 2))})
        [('local', 'channel', 'kl'), ('local', 'channel', 'l2'), ('local', 'none', 'gl2')]
    """
    (_, h_s, w_s), (c_t, h_t, w_t) = (
        check_shape("student", student_shape),
        check_shape("teacher", teacher_shape),
    )
    shape = tuple(min(size, _LARGEST) for size in (c_t, min(h_s, h_t), min(w_s, w_t)))
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, batch, *shape, generator=random, dtype=torch.float64)
    student.requires_grad_()
    dead = {}
    for cell in itertools.product(GLOBAL_TRANSFORMS, INTRA_TRANSFORMS, INTER_TRANSFORMS, FEATURE_DISTANCES):
        *transforms, distance = cell
        config = TermConfig("features", OpConfig(distance), transforms=tuple(map(OpConfig, transforms)))
        try:
            reason = dead_reason(build_term(config)(student, teacher, random), student)
        except ValueError as error:
            reason = str(error)
        if reason:
            dead[cell] = reason
    return dead
