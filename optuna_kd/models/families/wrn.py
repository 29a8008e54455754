"""Wide residual networks: WRN-16-1 to WRN-40-2, and any blocks and widening.

Zagoruyko and Komodakis, "Wide Residual Networks" (2016), basic blocks without dropout. Parameter names
are those of the CRD code (Tian et al. 2020), so its published checkpoints load.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models.blocks import conv1x1, conv3x3, fit_strides, global_average, init_weights
from optuna_kd.models.catalog import Grammar, ModelInfo, register_grammar, register_model


class WideResNet(nn.Module):
    """Three stages of pre-activation blocks at widths 16, 32 and 64, times `widen`.

    Args:
        blocks: Residual blocks in each of the three stages; (2, 2, 2) is depth 16.
        widen: Widening factor k; a fraction makes a network for tiny images.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels; from 16 up the published strides 1, 2, 2.

    Raises:
        ValueError: If there are not three positive numbers of blocks, or a stage has no channel.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widen: float = 1.0,
        *,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        if len(blocks) != 3 or min(blocks) < 1:
            raise ValueError(f"A wide ResNet has three stages of one block or more; got blocks={tuple(blocks)}.")
        widths = [round(base * widen) for base in (16, 32, 64)]
        if widths[0] < 1:
            raise ValueError(f"A wide ResNet widened {widen:g} times has no channels; the smallest is 0.0625.")
        strides = fit_strides((1, 2, 2), input_size)
        stem = min(16, widths[0])  # the published stem has 16 channels at any widening; narrow ones scale it too
        self.conv1 = conv3x3(in_channels, stem)
        self.block1 = Stage(stem, widths[0], blocks[0], strides[0])
        self.block2 = Stage(widths[0], widths[1], blocks[1], strides[1])
        self.block3 = Stage(widths[1], widths[2], blocks[2], strides[2])
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


def _info(name: str, blocks: tuple[int, int, int], widen: float) -> ModelInfo:
    factory = functools.partial(WideResNet, blocks, widen)
    return ModelInfo(name, "wrn", factory, f"wide ResNet with {blocks} blocks, widened {widen:g} times")


def _read(match: re.Match[str]) -> ModelInfo:
    widen = float(match["widen"])
    if match["first"]:
        return _info(match[0], (int(match["first"]), int(match["second"]), int(match["third"])), widen)
    depth = int(match["depth"])
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"A wide ResNet is wrn_{{6n+4}}_{{k}} with n and k from 1 (wrn_16_2, wrn_40_1, ...); got depth {depth}."
        )
    blocks = (depth - 4) // 6
    return _info(match[0], (blocks, blocks, blocks), widen)


register_grammar(
    Grammar(
        "wrn",
        "wrn_{6n+4}_{k}, or wrn_{b1}_{b2}_{b3}_{k} by blocks in each stage",
        re.compile(r"wrn_?(?:(?P<first>\d+)_(?P<second>\d+)_(?P<third>\d+)|(?P<depth>\d+))_(?P<widen>\d+(?:\.\d+)?)"),
        _read,
    )
)
for _depth, _widen in ((16, 1), (16, 2), (40, 1), (40, 2)):
    _blocks = (_depth - 4) // 6
    register_model(_info(f"wrn_{_depth}_{_widen}", (_blocks, _blocks, _blocks), _widen))
