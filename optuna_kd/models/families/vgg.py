"""VGG for small images, with batch normalisation: VGG-8 to VGG-19.

Simonyan and Zisserman, "Very Deep Convolutional Networks" (2015), with the hidden fully connected layers
replaced by global pooling, as in the CRD code (Tian et al. 2020), whose parameter names are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import Tensor, nn

from optuna_kd.models.blocks import fit_strides, global_average, init_weights
from optuna_kd.models.catalog import ModelInfo, register_model

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, a pooling between two of them while the map stays at least 4x4.

    Images of 32x32 are pooled three times and images of 64x64 four times, as published.

    Args:
        convolutions: Number of convolutions in each of the five stages.
        num_classes: Size of the output.
        in_channels: Channels of the images.
        input_size: Shorter side of the images in pixels.
    """

    def __init__(
        self, convolutions: Sequence[int], *, num_classes: int, in_channels: int = 3, input_size: int = 32
    ) -> None:
        super().__init__()
        sizes = zip(convolutions, (in_channels, *WIDTHS), WIDTHS, strict=False)
        self.block0, self.block1, self.block2, self.block3, self.block4 = (
            _stage(count, before, after) for count, before, after in sizes
        )
        # Rounding up changes nothing at the published sizes and keeps the border of odd ones.
        self.pool0, self.pool1, self.pool2, self.pool3 = (
            nn.MaxPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
            for stride in fit_strides((2, 2, 2, 2), input_size)
        )
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        init_weights(self, linear_std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to logits [N, K]."""
        maps = self.pool0(self.block0(images))
        maps = self.pool1(self.block1(maps))
        maps = self.pool2(self.block2(maps))
        maps = self.pool3(self.block3(maps))
        return self.classifier(global_average(self.block4(maps)))


def _stage(convolutions: int, in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        # The bias is idle before batch normalisation; the published parameter counts include it.
        conv = nn.Conv2d(in_channels if index == 0 else out_channels, out_channels, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


for _depth, _convolutions in CONVOLUTIONS.items():
    register_model(
        ModelInfo(
            f"vgg{_depth}",
            "vgg",
            functools.partial(VGG, _convolutions),
            f"VGG-{_depth} with batch normalisation for small images",
        )
    )
