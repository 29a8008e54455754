"""Finding the layer whose maps a distiller should compare, in any model, by watching one dry run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from optuna_kd.models.blocks import MIN_MAP
from optuna_kd.models.knowledge import TappedLayer
from optuna_kd.models.modes import device_of, evaluating, unwrap

# They compute nothing new: the map before them is the same, or larger than it seems, or without holes.
TRANSPARENT = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample, nn.Dropout, nn.Dropout2d, nn.Identity)


def find_layer(model: nn.Module, images: Tensor) -> TappedLayer:
    """Choose the layer with the most abstract maps that are still large enough to be compared in space.

    Among the maps of 4x4 and more the smallest ones count, of these the outermost modules (a stage before
    a block before a convolution inside of it), and of these the one that finishes last. In the usual
    networks that is the end of the last stage. Where no map has 4x4, it is the last one that is larger
    than a single pixel.

    Args:
        model: Any module that maps images to logits. It is run once, in evaluation mode, and not changed.
        images: A small batch [N, C, H, W], as the model will see it in training.

    Returns:
        The layer and the shape of its maps.

    Raises:
        ValueError: If no submodule puts out maps [N, C, H, W].

    Example:
        >>> import torch
        >>> from optuna_kd.models import create_model
        >>> find_layer(create_model("resnet20", num_classes=10), torch.zeros(2, 3, 32, 32))
        TappedLayer(name='layer3', shape=(64, 8, 8))
    """
    seen, others = _watch(model, images)
    candidates = [output for output in seen if not output.transparent]
    if not candidates:
        kinds = ", ".join(f"{name} {shape}" for name, shape in list(others.items())[-5:])
        raise ValueError(
            f"No submodule of {type(unwrap(model)).__name__} puts out maps [N, C, H, W]"
            f"{f'; the last outputs are {kinds}' if kinds else ''}. Name the layer yourself, or use only "
            "knowledge of logits."
        )
    large = [output for output in candidates if min(output.height, output.width) >= MIN_MAP]
    if not large:
        wide = [output for output in candidates if output.height * output.width > 1]
        return (wide or candidates)[-1].layer
    smallest = min(output.height * output.width for output in large)
    finalists = [output for output in large if output.height * output.width == smallest]
    return min(finalists, key=lambda output: (output.depth, -output.order)).layer


def list_maps(model: nn.Module, images: Tensor) -> list[TappedLayer]:
    """List the layers that put out maps [N, C, H, W], in the order in which they finish.

    Modules that put out the very same tensor (a stage and its last block) are listed once, by the
    outermost name.

    Args:
        model: Any module. It is run once, in evaluation mode, and not changed.
        images: A small batch [N, C, H, W].
    """
    return [output.layer for output in _watch(model, images)[0]]


@dataclass(frozen=True)
class _Output:
    """The last output of one submodule in the dry run."""

    name: str
    order: int
    maps: Tensor
    transparent: bool

    @property
    def depth(self) -> int:
        return self.name.count(".")

    @property
    def height(self) -> int:
        return self.maps.shape[2]

    @property
    def width(self) -> int:
        return self.maps.shape[3]

    @property
    def layer(self) -> TappedLayer:
        return TappedLayer(self.name, (self.maps.shape[1], self.height, self.width))


def _watch(model: nn.Module, images: Tensor) -> tuple[list[_Output], dict[str, str]]:
    """Return the map outputs in order, each tensor once, and what the other submodules put out."""
    model = unwrap(model)
    outputs: dict[str, tuple[nn.Module, Any]] = {}

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs.pop(name, None)  # a module that runs again moves to its last place
        outputs[name] = (module, output)

    # The whole model is left out: its output is not a layer's.
    handles = [
        module.register_forward_hook(functools.partial(note, name)) for name, module in model.named_modules() if name
    ]
    try:
        with evaluating(model):
            model(images.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    maps = [
        _Output(name, order, output, isinstance(module, TRANSPARENT))
        for order, (name, (module, output)) in enumerate(outputs.items())
        if _is_map(output)
    ]
    others = {name: _shape(output) for name, (_, output) in outputs.items() if not _is_map(output)}
    return list(_outermost(maps)), others


def _outermost(outputs: list[_Output]) -> Iterator[_Output]:
    """Keep one name for each tensor object: of the module that made it, the outermost, and among equals the last."""
    best: dict[int, _Output] = {}
    for output in outputs:
        known = best.get(id(output.maps))
        if known is None or (output.transparent, output.depth) <= (known.transparent, known.depth):
            best[id(output.maps)] = output
    return iter(sorted(best.values(), key=lambda output: output.order))


def _is_map(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() == 4 and output.is_floating_point()


def _shape(output: Any) -> str:
    return str(list(output.shape)) if isinstance(output, Tensor) else type(output).__name__
