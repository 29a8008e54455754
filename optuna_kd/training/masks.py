"""Masks of sparse training: how many weights each layer keeps, which ones at first, and which ones next.

Pure functions, after Evci et al., "Rigging the Lottery: Making All Tickets Winners" (ICML 2020), called RigL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def erk_densities(shapes: Sequence[torch.Size], density: float) -> list[float]:
    """Spread an overall density over layers by Erdős-Rényi-Kernel (Evci et al. 2020, section 3).

    Args:
        shapes: Of the weights, [outputs, inputs, *kernel].
        density: Overall, in (0, 1].

    Returns:
        ε · (sum of the sides) / (product of the sides) for each layer, at most 1; ε is such that the layers together
        have the overall density.
    """
    sizes = [shape.numel() for shape in shapes]
    scores = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    capped: set[int] = set()
    while len(capped) < len(shapes):
        free = [i for i in range(len(shapes)) if i not in capped]
        budget = density * sum(sizes) - sum(sizes[i] for i in capped)
        epsilon = budget / sum(scores[i] * sizes[i] for i in free)
        # Layers that are full leave more for the others, so ε only rises and what is full once stays full.
        full = {i for i in free if epsilon * scores[i] > 1}
        if not full:
            return [1.0 if i in capped else epsilon * scores[i] for i in range(len(shapes))]
        capped |= full
    return [1.0] * len(shapes)


def apportion(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Round the number of active weights of each layer so that their sum is right; each layer keeps at least one.

    Args:
        sizes: Weights of each layer.
        shares: Density of each layer, in (0, 1].
    """
    wanted = [size * share for size, share in zip(sizes, shares, strict=True)]
    counts = [math.floor(number) for number in wanted]
    remainders = sorted(range(len(sizes)), key=lambda i: counts[i] - wanted[i])
    for i in remainders[: round(sum(wanted)) - sum(counts)]:
        counts[i] += 1
    # A layer without a weight would cut the network in two; at extreme sparsity this exceeds the sum.
    return [max(1, min(size, count)) for size, count in zip(sizes, counts, strict=True)]


def draw_mask(weight: Tensor, count: int, seed: int) -> Tensor:
    """Draw a mask at random.

    Args:
        weight: Gives the shape, dtype, device and memory format.
        count: Number of ones; the rest are zeros.
        seed: Of the draw, which is made on the CPU whatever the device.
    """
    order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(weight.numel(), dtype=torch.bool)
    chosen[order[:count]] = True
    return torch.empty_like(weight, requires_grad=False).copy_(chosen.view(weight.shape))


def move_mask(active: Tensor, weight: Tensor, gradient: Tensor, count: int) -> Tensor:
    """Drop the active weights that are smallest, then add as many where the gradient is largest.

    What was dropped may come back at once, with its value, as in RigL; what stays cannot be added. Equal scores
    are decided by `torch.topk`, the same way each time on one device.

    Args:
        active: The mask, boolean, of the shape of the weight.
        weight: Weights, of any shape.
        gradient: Dense gradients, of the same shape.
        count: How many to drop and to add; at most as many as are active.

    Returns:
        The new mask, with as many active weights as before.
    """
    # flatten() goes by index, whatever the memory format.
    sizes, gains, moved = weight.flatten().abs(), gradient.flatten().abs(), active.flatten().clone()
    moved[sizes.masked_fill(~moved, math.inf).topk(count, largest=False).indices] = False
    moved[gains.masked_fill(moved, -1.0).topk(count).indices] = True
    return moved.view(active.shape)
