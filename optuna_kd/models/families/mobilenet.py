"""MobileNetV2 for small images, at half width.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), with the settings of the
CRD code (Tian et al. 2020): expansion 6, width 0.5, strides for 32x32. Its parameter names are kept.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from optuna_kd.models.blocks import MIN_MAP, conv1x1, conv3x3, fit_strides, global_average, init_weights
from optuna_kd.models.catalog import ModelInfo, register_model

# Expansion, channels at full width, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals and a 1x1 convolution to 1280 channels.

    Images of 32x32 and more get the published strides, which end on a map of 2x2 for 32x32; smaller
    images keep theirs at 4x4.

    Args:
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels.
        width: Multiplies the channels of all layers but the last.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3, input_size: int = 32, width: float = 0.5) -> None:
        super().__init__()
        published = (2, *(stride for *_, stride in STAGES))
        strides = fit_strides(published, input_size, min_map=2 if input_size >= 32 else MIN_MAP)
        widths = [int(32 * width), *(int(channels * width) for _, channels, _, _ in STAGES)]
        self.conv1 = nn.Sequential(conv3x3(in_channels, widths[0], strides[0]), *_normalised(widths[0]))
        self.blocks = nn.ModuleList(
            _stage(before, after, blocks, stride, expansion)
            for (expansion, _, blocks, _), (before, after), stride in zip(
                STAGES, itertools.pairwise(widths), strides[1:], strict=True
            )
        )
        last = max(1280, int(1280 * width))
        self.conv2 = nn.Sequential(conv1x1(widths[-1], last), *_normalised(last))
        self.classifier = nn.Sequential(nn.Linear(last, num_classes))
        init_weights(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = self.conv1(images)
        for stage in self.blocks:
            maps = stage(maps)
        return self.classifier(global_average(self.conv2(maps)))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            conv1x1(in_channels, inner),  # there even where nothing expands: the published count has it
            *_normalised(inner),
            conv3x3(inner, inner, stride, groups=inner),
            *_normalised(inner),
            conv1x1(inner, out_channels),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C_in, H, W] to [N, C_out, H / stride, W / stride]."""
        return maps + self.conv(maps) if self.shortcut else self.conv(maps)


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int, expansion: int) -> nn.Sequential:
    first = InvertedResidual(in_channels, out_channels, stride, expansion)
    rest = (InvertedResidual(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


register_model(
    ModelInfo("mobilenetv2", "mobilenet", MobileNetV2, "MobileNetV2 at half width for small images"),
    "mobile_half",
)
