"""The transforms of UniADS that Auto-KD does not have: activations, normalisations, dropout, relations.

`mask`, `multiscale`, `local` and `channel` serve both; UniADS's `batch` is `sample`; its attention and softmax are
in `uniads_attention`. Each network is transformed by itself; only what is drawn is shared. Paper: names, in Table
1, Table 2 and the text. Here: the definitions below, of which the scales and `drop` are the least certain.

What works on single entries or on whole rows also takes rows [B, R, D], so that it may follow `sample`, `channel`
or `bmm`. The others need to know which axis is what, and refuse rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optuna_kd.distillers.numerics import gram, still_where_constant, unit
from optuna_kd.distillers.operations import Form, OptionInfo, Pairs, transform
from optuna_kd.distillers.transforms import draw_shared

_SOURCE = "UniADS, Table 1"
_IN_TEXT = "UniADS, search space structure"
_IN_TABLE_2 = "UniADS, Table 2"
_ANY_FORM: tuple[Form, ...] = ("map", "rows", "matrix")


def _both(function: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor) -> Pairs:
    return [(function(student), function(teacher))]


@transform("exp", takes=_ANY_FORM, stage="any", source=_IN_TEXT)
def exp(student: Tensor, teacher: Tensor) -> Pairs:
    """Take the exponential of min(x, 10).

    Paper: exp. Here: bounded, because e^89 leaves the range of float32; above 10 there is no gradient.
    """
    return _both(lambda x: torch.exp(x.clamp(max=10)), student, teacher)


@transform("relu", takes=_ANY_FORM, stage="any", source=_IN_TEXT)
def relu(student: Tensor, teacher: Tensor) -> Pairs:
    """Set negative entries to zero."""
    return _both(torch.relu, student, teacher)


@transform("tanh", takes=_ANY_FORM, stage="any", source=_IN_TEXT)
def tanh(student: Tensor, teacher: Tensor) -> Pairs:
    """Take the hyperbolic tangent."""
    return _both(torch.tanh, student, teacher)


@transform("sigmoid", takes=_ANY_FORM, stage="any", source=_IN_TEXT)
def sigmoid(student: Tensor, teacher: Tensor) -> Pairs:
    """Take the logistic function."""
    return _both(torch.sigmoid, student, teacher)


@transform("pow2", takes=_ANY_FORM, stage="any", source=_IN_TEXT)
def pow2(student: Tensor, teacher: Tensor) -> Pairs:
    """Square each entry."""
    return _both(torch.square, student, teacher)


@transform("over_tau", takes=_ANY_FORM, stage="any", uses_temperature=True, source="UniADS, eq. 1")
def over_tau(student: Tensor, teacher: Tensor, *, temperature: float) -> Pairs:
    """Divide by τ; at the end of a chain, before any distance but `kl`, it makes the term eq. 1 as printed."""
    return _both(lambda x: x / temperature, student, teacher)


@transform("batchnorm", takes=("map", "matrix"), stage="any", source=_SOURCE)
def batchnorm(student: Tensor, teacher: Tensor) -> Pairs:
    """Standardise each channel by the mean and the variance (plus 1e-5) of the batch, without parameters."""
    return _both(_batchnorm, student, teacher)


def _batchnorm(x: Tensor) -> Tensor:
    # Not F.batch_norm, which refuses a single value per channel.
    across = (0, 2, 3) if x.dim() == 4 else (0,)
    centred = x - x.mean(across, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(across, keepdim=True) + 1e-5)


@transform("norm_N", takes=("map", "matrix"), stage="any", source=_IN_TEXT)
def norm_n(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale to length 1 along the samples of the batch."""
    return _both(lambda x: unit(x, 0), student, teacher)


@transform("norm_C", takes=("map", "matrix"), stage="any", source=_IN_TEXT)
def norm_c(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale to length 1 along the channels."""
    return _both(lambda x: unit(x, 1), student, teacher)


@transform("norm_H", takes=("map",), stage="any", source=_IN_TEXT)
def norm_h(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale to length 1 along the height."""
    return _both(lambda x: unit(x, 2), student, teacher)


@transform("norm_W", takes=("map",), stage="any", source=_IN_TEXT)
def norm_w(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale to length 1 along the width."""
    return _both(lambda x: unit(x, 3), student, teacher)


@transform("scale", takes=_ANY_FORM, stage="any", source=_SOURCE)
def scale(student: Tensor, teacher: Tensor) -> Pairs:
    """Map the range of each sample to [0, 1]: (x − min) / (max − min + 1e-6); of rows, that of each row.

    Paper: a name. Here: not a constant factor, which weight and temperature are already.
    """
    return _both(lambda x: _per_sample(_min_max, x), student, teacher)


def _min_max(rows: Tensor) -> Tensor:
    rows = still_where_constant(rows)
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    return (rows - low) / (high - low + 1e-6)


@transform("scale_r1", takes=_ANY_FORM, stage="any", source=_IN_TABLE_2)
def scale_r1(student: Tensor, teacher: Tensor) -> Pairs:
    """Divide each sample by the sum of its absolute values; of rows, each row."""
    return _both(lambda x: _per_sample(lambda rows: unit(rows, order=1), x), student, teacher)


@transform("scale_r2", takes=_ANY_FORM, stage="any", source=_IN_TABLE_2)
def scale_r2(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale each sample to length 1; of rows, each row."""
    return _both(lambda x: _per_sample(unit, x), student, teacher)


def _per_sample(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return function(x.flatten(1)).view_as(x) if x.dim() == 4 else function(x)


@transform(
    "drop",
    takes=("map", "matrix"),
    stage="any",
    random=True,
    needs_equal_width=True,
    source=_SOURCE,
    options={"ratio": OptionInfo(0.1, "share that is removed", minimum=0, below=1)},
)
def drop(student: Tensor, teacher: Tensor, *, generator: torch.Generator | None, ratio: float) -> Pairs:
    """Apply the same dropout to both sides: of whole channels of maps, of single entries of [N, D].

    Paper: a name. Here: one draw for both, because two would compare what only one side still has.
    """
    keep = draw_shared("drop", student, teacher, generator, "channel", ratio) / (1 - ratio)
    return [(student * keep, teacher * keep)]


@transform("bmm", takes=_ANY_FORM, gives="rows", stage="any", source=_IN_TABLE_2)
def bmm(student: Tensor, teacher: Tensor) -> Pairs:
    """Replace rows by their inner products with each other, each row of them scaled to length 1.

    Channels of each sample [N, C, C]; samples of [N, D] as [1, N, N]; rows as they are.
    """
    return _both(_relations, student, teacher)


def _relations(x: Tensor) -> Tensor:
    return unit(gram(x.flatten(2) if x.dim() == 4 else x if x.dim() == 3 else x[None]))
