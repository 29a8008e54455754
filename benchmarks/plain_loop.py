"""A training step of distillation as the public repositories write it: what `throughput.py` compares with.

After the loops of RepDistiller (Tian et al. 2020) and mdistiller (Zhao et al. 2022): a data set of PIL images behind a
`DataLoader` with torchvision's transforms, the teacher in evaluation mode under `no_grad`, cross-entropy plus KL at
temperature 4 plus the squared distance of the last maps, SGD with momentum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from optuna_kd.data import ImageSet, Normalizer
from optuna_kd.models.families.resnet import ResNet

TEMPERATURE = 4.0
PADDING = 4


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images as arrays that become PIL images one by one, like torchvision's `CIFAR10`.

    Args:
        images: uint8, [N, 3, H, W].
        normalizer: Of the networks.
    """

    def __init__(self, images: ImageSet, normalizer: Normalizer) -> None:
        self.arrays = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        self.targets = images.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[1:], padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(normalizer.mean, normalizer.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.targets[index]


def load_batches(images: PilImages, batch_size: int, batches: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give shuffled batches; the worker processes end with the last one, or when the iterator is let go."""
    # One long epoch: the start of the workers, which an epoch of a whole data set makes up for, is not to count.
    sampler = RandomSampler(images, num_samples=batches * batch_size)
    pin = torch.cuda.is_available()
    return iter(DataLoader(images, batch_size, sampler=sampler, num_workers=workers, pin_memory=pin, drop_last=True))


class WithMaps(nn.Module):
    """A ResNet that gives its last maps too, as the published ones do when asked for features."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Give maps [N, C, H, W] and logits [N, K]."""
        network = self.network
        maps = F.relu(network.bn1(network.conv1(images)), inplace=True)
        maps = network.layer3(network.layer2(network.layer1(maps)))
        return maps, network.fc(maps.mean((2, 3)))


class PlainLoop:
    """The loop's models, losses and optimiser.

    Maps of equal width are compared as they are: no adapter is trained, here as in `StudentTraining`.
    """

    def __init__(self, teacher: ResNet, student: ResNet, *, lr: float, weight_decay: float) -> None:
        self.device = next(student.parameters()).device
        self.teacher, self.student = WithMaps(teacher).eval(), WithMaps(student).train()
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)
        self.cross_entropy, self.squared = nn.CrossEntropyLoss(), nn.MSELoss()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of prepared images [B, C, H, W]."""
        student_maps, student_logits = self.student(images)
        with torch.no_grad():
            teacher_maps, teacher_logits = self.teacher(images)
        log_p = F.log_softmax(student_logits / TEMPERATURE, dim=1)
        q = F.softmax(teacher_logits / TEMPERATURE, dim=1)
        divergence = F.kl_div(log_p, q, reduction="batchmean") * TEMPERATURE**2
        return self.cross_entropy(student_logits, labels) + divergence + self.squared(student_maps, teacher_maps)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Train on one batch; give the loss, as the loops read it off for their meters."""
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
