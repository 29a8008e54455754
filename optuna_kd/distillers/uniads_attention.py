"""What UniADS does with a softmax along an axis: attention of each network for itself, and probabilities.

Paper: names, in Tables 1 and 2. Here: the attention of FGD, as in `attention`, and the softmax of x/τ. The
temperature is inside of the softmax, and `kl` and `hard` then take none of their own: eq. 1 read literally would
divide probabilities by τ and take their softmax again, which is nearly flat.
"""

from __future__ import annotations

from torch import Tensor

from optuna_kd.distillers.numerics import Axis, rows_along, softmax_along
from optuna_kd.distillers.operations import OptionInfo, Pairs, transform

_FGD = "UniADS, Table 1; the form of FGD (Yang et al. 2022)"
_ATTENTION = {
    "attention_output": OptionInfo("weighted", "what is compared", choices=("weighted", "map")),
    "temperature": OptionInfo(0.5, "of the softmax that makes the attention", above=0),
}


@transform("satt", takes=("map",), stage="any", source=_FGD, options=_ATTENTION)
def satt(student: Tensor, teacher: Tensor, *, attention_output: str, temperature: float) -> Pairs:
    """Multiply positions by their attention H·W · softmax_{H·W}(mean_c|x| / temperature) [N, 1, H, W]."""
    return _attend(student, teacher, "HW", attention_output, temperature)


@transform("catt", takes=("map", "matrix"), stage="any", source=_FGD, options=_ATTENTION)
def catt(student: Tensor, teacher: Tensor, *, attention_output: str, temperature: float) -> Pairs:
    """Multiply channels by their attention C · softmax_C(mean_{h,w}|x| / temperature) [N, C, 1, 1] or [N, D]."""
    return _attend(student, teacher, "C", attention_output, temperature)


@transform(
    "natt",
    takes=("map", "matrix"),
    stage="any",
    source="UniADS, Table 1; by analogy with satt and catt",
    options=_ATTENTION,
)
def natt(student: Tensor, teacher: Tensor, *, attention_output: str, temperature: float) -> Pairs:
    """Multiply samples by their attention N · softmax_N(mean|x| / temperature) [N, 1, 1, 1] or [N, 1]."""
    return _attend(student, teacher, "N", attention_output, temperature)


def _attend(student: Tensor, teacher: Tensor, axis: Axis, output: str, temperature: float) -> Pairs:
    """Weigh each side by its attention along an axis, of mean 1, or give that attention.

    The gradient goes through the attention, unlike in Auto-KD: it is made from one side alone, so a student
    gains nothing by flattening its own.
    """
    maps = [_attention(x, axis, temperature) for x in (student, teacher)]
    return [(maps[0], maps[1]) if output == "map" else (student * maps[0], teacher * maps[1])]


def _attention(x: Tensor, axis: Axis, temperature: float) -> Tensor:
    alpha = softmax_along(_strength(x, axis) / temperature, axis)
    return rows_along(alpha, axis).shape[-1] * alpha


def _strength(x: Tensor, axis: Axis) -> Tensor:
    if x.dim() == 2:
        return x.abs() if axis == "C" else x.abs().mean(1, keepdim=True)
    reduced = {"HW": (1,), "C": (2, 3), "N": (1, 2, 3)}[axis]
    return x.abs().mean(reduced, keepdim=True)


@transform(
    "softmax_N",
    takes=("map", "matrix"),
    stage="any",
    uses_temperature=True,
    probabilities_over="N",
    source="UniADS, Table 2",
)
def softmax_n(student: Tensor, teacher: Tensor, *, temperature: float) -> Pairs:
    """Turn x/τ into probabilities over the samples of the batch."""
    return [(softmax_along(student / temperature, "N"), softmax_along(teacher / temperature, "N"))]


@transform(
    "softmax_C",
    takes=("map", "rows", "matrix"),
    stage="any",
    uses_temperature=True,
    probabilities_over="C",
    source="UniADS, Table 2",
)
def softmax_c(student: Tensor, teacher: Tensor, *, temperature: float) -> Pairs:
    """Turn x/τ into probabilities over the channels; of rows, over each row."""
    return [(softmax_along(student / temperature, "C"), softmax_along(teacher / temperature, "C"))]


@transform(
    "softmax_HW",
    takes=("map",),
    stage="any",
    uses_temperature=True,
    probabilities_over="HW",
    source="by analogy with softmax_N and softmax_C of UniADS, Table 2",
)
def softmax_hw(student: Tensor, teacher: Tensor, *, temperature: float) -> Pairs:
    """Turn x/τ into probabilities over the positions."""
    return [(softmax_along(student / temperature, "HW"), softmax_along(teacher / temperature, "HW"))]
