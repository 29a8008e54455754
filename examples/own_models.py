"""A teacher from torchvision and a student class of your own, on any data set of (image, label).

Nothing has to be registered or subclassed: the layers whose maps are compared are found by a dry run, and
adapters make their shapes match during the training. The one thing to get right is `normalize`: it has to be
what the teacher was trained with.
"""

from __future__ import annotations

import optuna
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import optuna_kd

MEAN, STD = (0.3, 0.3, 0.3), (0.35, 0.35, 0.35)


class TinyNet(nn.Module):
    """Three convolutions: the student."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to logits [N, 10]."""
        return self.head(self.last(self.body(self.stem(images))).mean((2, 3)))


def rgb_digits() -> tuple[TensorDataset, TensorDataset]:
    """The digits as colour images of 32x32, floats in [0, 1]."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(digits.target)
    return TensorDataset(images[:800], labels[:800]), TensorDataset(images[800:1100], labels[800:1100])


def train_teacher(train: TensorDataset) -> nn.Module:
    """An ordinary training, as it may have happened long ago and elsewhere."""
    torch.manual_seed(0)
    teacher = torchvision.models.resnet18(num_classes=10)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    for _ in range(3):
        for images, labels in DataLoader(train, batch_size=64, shuffle=True):
            loss = F.cross_entropy(teacher((images - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return teacher


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    train, test = rgb_digits()
    task = optuna_kd.ImageClassification(
        train_teacher(train),
        TinyNet,
        train,
        test=test,
        normalize=(MEAN, STD),
        augment="none",  # digits must not be mirrored
        batch_size=64,
    )
    print("compared   ", task.layers())
    study = optuna_kd.create_study(storage=None, seed=0)
    study.optimize(optuna_kd.DistillationObjective(task, proxy=optuna_kd.ProxyConfig(epochs=4)), n_trials=4)
    result = optuna_kd.distill(task, optuna_kd.best_recipe(study), epochs=15, seeds=1)
    print(result)

    student = TinyNet()
    student.load_state_dict(result.student.state_dict())  # a plain TinyNet: nothing of the distillation is left
    print("parameters ", sum(parameter.numel() for parameter in student.parameters()))
