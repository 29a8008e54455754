"""What makes a training a proxy: a smaller student, and some of the images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optuna_kd.data import class_subset, stratified_subset
from optuna_kd.models import evaluating
from optuna_kd.recipe import ProxyConfig
from optuna_kd.rewards import MinibatchCKA
from optuna_kd.seeds import derive_seed
from optuna_kd.training.narrow import narrow_student
from optuna_kd.training.task import ImageClassification


def proxy_student(task: ImageClassification, proxy: ProxyConfig, seed: int) -> tuple[nn.Module, tuple[int, int, int]]:
    """Create the student of a proxy; give it with the shape (C, H, W) of its tapped map.

    Raises:
        ValueError: If it cannot be narrowed, as the proxy has it.
        ImportError: If torch-pruning is missing for that.
    """
    student = task.make_student(derive_seed(seed, "student"))
    if proxy.narrow == 1:
        return student, task.student_layer.shape
    image = torch.zeros(2, *task.image_shape)
    student = narrow_student(student, proxy.narrow, example=image, seed=derive_seed(seed, "narrow"))
    with evaluating(student), torch.no_grad(), task.observe(student) as observer:
        channels, height, width = observer(image).features[0].shape[1:]
    return student, (channels, height, width)


def proxy_images(task: ImageClassification, proxy: ProxyConfig) -> tuple[Tensor, Tensor]:
    """Choose the training and validation images of a proxy.

    They are the same for every trial of a task, so that recipes are compared and not subsets. A proxy on
    some of the classes is judged on these classes alone.
    """
    train, val = torch.arange(len(task.train_set)), torch.arange(len(task.val_set))
    if proxy.subset == 1:
        return train, val
    seed = derive_seed("proxy subset")
    if proxy.subset_by == "images":
        return torch.as_tensor(stratified_subset(task.train_set.labels, proxy.subset, seed)), val
    train = torch.as_tensor(class_subset(task.train_set.labels, proxy.subset, seed))
    val = val[torch.isin(task.val_set.labels, task.train_set.labels[train].unique())]
    if len(val) < MinibatchCKA.MINIMUM:
        raise ValueError(
            f"A proxy on {proxy.subset:g} of the classes leaves {len(val)} validation images; at least "
            f"{MinibatchCKA.MINIMUM} are needed. Use a larger subset."
        )
    return train, val
