"""What a network costs where it runs: parameters, FLOPs and latency."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from optuna_kd.models.modes import device_of, evaluating


def count_flops(model: nn.Module, example: Tensor) -> int:
    """Count the floating-point operations of one image: two for each multiplication with addition.

    Args:
        model: The model; its modes are restored.
        example: Images [N, C, H, W] or one image [C, H, W] of the right size; the first is used.
    """
    image = (example if example.dim() == 4 else example.unsqueeze(0))[:1].to(device_of(model))
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        model(image)
    return int(counter.get_total_flops())
