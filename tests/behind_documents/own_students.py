"""Data, a teacher and networks of somebody's own, and a search that is small where the block leaves it open."""

import functools

import sklearn.datasets
import torch
from torch import nn

import optuna_kd
from optuna_kd.models import create_model

digits = sklearn.datasets.load_digits()
images, labels = (digits.images * 15).astype("uint8"), digits.target
train_set, test_set = (images[:200], labels[:200]), (images[200:300], labels[200:300])

torch.manual_seed(0)
teacher = create_model("resnet8", num_classes=10, in_channels=1, input_size=8)
pixels = torch.from_numpy(train_set[0]).float()[:, None]
pixels = (pixels - pixels.mean()) / pixels.std()
optimizer = torch.optim.SGD(teacher.parameters(), lr=0.1, momentum=0.9)
for _ in range(40):
    loss = nn.functional.cross_entropy(teacher(pixels), torch.from_numpy(train_set[1]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


class MyNet(nn.Sequential):
    """Any network with maps to compare."""

    def __init__(self, channels: int, blocks: int) -> None:
        layers = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
        for _ in range(blocks):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


proxy = optuna_kd.ProxyConfig(epochs=2)
optuna_kd.search = functools.partial(optuna_kd.search, trials=2, proxy=proxy, epochs=1, seeds=1, confirm=0)
