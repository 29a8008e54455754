"""The optimizer of a training, and the course of its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from optuna_kd.training.task import ImageClassification

WARMUP_STEPS = 0.1  # share of the first cycle over which the learning rate rises


def create_optimizer(task: ImageClassification, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Create the optimizer that a task asks for."""
    if task.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=task.weight_decay, fused=True)
    sgd = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=task.weight_decay, fused=True)
    # A term whose weight rises from zero brings its adapter in at a later step, and the fused step takes either
    # all buffers or none. A buffer of zeros is what the first step starts from anyway.
    for parameter in parameters:
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def learning_rate(peak: float, done: float, cycle: tuple[int, int]) -> float:
    """Give the learning rate at some point of a cosine cycle; the first cycle begins with a rise.

    Args:
        peak: The highest.
        done: Epochs that are over, with their fraction.
        cycle: The first epoch, and the one after the last.
    """
    start, end = cycle
    share = (done - start) / (end - start)
    rise = WARMUP_STEPS if start == 0 else 0.0
    factor = share / rise if share < rise else 0.5 * (1 + math.cos(math.pi * (share - rise) / (1 - rise)))
    # Never zero: the very first step has to move the student.
    return peak * max(factor, 0.01)
