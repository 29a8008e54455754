"""What the model families share: strides that fit small images, and the initial weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MIN_INPUT = 8
MIN_MAP = 4


def fit_strides(strides: Sequence[int], input_size: int, *, min_map: int = MIN_MAP) -> tuple[int, ...]:
    """Keep each stride, from the first to the last, only while the map it makes is large enough.

    A distiller compares maps in space; below 4x4 several of its operations have nothing to compare. So an
    image of 8x8 is halved once, where one of 32x32 gets the published strides.

    Args:
        strides: Published strides in the order of the forward pass; a stride halves a side, rounding up.
        input_size: Shorter side of the images, in pixels.
        min_map: Shortest side that a map may have.

    Returns:
        As many strides, the ones that would go below `min_map` replaced by 1.

    Raises:
        ValueError: If the images are smaller than 8x8.
    """
    if input_size < MIN_INPUT:
        raise ValueError(
            f"Images of {input_size}x{input_size} are too small: the networks need {MIN_INPUT}x{MIN_INPUT} "
            "or more. Enlarge or pad the images."
        )
    side, kept = input_size, []
    for stride in strides:
        smaller = -(-side // stride)
        kept.append(stride if smaller >= min_map else 1)
        side = smaller if smaller >= min_map else side
    return tuple(kept)


def init_weights(model: nn.Module, *, linear_std: float | None = None) -> None:
    """Set the initial weights used throughout the CIFAR distillation literature.

    Convolutions get Kaiming normal weights by fan-out (He et al. 2015) and no bias, batch normalisation
    starts as the identity.

    Args:
        model: The network, changed in place.
        linear_std: Standard deviation of the classifier's weights, with a zero bias; None leaves it as
            torch made it.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
            nn.init.zeros_(module.bias)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (at stride 1), without a bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without a bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, groups=groups, bias=False)


def global_average(maps: Tensor) -> Tensor:
    """Average maps [N, C, H, W] over space to [N, C]."""
    return maps.mean(dim=(2, 3))


def shuffle_channels(maps: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups, so that the next grouped layer mixes them."""
    return torch.flatten(maps.unflatten(1, (groups, -1)).transpose(1, 2), 1, 2)
