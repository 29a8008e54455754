"""Narrow students: the same architecture with fewer channels, chosen at random, so really smaller and faster.

The structured variant of sparse training (Auto-KD, section 2.3). Which channels depend on each other is found by
torch-pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023), an optional dependency.
"""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from optuna_kd.models import evaluating, unwrap
from optuna_kd.models.blocks import conv1x1, init_weights
from optuna_kd.models.families.shufflenet import BottleneckV1, DownUnitV2, ShuffleNetV1, ShuffleNetV2, UnitV2
from optuna_kd.models.knowledge import logits_of
from optuna_kd.models.modes import device_of
from optuna_kd.seeds import derive_seed
from optuna_kd.training.randomness import seeded

TORCH_PRUNING = "1.6.1"  # the version that this was tested with
HALF_COST = math.sqrt(0.5)  # of the channels: a convolution costs inputs times outputs
# A vector instruction takes eight channels (AVX2, tensor cores). On a CPU, a step of a ResNet-20 with 11, 22 and 45
# channels (48 % of the FLOPs) took 0.75 of the time; with 8, 24 and 48 (45 %) it took 0.63.
LANES = 8


class MissingPackageError(ImportError):
    """An optional package is not installed; the message names it."""


def narrow_student(model: nn.Module, keep: float = HALF_COST, *, example: Tensor, seed: int) -> nn.Module:
    """Give a smaller copy of an untrained student: the same layers by the same names, with fewer channels.

    Inputs, outputs and depth stay. From 16 channels on, a layer gets the multiple of 8 next to `keep` times its
    channels, at least 8; below that the nearest whole number, at least 1. The weights are those of the channels that
    stay, scaled by sqrt(old / new inputs), so that the smaller sums spread as before.

    ShuffleNets need no torch-pruning, which cannot follow channel shuffles: they are built anew at the smaller width,
    with fresh weights.

    The maps of the student have fewer channels too. Choose the memory format afterwards: very narrow layers are not
    safe in every one (`optuna_kd.models.memory_format`).

    Args:
        model: The student; it is not changed. Wrappers are left behind.
        keep: Share of the channels that stay; in (0, 1]. About keep² of the FLOPs stay; the default halves them.
        example: Images [N, C, H, W] that the student takes, any N; their values do not matter.
        seed: Of the choice; the global generators are not touched.

    Raises:
        ValueError: For a share out of range, or a student that cannot be narrowed.
        ImportError: If torch-pruning is not installed.

    Example:
        >>> student = create_model("resnet20", num_classes=100)                           # doctest: +SKIP
        >>> small = narrow_student(student, example=torch.zeros(2, 3, 32, 32), seed=0)    # doctest: +SKIP
    """
    if not isinstance(keep, int | float) or isinstance(keep, bool) or not 0 < keep <= 1:
        raise ValueError(f"keep is the share of channels that stay, in (0, 1]; got {keep!r}.")
    network = copy.deepcopy(unwrap(model))
    if keep == 1:
        return network
    image = example[:1].to(device_of(network))
    with evaluating(network):
        classes = logits_of(network(image)).shape[1]
    if isinstance(network, ShuffleNetV1 | ShuffleNetV2):
        with seeded(derive_seed(seed, "narrow")):
            if isinstance(network, ShuffleNetV1):
                _narrow_shufflenet_v1(network, keep)
            else:
                _narrow_shufflenet_v2(network, keep)
        return network.to(image.device, image.dtype).train(model.training)
    _remove_channels(network, keep, image, seed)
    _rescale(network, unwrap(model))
    _check(network, image, classes)
    return network


def _remove_channels(network: nn.Module, keep: float, image: Tensor, seed: int) -> None:
    pruning = _torch_pruning()
    generator = torch.Generator().manual_seed(derive_seed(seed, "narrow"))

    def draw(group: Any, **_: Any) -> Tensor:
        return torch.rand(len(group[0].idxs), generator=generator)

    layers, head = _layers(network, image)
    # torch-pruning follows the graph of gradients, in evaluation mode, and leaves both switched.
    modes = [(module, module.training) for module in network.modules()]
    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    try:
        with torch.enable_grad():
            network.requires_grad_(True)
            pruning.pruner.BasePruner(
                network,
                image,
                importance=draw,
                # Half a channel more than wanted, which torch-pruning rounds down: no error of rounding takes one away.
                pruning_ratio_dict={layer: 1 - (_width(width, keep) + 0.5) / width for layer, width in layers.items()},
                ignored_layers=[head],
                # The defaults are dictionaries shared by all calls; they would keep layers of every student alive.
                in_channel_groups={},
                out_channel_groups={},
                num_heads={},
            ).step()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # it fails in many ways on what it cannot follow: index, zero division, assertion
        raise _cannot(network, f"{type(error).__name__}: {error}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)


def _layers(network: nn.Module, image: Tensor) -> tuple[dict[nn.Module, int], nn.Module]:
    """Give the channels of each convolution and linear layer that runs, and the last of them, the classifier."""
    ran: dict[nn.Module, int] = {}

    def record(layer: Any, *_: Any) -> None:
        ran.pop(layer, None)
        ran[layer] = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features

    hooks = [
        layer.register_forward_hook(record) for layer in network.modules() if isinstance(layer, _ConvNd | nn.Linear)
    ]
    try:
        with evaluating(network):
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise _cannot(network, "it has no convolution and no linear layer")
    return ran, next(reversed(ran))


def _width(channels: int, keep: float) -> int:
    if channels < 2 * LANES:
        return max(1, round(keep * channels))
    return max(LANES, min(channels, round(keep * channels / LANES) * LANES))


def _rescale(network: nn.Module, before: nn.Module) -> None:
    # Otherwise a network without normalisation would fade out, layer by layer.
    with torch.no_grad():
        for (_, layer), (_, old) in zip(network.named_modules(), before.named_modules(), strict=True):
            if isinstance(layer, _ConvNd | nn.Linear) and isinstance(old, _ConvNd | nn.Linear):
                layer.weight.mul_(math.sqrt(old.weight[0].numel() / layer.weight[0].numel()))


def _check(network: nn.Module, image: Tensor, classes: int) -> None:
    try:
        with evaluating(network):
            logits = logits_of(network(image))
    except (RuntimeError, ValueError, TypeError) as error:
        raise _cannot(network, f"without some of its channels it fails: {error}") from error
    if logits.shape[1] != classes:
        raise _cannot(network, f"it would lose {classes - logits.shape[1]} of {classes} outputs")


def _cannot(network: nn.Module, reason: str) -> ValueError:
    return ValueError(
        f"{type(network).__name__} cannot be narrowed: {reason}. Train it with masked weights (SparseWeights) or "
        "dense, or pass a narrower student."
    )


def _torch_pruning() -> Any:
    try:
        return importlib.import_module("torch_pruning")
    except ImportError as error:
        raise MissingPackageError(
            f"Narrow students need one more package ({error}): pip install torch-pruning=={TORCH_PRUNING}. "
            "Students with masked weights (SparseWeights) do not."
        ) from error


def _narrow_shufflenet_v1(network: ShuffleNetV1, keep: float) -> None:
    # Multiples of 48: a bottleneck has a quarter of the channels, in three groups, and four of them in each.
    before = network.bn1.num_features
    for name in ("layer1", "layer2", "layer3"):
        first, *rest = getattr(network, name)
        # The first block of a stage appends to its input, so a stage is wider than the one before it.
        width = max(before // 48 + 1, round(keep * rest[0].bn3.num_features / 48)) * 48
        stage = [BottleneckV1(before, width - before, first.conv2.stride[0], concatenate=True)]
        setattr(network, name, nn.Sequential(*stage, *(BottleneckV1(width, width, 1) for _ in rest)))
        before = width
    network.linear = nn.Linear(before, network.linear.out_features)
    init_weights(network)


def _narrow_shufflenet_v2(network: ShuffleNetV2, keep: float) -> None:
    before = network.bn1.num_features
    for name in ("layer1", "layer2", "layer3"):
        first, *rest = getattr(network, name)
        width = 2 * _width(rest[0].bn1.num_features, keep)  # of both halves
        stage = [DownUnitV2(before, width, first.conv1.stride[0]), *(UnitV2(width) for _ in rest)]
        setattr(network, name, nn.Sequential(*stage))
        before = width
    last = _width(network.bn2.num_features, keep)
    network.conv2, network.bn2 = conv1x1(before, last), nn.BatchNorm2d(last)
    network.linear = nn.Linear(last, network.linear.out_features)
    init_weights(network)
