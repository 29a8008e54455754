"""Transforms: what is done to both sides of the knowledge before they are compared.

One function is one transform. To add one, write `def name(student, teacher, *, options...)` that returns the
list of pairs to compare, and decorate it with `@transform`: recipes and the shared tests pick it up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers.numerics import EPS, still_where_constant, unit
from optuna_kd.distillers.operations import OptionInfo, Pairs, transform

_KIND = OptionInfo("spatial", "over positions [N, 1, H, W] or channels [N, C, 1, 1]", choices=("spatial", "channel"))


@transform(
    "attention",
    takes=("map",),
    stage="global",
    source="Auto-KD, Table 1; scale and temperature of FGD (Yang et al. 2022)",
    options={
        "kind": _KIND,
        "temperature": OptionInfo(0.5, "of the softmax that makes the attention", above=0),
    },
)
def attention(student: Tensor, teacher: Tensor, *, kind: str, temperature: float) -> Pairs:
    """Multiply both sides by one attention map made from both, of mean 1 and without gradient.

    α = H·W · softmax_{H·W}((mean_c|f_S| + mean_c|f_T|) / 2 / temperature), or the same over channels.
    """
    _check_shared("attention", student, teacher, kind)
    reduced = (1,) if kind == "spatial" else (2, 3)
    # A gradient through α would let the student lower the loss by flattening its own attention.
    strength = (student.detach().abs().mean(reduced, keepdim=True) + teacher.abs().mean(reduced, keepdim=True)) / 2
    flat = strength.flatten(1) / temperature
    alpha = (flat.shape[1] * torch.softmax(flat, dim=1)).view_as(strength)
    return [(student * alpha, teacher * alpha)]


@transform(
    "attention_map",
    takes=("map",),
    gives="map",
    stage="global",
    source="AT (Zagoruyko and Komodakis 2017); an alternative reading of Auto-KD's attention",
)
def attention_map(student: Tensor, teacher: Tensor) -> Pairs:
    """Replace each side by its own attention map Σ_c f² / ‖Σ_c f²‖ [N, 1, H, W]."""
    return [(_attention_map(student), _attention_map(teacher))]


def _attention_map(x: Tensor) -> Tensor:
    # The map does not depend on the scale of a sample; dividing it out first keeps the squares in range.
    scaled = x / x.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(EPS)
    energy = scaled.square().sum(1, keepdim=True)
    return unit(energy.flatten(1)).view_as(energy)


@transform(
    "mask",
    takes=("map", "matrix"),
    stage="global",
    random=True,
    needs_equal_width=True,
    source="Auto-KD, Table 1 and Fig. 3 (Mask-C, Mask-H×W); UniADS, Table 1",
    options={"kind": _KIND, "ratio": OptionInfo(0.5, "share that is removed", minimum=0, below=1)},
)
def mask(student: Tensor, teacher: Tensor, *, generator: torch.Generator | None, kind: str, ratio: float) -> Pairs:
    """Set the same random share of positions (or channels) of both sides to zero, afresh at each call.

    What stays is not rescaled. [N, D] loses single entries, whatever the kind. Paper: λ is not given. Here: 0.5.
    """
    keep = draw_shared("mask", student, teacher, generator, kind, ratio)
    return [(student * keep, teacher * keep)]


def draw_shared(
    name: str, student: Tensor, teacher: Tensor, generator: torch.Generator | None, kind: str, ratio: float
) -> Tensor:
    """Draw which entries both sides keep: 1 with probability 1 − `ratio`, else 0.

    Args:
        name: The transform that asks, for error messages.
        student: [N, C, H, W] or [N, D].
        teacher: The same.
        generator: Source of the draw.
        kind: Of maps, what is kept or removed as a whole: `"spatial"` or `"channel"`.
        ratio: Share that is removed.

    Returns:
        [N, 1, H, W], [N, C, 1, 1] or [N, D].
    """
    if generator is None:
        raise ValueError(f"{name!r} draws at random: pass generator=torch.Generator(), so that runs can be repeated.")
    _check_shared(name, student, teacher, kind)
    shape = student.shape
    if student.dim() == 4:
        n, c, h, w = shape
        shape = torch.Size((n, 1, h, w) if kind == "spatial" else (n, c, 1, 1))
    # Drawn where the generator lives: one on the CPU gives the same masks on every device.
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return (drawn >= ratio).to(student.device, student.dtype)


def _check_shared(name: str, student: Tensor, teacher: Tensor, kind: str) -> None:
    """Refuse two sides that one map over positions (or channels, or entries) cannot cover."""
    if student.dim() == 2:
        what, sizes = "widths", slice(1, 2)
    else:
        what, sizes = ("map sizes", slice(2, 4)) if kind == "spatial" else ("numbers of channels", slice(1, 2))
    if student.shape[sizes] != teacher.shape[sizes]:
        raise ValueError(
            f"{name!r} needs equal {what}; got student {tuple(student.shape[sizes])} and teacher "
            f"{tuple(teacher.shape[sizes])}. Align them first (see Adapter)."
        )


@transform(
    "multiscale",
    takes=("map",),
    stage="intra",
    source="Auto-KD, Table 1; the full map is kept as in ReviewKD (Chen et al. 2021)",
    options={"full_map": OptionInfo(True, "whether the unpooled map is one of the scales")},
)
def multiscale(student: Tensor, teacher: Tensor, *, full_map: bool) -> Pairs:
    """Compare average-pooled maps of 1, 1/2 and 1/4 of the size; scales smaller than one cell are left out.

    Paper: H/2 and H/4. Here: also the full map by default, because the methods it cites keep it.
    """
    h, w = student.shape[2:]
    scales = [k for k in ((1, 2, 4) if full_map else (2, 4)) if h // k and w // k]
    if not scales:
        raise ValueError(f"Maps of {h}x{w} have no smaller scale: use full_map=True or tap a larger map.")
    return [(_pooled(student, k), _pooled(teacher, k)) for k in scales]


def _pooled(x: Tensor, k: int) -> Tensor:
    if k == 1:
        return x
    h, w = x.shape[2:]
    if h % k == 0 and w % k == 0:
        return F.avg_pool2d(x, k)
    return F.adaptive_avg_pool2d(x, (h // k, w // k))


@transform(
    "local",
    takes=("map",),
    stage="intra",
    source="Auto-KD, Table 1 (n²·N patches)",
    options={"patches": OptionInfo(2, "number of patches along each side", minimum=2)},
)
def local(student: Tensor, teacher: Tensor, *, patches: int) -> Pairs:
    """Cut maps into n×n patches and fold them into the batch: [N·n², C, H/n, W/n].

    A border that n does not divide is cropped. The paper does not give n.
    """
    h, w = student.shape[2:]
    if patches > min(h, w):
        raise ValueError(f"Maps of {h}x{w} cannot be cut into {patches}x{patches} patches; tap a larger map.")
    return [(_patches(student, patches), _patches(teacher, patches))]


def _patches(x: Tensor, n: int) -> Tensor:
    batch, c, h, w = x.shape
    h, w = h // n, w // n
    x = x[:, :, : n * h, : n * w].reshape(batch, c, n, h, n, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch * n * n, c, h, w)


@transform("sample", takes=("map",), gives="rows", stage="inter", source="Auto-KD, Table 1; SP (Tung and Mori 2019)")
def sample(student: Tensor, teacher: Tensor) -> Pairs:
    """Take each sample of the batch as a row: [1, N, C·H·W]."""
    return [(student.flatten(1)[None], teacher.flatten(1)[None])]


@transform(
    "channel",
    takes=("map",),
    gives="rows",
    stage="inter",
    source="Auto-KD, supplement eq. 4; ICKD (Liu et al. 2021), CWD (Shu et al. 2021)",
    options={
        "mode": OptionInfo(
            "instance",
            "rows of each sample [N, C, H·W], or of the batch [1, C, N·H·W]",
            choices=("instance", "batch"),
        )
    },
)
def channel(student: Tensor, teacher: Tensor, *, mode: str) -> Pairs:
    """Take each channel as a row, per sample or over the batch.

    Paper: Table 1 says C×NHW, the supplement sums over W·H. Here: per sample, which contains ICKD and CWD.
    """
    if mode == "batch":
        return [(student.transpose(0, 1).flatten(1)[None], teacher.transpose(0, 1).flatten(1)[None])]
    return [(student.flatten(2), teacher.flatten(2))]


@transform(
    "zscore",
    takes=("matrix",),
    stage="logit",
    source="logit standardisation (Sun et al. 2024): the scale s of the softmax is 1/τ",
)
def zscore(student: Tensor, teacher: Tensor) -> Pairs:
    """Standardise each row: (z − mean) / (standard deviation + 1e-7), with the unbiased deviation."""
    return [(_zscore(student), _zscore(teacher))]


def _zscore(z: Tensor) -> Tensor:
    z = still_where_constant(z)
    centred = z - z.mean(-1, keepdim=True)
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / math.sqrt(max(z.shape[-1] - 1, 1))
    return centred / (deviation + 1e-7)


@transform("l2norm", takes=("matrix",), stage="logit", source="unit logits; use τ = 1/s with a scale s of 4, 8 or 16")
def l2norm(student: Tensor, teacher: Tensor) -> Pairs:
    """Scale each row to length 1."""
    return [(unit(student), unit(teacher))]
