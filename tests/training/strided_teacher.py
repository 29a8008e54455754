"""A teacher with a closed form: one convolution of stride 2 whose filters are mirror images of themselves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 16  # of the images; they are shifted by -2..2, which is -1..1 on the maps [3, 8, 8]


class StridedTeacher(nn.Module):
    """On even maps a mirrored image has mirrored maps, and a shift by 2 pixels is one by a whole map pixel."""

    def __init__(self, *, bias: bool = False, scale: float = 1.0, seconds: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, kernel_size=2, stride=2, bias=bias)
        self.head = nn.Linear(3 * 8 * 8, 4)
        self.seconds = seconds
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            column = torch.randn(3, 1, 2, 1, generator=draw)
            self.conv.weight.copy_(scale * column.expand(3, 1, 2, 2))
            if self.conv.bias is not None:
                self.conv.bias.fill_(1.0)
            self.head.weight.copy_(torch.randn(4, 192, generator=draw) / (14 * scale))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.head(self.conv(images).flatten(1))


def strided_task(teacher: nn.Module | None = None, **changes: Any) -> Any:
    """A task of 48 images of noise, 16 of them held out; black, which comes in from outside, is 0."""
    from optuna_kd import ImageClassification
    from optuna_kd.models import create_model

    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (48, 1, SIDE, SIDE), generator=draw).to(torch.uint8)
    arguments: dict[str, Any] = {
        "teacher": teacher or StridedTeacher(),
        "student": lambda: create_model("resnet8x0.25", num_classes=4, in_channels=1, input_size=SIDE),
        "train": (images, torch.arange(48) % 4),
        "val_share": 1 / 3,
        "normalize": None,
        "augment": "crop-flip",
        "teacher_layer": "conv",
        "batch_size": 8,
        "views": 3,
        "device": "cpu",
    }
    return ImageClassification(**{**arguments, **changes})


def main(directory: str, seconds: str) -> None:
    """Store the knowledge of a slow teacher on disk; print what is said, and a figure of what came out."""
    from optuna_kd.training.offline import KnowledgeChoices, prepare_knowledge

    teacher = StridedTeacher()
    task = strided_task(teacher)
    teacher.seconds = float(seconds)
    print("ready", flush=True)
    sys.stdin.readline()
    known = prepare_knowledge(task, KnowledgeChoices(mode="replay", directory=Path(directory)), say=print)
    assert known is not None
    print(f"sum {float(known.features.double().sum()):.6f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
