"""DIR: a CIFAR-10 of a few images, and a few more in folders; and a teacher for these.

Some images are dark and some are bright: that is learned in the few steps that there are.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from optuna_kd.models import create_model

draw = np.random.default_rng(0)


def draw_images(count: int) -> np.ndarray:
    """Dark and bright ones in turn: uint8 [count, 32, 32, 3]."""
    brightness = np.where(np.arange(count) % 2, 160, 90)[:, None, None, None]
    return (brightness + draw.integers(-80, 80, size=(count, 32, 32, 3))).astype(np.uint8)


cifar = Path("DIR/cifar-10-batches-bin")
cifar.mkdir(parents=True)
for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
    labels = np.arange(20, dtype=np.uint8)[:, None] % 2
    (cifar / f"{name}.bin").write_bytes(np.hstack([labels, draw_images(20).reshape(20, -1)]).tobytes())

for part, count in (("train", 40), ("test", 8)):
    for number, image in enumerate(draw_images(count)):
        folder = Path("DIR", part, "bright" if number % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")

torch.manual_seed(0)
teacher = create_model("resnet18", num_classes=2, in_channels=3, input_size=32)
optimizer = torch.optim.SGD(teacher.parameters(), lr=0.01, momentum=0.9)
for _ in range(20):
    images = torch.from_numpy((draw_images(16) - 125.0) / 58).float().movedim(3, 1)
    # Folders are classes in the order of their names: bright is class 0.
    loss = torch.nn.functional.cross_entropy(teacher(images), 1 - torch.arange(16) % 2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(teacher.state_dict(), "teacher.pt")
