"""Where images live: small data sets on the device that trains, once, as they were decoded."""

from __future__ import annotations

import logging

import torch

from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.streaming import StreamingSet

logger = logging.getLogger(__name__)

DEVICE_SHARE = 0.25
"""Of the memory of an accelerator that is free: networks, their gradients and stored knowledge need the rest."""


def make_resident(data: ImageSet | StreamingSet, device: torch.device | str) -> ImageSet | StreamingSet:
    """Put images where they are trained on, so that batches are chosen, augmented and normalised there.

    On the CPU nothing is copied, and a `StreamingSet` stays what it is. Images that would take more than a quarter
    of the free memory of an accelerator stay in main memory, from where each batch is copied; this is said.

    Args:
        data: Any data.
        device: Where the networks are.
    """
    device = torch.device(device)
    if isinstance(data, StreamingSet) or device.type == "cpu":
        return data
    size, room = data.images.nbytes, _room(device)
    if room is not None and size > DEVICE_SHARE * room:
        return _kept(data, f"{room / 1e9:.1f} GB are free on {device}")
    try:
        return data.to(device)
    except torch.OutOfMemoryError:  # others use the device, too
        return _kept(data, f"{device} has no room")


def _room(device: torch.device) -> int | None:
    """Free bytes of a device; None where that cannot be asked."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _kept(data: ImageSet, reason: str) -> ImageSet:
    logger.warning(
        "The images (%.1f GB) stay in main memory, and each batch is copied: %s.", data.images.nbytes / 1e9, reason
    )
    return data
