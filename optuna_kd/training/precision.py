"""In which precision networks run, and the settings of torch that go with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optuna_kd.registry import suggest_name

PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
# Of a convolution, from which bfloat16 gains on a CPU that multiplies it. A step of networks where half of the
# convolutions are as wide (ResNet-8, 14 and 20 at half the width, 8 and 32 pixels) took 1 / 1.06 to 1 / 1.5 of
# float32's time with tiles, 1 / 0.98 to 1 / 1.28 with vectors alone (whole ResNet-8 and 20: 1 / 1.10 to 1 / 1.55); of
# ResNet-8 at a quarter, where one in eight is, all of it. Convolutions in groups took up to twice as long.
GAINING_CHANNELS = 16
AMPERE = 8  # the compute capability from which CUDA devices have bfloat16 and TF32
WORKSPACES = (":4096:8", ":16:8")  # of cuBLAS, with which it is deterministic


@dataclass(frozen=True, slots=True)
class Precision:
    """How the forward passes of networks are computed; weights, losses and optimizer stay float32.

    Args:
        name: "float32", "tf32" or "bfloat16".
        device: The kind of device, "cpu" or "cuda".
        deterministic: Whether torch is to use deterministic algorithms.
    """

    name: str
    device: str
    deterministic: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Give the context for forward passes; what they put out may be bfloat16."""
        if self.name != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16)

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Put torch's settings for the whole process in place, and restore them: around a run, not in its threads."""
        cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
        benchmark, tf32 = cudnn.benchmark, cudnn.allow_tf32
        strict, warns = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        try:
            if self.deterministic:
                # Warnings only: adaptive pooling on CUDA has no deterministic gradient, and torch says so by name.
                torch.use_deterministic_algorithms(True, warn_only=True)
            if self.device == "cuda":
                cudnn.benchmark = not self.deterministic
                cudnn.allow_tf32 = self.name != "float32"
                # Losses stay float32 beside bfloat16 networks; who asks for TF32 wants it everywhere.
                torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")
            yield
        finally:
            if self.deterministic:  # asked again only where it was: the call imports torch's compiler
                torch.use_deterministic_algorithms(strict, warn_only=warns)
            cudnn.benchmark, cudnn.allow_tf32 = benchmark, tf32
            torch.set_float32_matmul_precision(matmul)


def choose_precision(
    precision: str, device: torch.device | str, model: nn.Module, *, deterministic: bool = False
) -> Precision:
    """Choose how a network is computed on a device.

    "auto" is bfloat16 where it gains, by the kind of device and network and never by a measurement, so that every
    process on a machine decides alike: on CUDA from compute capability 8; on CPUs with tiles (AMX) or vectors
    (AVX-512) for it, for networks of which half of the convolutions have 16 channels or more, and none is grouped;
    nowhere else.

    Args:
        precision: "auto", "float32", "tf32" (CUDA only) or "bfloat16".
        device: Where the network runs.
        model: The network.
        deterministic: Ask torch for deterministic algorithms. Then "auto" is float32, which depends the least on
            the device.

    Raises:
        UnknownNameError: For an unknown precision.
        ValueError: If the device has no such precision, or cannot be deterministic as it is set up.
    """
    if precision not in PRECISIONS:
        raise suggest_name("precision", precision, PRECISIONS)
    device = torch.device(device)
    if precision == "auto":
        name = "bfloat16" if not deterministic and _gains(device, model) else "float32"
    else:
        name = precision
    if deterministic and name != "float32":
        raise ValueError(f"deterministic=True goes with float32, not with precision={name!r}; drop one of the two.")
    if name != "float32" and not _has(device, name):
        raise ValueError(f"precision={name!r} is not to be had on {device}; use 'float32', or 'auto'.")
    if deterministic and device.type == "cuda" and os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        raise ValueError(
            "deterministic=True on CUDA needs CUBLAS_WORKSPACE_CONFIG in the environment before Python starts: "
            f"set it to {WORKSPACES[0]}."
        )
    return Precision(name, device.type, deterministic)


def _has(device: torch.device, name: str) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    return name == "bfloat16" and torch.amp.is_autocast_available(device.type)


def _gains(device: torch.device, model: nn.Module) -> bool:
    if device.type == "cuda":
        return _has(device, "bfloat16")
    if device.type != "cpu" or not _cpu_multiplies_it():
        return False
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    # Channels in: those of the images are few in any network, and one layer of many.
    wide = sum(convolution.out_channels >= GAINING_CHANNELS for convolution in convolutions)
    return 2 * wide >= max(1, len(convolutions)) and all(convolution.groups == 1 for convolution in convolutions)


def _cpu_multiplies_it() -> bool:
    # In older versions of torch, where this is not to be known, a CPU does not.
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(has.get("avx512_bf16") or (has.get("amx_tile") and has.get("amx_bf16")))
