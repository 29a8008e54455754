"""Wide residual networks: WRN-16-1 to WRN-40-2.

Zagoruyko and Komodakis, "Wide Residual Networks" (2016), basic blocks without dropout. Parameter names
are those of the CRD code (Tian et al. 2020), so its published checkpoints load.
"""

from __future__ import annotations

import functools
import re

from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models.blocks import conv1x1, conv3x3, fit_strides, global_average, init_weights
from optuna_kd.models.catalog import Grammar, ModelInfo, register_grammar, register_model


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks at widths 16, 32 and 64, times `widen`.

    Args:
        depth: 6n+4, for n blocks in each stage.
        widen: Widening factor k.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels; from 16 up the published strides 1, 2, 2.

    Raises:
        ValueError: If the depth is not 6n+4.
    """

    def __init__(self, depth: int, widen: int, *, num_classes: int, in_channels: int = 3, input_size: int = 32) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or widen < 1:
            raise ValueError(
                f"A wide ResNet is wrn_{{6n+4}}_{{k}} with n and k from 1 (wrn_16_2, wrn_40_1, ...); "
                f"got depth {depth} and widening {widen}."
            )
        blocks = (depth - 4) // 6
        widths = [16 * widen, 32 * widen, 64 * widen]
        strides = fit_strides((1, 2, 2), input_size)
        self.conv1 = conv3x3(in_channels, 16)
        self.block1 = Stage(16, widths[0], blocks, strides[0])
        self.block2 = Stage(widths[0], widths[1], blocks, strides[1])
        self.block3 = Stage(widths[1], widths[2], blocks, strides[2])
        self.bn1 = nn.BatchNorm2d(widths[2])
        # A module, so that the map which is averaged into the embedding can be tapped by name.
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(widths[2], num_classes)
        init_weights(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(global_average(self.relu(self.bn1(maps))))


class Stage(nn.Module):
    """Blocks of one width, the first of them with the stride."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, out_channels, stride)
        rest = (PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        return self.layer(maps)


class PreActivationBlock(nn.Module):
    """Normalise, activate, convolve, twice; the projection shortcut starts after the first activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        # Named as in the published checkpoints.
        self.convShortcut = (
            conv1x1(in_channels, out_channels, stride) if stride != 1 or in_channels != out_channels else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        active = F.relu(self.bn1(maps), inplace=True)
        shortcut = maps if self.convShortcut is None else self.convShortcut(active)
        return self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True)) + shortcut


def _info(depth: int, widen: int) -> ModelInfo:
    factory = functools.partial(WideResNet, depth, widen)
    return ModelInfo(f"wrn_{depth}_{widen}", "wrn", factory, f"wide ResNet of depth {depth}, widened {widen} times")


register_grammar(
    Grammar(
        "wrn",
        "wrn_{6n+4}_{k}",
        re.compile(r"wrn_?(?P<depth>\d+)_(?P<widen>\d+)"),
        lambda match: _info(int(match["depth"]), int(match["widen"])),
    )
)
for _depth, _widen in ((16, 1), (16, 2), (40, 1), (40, 2)):
    register_model(_info(_depth, _widen))
