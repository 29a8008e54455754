"""ShuffleNet V1 and V2 for small images.

Zhang et al., "ShuffleNet" (2018), 3 groups, and Ma et al., "ShuffleNet V2" (2018), width 1, both with the
1x1 stem and without the first pooling, as in the CRD code (Tian et al. 2020), whose parameter names are
kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models.blocks import (
    conv1x1,
    conv3x3,
    fit_strides,
    global_average,
    init_weights,
    shuffle_channels,
)
from optuna_kd.models.catalog import ModelInfo, register_model

STEM = 24
GROUPS_V1 = 3
WIDTHS_V1 = (240, 480, 960)
BLOCKS_V1 = (4, 8, 4)
WIDTHS_V2 = (116, 232, 464)
BLOCKS_V2 = (4, 8, 4)
LAST_V2 = 1024


class ShuffleNetV1(nn.Module):
    """Three stages of grouped bottlenecks with a channel shuffle, ending on 960 channels.

    Args:
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels; from 32 up the published strides 2, 2, 2.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3, input_size: int = 32) -> None:
        super().__init__()
        strides = fit_strides((2, 2, 2), input_size)
        before = (STEM, *WIDTHS_V1)
        self.conv1 = conv1x1(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                # The first block of a stage concatenates its input, so it computes only the difference.
                BottleneckV1(before[i], WIDTHS_V1[i] - before[i], strides[i], concatenate=True),
                *(BottleneckV1(WIDTHS_V1[i], WIDTHS_V1[i], 1) for _ in range(BLOCKS_V1[i] - 1)),
            )
            for i in range(3)
        )
        self.linear = nn.Linear(WIDTHS_V1[-1], num_classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.linear(global_average(self.layer3(self.layer2(self.layer1(maps)))))


class BottleneckV1(nn.Module):
    """Grouped 1x1, shuffle, 3x3 by channel, grouped 1x1; the input is added, or concatenated."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, concatenate: bool = False) -> None:
        super().__init__()
        inner = out_channels // 4
        self.groups = 1 if in_channels == STEM else GROUPS_V1  # the stem's channels are too few to split
        self.concatenate = concatenate
        self.conv1 = conv1x1(in_channels, inner, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, out_channels, groups=GROUPS_V1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1) if stride != 1 else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out (+ C_in), H / stride, W / stride]."""
        out = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        out = self.conv2(shuffle_channels(out, self.groups))
        # Paper: no activation after the 3x3. Here: one, because the CIFAR code that set the published
        # accuracies has it.
        out = F.relu(self.bn2(out), inplace=True)
        out = self.bn3(self.conv3(out))
        shortcut = self.pool(maps)
        return F.relu(torch.cat([out, shortcut], dim=1) if self.concatenate else out + shortcut)


class ShuffleNetV2(nn.Module):
    """Three stages of split-and-shuffle units and a 1x1 convolution to 1024 channels.

    Args:
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels; from 32 up the published strides 2, 2, 2.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3, input_size: int = 32) -> None:
        super().__init__()
        strides = fit_strides((2, 2, 2), input_size)
        before = (STEM, *WIDTHS_V2)
        self.conv1 = conv1x1(in_channels, STEM)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                DownUnitV2(before[i], WIDTHS_V2[i], strides[i]),
                *(UnitV2(WIDTHS_V2[i]) for _ in range(BLOCKS_V2[i] - 1)),
            )
            for i in range(3)
        )
        self.conv2 = conv1x1(WIDTHS_V2[-1], LAST_V2)
        self.bn2 = nn.BatchNorm2d(LAST_V2)
        # A module, so that the map which is averaged into the embedding can be tapped by name.
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(LAST_V2, num_classes)
        init_weights(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = F.relu(self.bn1(self.conv1(images)), inplace=True)
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.linear(global_average(self.relu(self.bn2(self.conv2(maps)))))


class UnitV2(nn.Module):
    """Half of the channels pass, the other half is filtered; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        passed, out = maps.chunk(2, dim=1)
        out = F.relu(self.bn1(self.conv1(out)), inplace=True)
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)), inplace=True)
        return shuffle_channels(torch.cat([passed, out], dim=1), 2)


class DownUnitV2(nn.Module):
    """Both halves come from the whole input, filtered and made smaller on two paths."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = conv3x3(in_channels, in_channels, stride, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv3x3(half, half, stride, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(maps)))), inplace=True)
        right = F.relu(self.bn3(self.conv3(maps)), inplace=True)
        right = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))), inplace=True)
        return shuffle_channels(torch.cat([left, right], dim=1), 2)


register_model(
    ModelInfo("shufflenetv1", "shufflenet", ShuffleNetV1, "ShuffleNet V1 with 3 groups for small images"),
    "shufflev1",
    "shufflenet_v1",
)
register_model(
    ModelInfo("shufflenetv2", "shufflenet", ShuffleNetV2, "ShuffleNet V2 at width 1 for small images"),
    "shufflev2",
    "shufflenet_v2",
)
