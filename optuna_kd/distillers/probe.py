"""Which points of the search spaces cannot teach at a given size of the knowledge, found by computing them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from optuna_kd.distillers.adapters import check_shape
from optuna_kd.distillers.dead_terms import dead_reason
from optuna_kd.distillers.terms import build_term
from optuna_kd.recipe import Knowledge, OpConfig, TermConfig

GLOBAL_TRANSFORMS = ("attention", "mask", "none")
INTRA_TRANSFORMS = ("multiscale", "local", "none")
INTER_TRANSFORMS = ("sample", "channel", "none")
FEATURE_DISTANCES = ("gl2", "kl", "l2")

_MATRIX_TRANSFORMS = (
    *("none", "batchnorm", "norm_N", "norm_C", "exp", "relu", "tanh", "sigmoid", "pow2"),
    *("scale", "scale_r1", "scale_r2", "drop", "mask", "catt", "natt", "softmax_N", "softmax_C", "bmm"),
)
_MAP_TRANSFORMS = ("norm_H", "norm_W", "multiscale", "local", "sample", "channel", "satt", "softmax_HW")
#: The transforms of UniADS by the knowledge they fit. On [N, D] `sample` (UniADS's `batch`) and `channel` would
#: change nothing, and the other transforms of maps have no height and width to work on.
UNIADS_TRANSFORMS: Mapping[Knowledge, tuple[str, ...]] = MappingProxyType(
    {
        "features": (*_MATRIX_TRANSFORMS, *_MAP_TRANSFORMS),
        "embeddings": _MATRIX_TRANSFORMS,
        "logits": _MATRIX_TRANSFORMS,
    }
)
#: The distances of UniADS, which fit all knowledge and all transforms. Its ℓ2 is `mse`, its Pearson `row_pearson`.
UNIADS_DISTANCES = ("l1", "mse", "smooth_l1", "kl", "hard", "cosine", "row_pearson", "correlation")

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
    random = torch.Generator().manual_seed(0)
    student, teacher = _draw(batch, _aligned(student_shape, teacher_shape), random)
    dead = {}
    for cell in itertools.product(GLOBAL_TRANSFORMS, INTRA_TRANSFORMS, INTER_TRANSFORMS, FEATURE_DISTANCES):
        *transforms, distance = cell
        config = TermConfig("features", OpConfig(distance), transforms=tuple(map(OpConfig, transforms)))
        if reason := _reason(config, student, teacher, random):
            dead[cell] = reason
    return dead


def probe_points(
    student_shape: Sequence[int], teacher_shape: Sequence[int], num_classes: int, *, batch: int = 8
) -> dict[tuple[str, str, str], str]:
    """Compute all 520 terms of one UniADS transform on random knowledge of this size and report the dead ones.

    Dead is what `probe_cells` calls dead. From 2x2 maps, three channels and three classes on, no term is.

    Args:
        student_shape: (C, H, W) of the student's tapped map.
        teacher_shape: (C, H, W) of the teacher's.
        num_classes: Number of logits.
        batch: Number of samples; with one or two, relations between samples are dead too.

    Returns:
        The reason by (knowledge, transform, distance), `none` included.

    Example:
        >>> sorted({transform for _, transform, _ in probe_points((8, 1, 4), (8, 1, 4), 10)})
        ['local', 'norm_H']
    """
    aligned = _aligned(student_shape, teacher_shape)
    shapes: dict[Knowledge, tuple[int, ...]] = {
        "features": aligned,
        "embeddings": aligned[:1],
        "logits": (num_classes,),
    }
    random = torch.Generator().manual_seed(0)
    dead: dict[tuple[str, str, str], str] = {}
    for knowledge, shape in shapes.items():
        student, teacher = _draw(batch, shape, random)
        for transform, distance in itertools.product(UNIADS_TRANSFORMS[knowledge], UNIADS_DISTANCES):
            config = TermConfig(knowledge, OpConfig(distance), transforms=(OpConfig(transform),))
            if reason := _reason(config, student, teacher, random):
                dead[knowledge, transform, distance] = reason
    return dead


def _aligned(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> tuple[int, int, int]:
    _, h_s, w_s = check_shape("student", student_shape)
    c_t, h_t, w_t = check_shape("teacher", teacher_shape)
    return c_t, min(h_s, h_t), min(w_s, w_t)


def _draw(batch: int, shape: Sequence[int], random: torch.Generator) -> tuple[Tensor, Tensor]:
    sizes = [min(size, _LARGEST) for size in shape]
    student, teacher = torch.randn(2, batch, *sizes, generator=random, dtype=torch.float64)
    return student.requires_grad_(), teacher


def _reason(config: TermConfig, student: Tensor, teacher: Tensor, random: torch.Generator) -> str | None:
    try:
        return dead_reason(build_term(config)(student, teacher, random), student)
    except ValueError as error:
        return str(error)
