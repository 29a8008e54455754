"""How a model lies in memory, and how long it takes on one CPU core."""

from __future__ import annotations

import copy
import math
import time

import torch
from torch import Tensor, nn

from optuna_kd.models.modes import device_of, evaluating

SAFE_CHANNELS = 8


def memory_format(model: nn.Module, device: torch.device | str) -> torch.memory_format:
    """Choose the layout in which a model trains fast and safely: channels-last wherever it may.

    Channels-last convolutions are 1.2 to 1.4 times as fast on a CPU. But with torch 2.13 and 2.15, on some
    CPUs, training a strided 1x1 convolution with fewer than 7 input channels in that layout corrupts the
    heap: the shortcut of a very narrow ResNet. Such models keep the default layout, with a margin: fewer
    than 8 channels in a group, coming in or going out.

    Args:
        model: The model as it will be trained.
        device: Where it will be trained.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    kind = torch.device(device).type
    if not convolutions or kind not in ("cpu", "cuda"):
        return torch.contiguous_format
    if kind == "cpu" and any(_is_fragile(convolution) for convolution in convolutions):
        return torch.contiguous_format
    return torch.channels_last


def latency_ms(model: nn.Module, example: Tensor, *, repeats: int = 30, seconds: float = 0.2) -> float:
    """Measure the time of a forward pass of one image on one CPU thread, in milliseconds: the fastest of some.

    The fastest, because what else the machine does only ever adds to it.

    Args:
        model: The model; one on another device is copied to the CPU. Modes and thread count are restored.
        example: Images [N, C, H, W] or one image [C, H, W] of the right size; the first is used.
        repeats: Number of timed passes at least, after three to warm up.
        seconds: How long they take at least altogether, to outlast a short burst of other work.

    Raises:
        ValueError: If `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is the number of timed passes, 1 or more; got {repeats}.")
    if device_of(model).type != "cpu":
        model = copy.deepcopy(model).cpu()
    image = (example if example.dim() == 4 else example.unsqueeze(0))[:1].cpu()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(model):
            for _ in range(3):
                model(image)
            fastest, began = math.inf, time.perf_counter()
            while repeats > 0 or time.perf_counter() - began < seconds:
                fastest, repeats = min(fastest, _time(model, image)), repeats - 1
            return fastest * 1000
    finally:
        torch.set_num_threads(threads)


def _time(model: nn.Module, image: Tensor) -> float:
    start = time.perf_counter()
    model(image)
    return time.perf_counter() - start


def _is_fragile(convolution: nn.Conv2d) -> bool:
    strided = max(convolution.stride) > 1 and tuple(convolution.kernel_size) == (1, 1)
    fewest = min(convolution.in_channels, convolution.out_channels) // convolution.groups
    return strided and fewest < SAFE_CHANNELS
