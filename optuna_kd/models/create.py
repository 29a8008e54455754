"""Students and teachers by name, and whether a model can take the images."""

from __future__ import annotations

import difflib

import torch
from torch import nn

import optuna_kd.models.families  # noqa: F401  (fills the catalogue)
from optuna_kd.models.catalog import GRAMMARS, MODELS, ModelInfo, canonical_name, find_own
from optuna_kd.models.modes import device_of, evaluating, unwrap
from optuna_kd.models.torchvision_models import PREFIX, create_torchvision, torchvision_names
from optuna_kd.registry import UnknownNameError

# A model that fails on its images is tried on these sides, to tell a small image from a wrong model.
LARGER_SIDES = (16, 32, 64, 96, 128, 224)


def create_model(
    name: str, *, num_classes: int, in_channels: int = 3, input_size: int | tuple[int, int] = 32
) -> nn.Module:
    """Build an untrained network by its usual name.

    Networks for small images come first: ``resnet20``, ``resnet8x4``, ``wrn_16_2``, ``vgg8``,
    ``mobilenetv2``, ``shufflenetv1``, ``shufflenetv2``, in any usual spelling ("ResNet-20", "WRN-16-2").
    Two families follow a rule: ``resnet{6n+2}x{width}`` (``resnet8x0.25`` is a ResNet-8 with 4, 8 and 16
    channels), ``resnet{b1}-{b2}-{b3}x{width}`` by blocks in each stage, and ``wrn_{6n+4}_{k}``. Any other
    name is one of torchvision's (``resnet18``, ``mobilenet_v3_small``); ``torchvision/vgg13`` says so where
    both have a network. Mind ``mobilenet_v2``: with the underscore it is torchvision's, for large images.

    Args:
        name: The name.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        input_size: Side of the images in pixels, or height and width; the shorter one decides which
            strides the networks for small images keep (8x8 is the smallest).

    Raises:
        UnknownNameError: If neither knows the name.
        ValueError: If the images are too small, or a number is below 1.

    Example:
        >>> model = create_model("resnet8x0.25", num_classes=10, in_channels=1, input_size=8)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    side = input_size if isinstance(input_size, int) else min(input_size)
    for what, number in (("num_classes", num_classes), ("in_channels", in_channels), ("input_size", side)):
        if number < 1:
            raise ValueError(f"{what} must be 1 or more; got {number}.")
    if not name.startswith(PREFIX):
        info = find_own(name)
        if info is not None:
            return info.factory(num_classes=num_classes, in_channels=in_channels, input_size=side)
    plain = _find_torchvision(name)
    return create_torchvision(plain, num_classes=num_classes, in_channels=in_channels, input_size=side)


def model_names(*, torchvision: bool = False) -> list[str]:
    """List the registered networks for small images, and on request those of torchvision, prefixed."""
    names = list(MODELS)
    return names + [PREFIX + name for name in torchvision_names()] if torchvision else names


def describe_models() -> list[ModelInfo]:
    """List the facts about the registered networks for small images."""
    return list(MODELS.values())


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model: weights and biases, without buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_input(model: nn.Module, in_channels: int, input_size: int | tuple[int, int]) -> None:
    """Run a model on two blank images and say in words why they do not fit.

    Args:
        model: The model; it is not changed.
        in_channels: Channels of the images.
        input_size: Side of the images in pixels, or height and width.

    Raises:
        ValueError: If the model takes another channel count, or larger images, or fails in another way.
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    error = _try_images(model, in_channels, height, width)
    if error is None:
        return
    stem = next((module for module in unwrap(model).modules() if isinstance(module, nn.Conv2d)), None)
    if stem is not None and stem.in_channels != in_channels:
        raise ValueError(
            f"The model takes images of {stem.in_channels} channels; these have {in_channels}. Build it "
            f"with in_channels={in_channels}."
        ) from error
    for side in LARGER_SIDES:
        if side > min(height, width) and _try_images(model, in_channels, side, side) is None:
            raise ValueError(
                f"Images of {height}x{width} are smaller than the network's stride allows; it runs on "
                f"{side}x{side}. Take a network for small images (resnet20, wrn_16_2, ...) or enlarge the "
                "images."
            ) from error
    raise ValueError(f"The model does not run on images [{in_channels}, {height}, {width}]: {error}") from error


def _try_images(model: nn.Module, channels: int, height: int, width: int) -> Exception | None:
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    images = torch.zeros(2, channels, height, width, device=device_of(model), dtype=dtype)
    try:
        with evaluating(model):
            model(images)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, AssertionError) as error:
        return error
    return None


def _find_torchvision(name: str) -> str:
    plain = name.removeprefix(PREFIX).strip().lower().replace("-", "_")
    names = torchvision_names()
    if plain in names:
        return plain
    close = difflib.get_close_matches(canonical_name(plain), [*MODELS, *names], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    rules = "; ".join(grammar.rule for grammar in GRAMMARS.values())
    raise UnknownNameError(
        f"Unknown model {name!r}.{hint} Known: {', '.join(sorted(MODELS))}; by rule: {rules}; and the "
        "classification models of torchvision."
    )
