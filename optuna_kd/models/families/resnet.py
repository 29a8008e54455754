"""Residual networks for small images: ResNet-8 to ResNet-110, wide and narrow.

He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2, in the form that the
distillation literature uses since CRD (Tian et al. 2020): projection shortcuts, a fixed stem. Parameter
names are those of that code, so its published checkpoints load.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models.blocks import conv1x1, conv3x3, fit_strides, global_average, init_weights
from optuna_kd.models.catalog import Grammar, ModelInfo, register_grammar, register_model


class ResNet(nn.Module):
    """Three stages of basic blocks at widths 16, 32 and 64, times `width`.

    Args:
        blocks: Residual blocks in each of the three stages; (3, 3, 3) is ResNet-20.
        width: Multiplies the channels; a fraction makes a network for tiny images.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels; from 16 up the published strides 1, 2, 2.

    Raises:
        ValueError: If there are not three positive numbers of blocks, or a stage has no channel.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        width: float = 1.0,
        *,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 32,
    ) -> None:
        super().__init__()
        if len(blocks) != 3 or min(blocks) < 1:
            raise ValueError(f"A ResNet has three stages of one block or more; got blocks={tuple(blocks)}.")
        widths = [round(base * width) for base in (16, 32, 64)]
        if widths[0] < 1:
            raise ValueError(f"A ResNet of width {width:g} has no channels; the smallest is 0.0625.")
        strides = fit_strides((1, 2, 2), input_size)
        # The published x4 networks widen the stages and stop the stem at 32; narrow ones scale it too.
        stem = min(widths[0], 32)
        self.conv1 = conv3x3(in_channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, widths[0], blocks[0], strides[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1], strides[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2], strides[2])
        self.fc = nn.Linear(widths[2], num_classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.fc(global_average(self.layer3(self.layer2(self.layer1(maps)))))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        return F.relu(self.bn2(self.conv2(maps)) + shortcut)


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _info(name: str, blocks: tuple[int, int, int], width: float) -> ModelInfo:
    factory = functools.partial(ResNet, blocks, width)
    return ModelInfo(name, "resnet", factory, f"ResNet with {blocks} blocks, widths times {width:g}")


def _read(match: re.Match[str]) -> ModelInfo:
    width = float(match["width"] or 1)
    if match["first"]:
        return _info(match[0], (int(match["first"]), int(match["second"]), int(match["third"])), width)
    depth = int(match["depth"])
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(
            f"There is no {match[0]!r}: the depth of a ResNet for small images is 6n+2 (8, 14, 20, ...); "
            f"got {depth}. Networks for large images come from torchvision: resnet18, resnet34, resnet50."
        )
    blocks = (depth - 2) // 6
    return _info(match[0], (blocks, blocks, blocks), width)


_PATTERN = re.compile(
    # torchvision's names are left to it; with a width ("resnet50x2") the name is ours again.
    r"resnet(?!(?:18|34|50|101|152)$)"
    r"(?:(?P<first>\d+)_(?P<second>\d+)_(?P<third>\d+)|(?P<depth>\d+))"
    r"(?:_?x(?P<width>\d+(?:\.\d+)?))?"
)

register_grammar(
    Grammar(
        "resnet",
        "resnet{6n+2}[x{width}], or resnet{b1}-{b2}-{b3}[x{width}] by blocks in each stage",
        _PATTERN,
        _read,
    )
)
for _depth in (8, 14, 20, 32, 44, 56, 110):
    _blocks = (_depth - 2) // 6
    register_model(_info(f"resnet{_depth}", (_blocks, _blocks, _blocks), 1.0))
for _depth in (8, 32):
    _blocks = (_depth - 2) // 6
    register_model(_info(f"resnet{_depth}x4", (_blocks, _blocks, _blocks), 4.0))
