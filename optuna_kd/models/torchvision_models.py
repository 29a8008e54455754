"""Classification networks of torchvision by their own names, without weights, for any channel count."""

from __future__ import annotations

from typing import Any

from torch import nn

PREFIX = "torchvision/"
# Auxiliary classifiers add losses that no distiller knows of; `init_weights` silences a warning that the
# slow historical initialisation will go away.
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


def torchvision_names() -> list[str]:
    """List the classification networks of the installed torchvision."""
    from torchvision import models

    return list(models.list_models(module=models))


def create_torchvision(name: str, *, num_classes: int, in_channels: int, input_size: int) -> nn.Module:
    """Build an untrained network of torchvision.

    Args:
        name: A name from `torchvision_names()`.
        num_classes: Size of the output.
        in_channels: Channels of the images; other than 3, the first convolution is replaced.
        input_size: Shorter side of the images in pixels; only vision transformers are built for a size.
    """
    from torchvision import models

    options = dict(OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = input_size
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        replace_stem(model, in_channels)
    return model


def replace_stem(model: nn.Module, in_channels: int) -> None:
    """Replace the first convolution of a model by one for images of `in_channels` channels.

    The new weights are drawn anew (Kaiming normal by fan-out).

    Raises:
        ValueError: If the model has no convolution.
    """
    for name, old in model.named_modules():
        if not isinstance(old, nn.Conv2d):
            continue
        new = nn.Conv2d(
            in_channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            dilation=old.dilation,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)
        return
    raise ValueError(f"{type(model).__name__} has no convolution, so it takes no other channel count.")
