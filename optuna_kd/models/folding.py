"""Batch normalisation folded into the convolutions before it: the same outputs of a frozen model, in less time."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optuna_kd.models.layout import memory_format
from optuna_kd.models.modes import device_of, unwrap

logger = logging.getLogger(__name__)

PLAIN = frozenset({bool, int, float, str, type(None)})


def fold_batchnorm(model: nn.Module, images: Tensor, layers: Sequence[str] = ()) -> nn.Module | None:
    """Give a twin of a frozen model that folds each `BatchNorm2d` into the `Conv2d` whose output it alone reads.

    The twin has the same submodules by the same names, runs in channels-last, and puts out the same up to rounding.
    It shares every tensor with the model but the folded weights, and computes these again before a call where the
    model's have changed in place. Where submodules, tensors or settings were replaced (see `list_parts`), make a new
    twin.

    Args:
        model: In evaluation mode; it is neither run nor changed.
        images: A few of the images [N, C, H, W] that it will see, to watch which operation reads which output.
        layers: Names of the submodules whose outputs matter beside the model's own.

    Returns:
        None where there is nothing to gain, or nothing can be folded safely: on another device than the CPU (not
        measured there), in another type than float32 or float64, for models that channels-last may not suit, that
        are wrapped or compiled, or cannot be copied.
    """
    if any(unwrap(module) is not module for module in model.modules()):
        return None
    if device_of(model).type != "cpu" or memory_format(model, "cpu") is not torch.channels_last:
        return None
    try:
        twin = _share(model)
        # In its layout already: a model that takes views of its maps may not run in it.
        pairs = _find_pairs(twin, images.contiguous(memory_format=torch.channels_last), layers)
    except Exception:  # whatever keeps a model from being copied or watched, it can still be run as it is
        logger.debug("The teacher is run as it is: no copy of it could be watched.", exc_info=True)
        return None
    if not pairs:
        return None
    folds = [_Fold.of(convolution, norm) for convolution, norm in pairs]
    twin.register_forward_pre_hook(_Refresh(folds))
    return twin


def list_parts(model: nn.Module, ignore: type) -> list[Any]:
    """List what a twin takes over from a model and would not see replaced: modules, tensors, settings, hooks.

    Args:
        model: The model.
        ignore: Forward hooks of this type only read, and are left out.
    """
    parts: list[Any] = []
    for module in model.modules():
        parts += (module, *module._parameters.values(), *module._buffers.values())
        parts += [value for value in vars(module).values() if type(value) in PLAIN or type(value) is Tensor]
        parts += list_hooks(module, ignore)
    return parts


def list_hooks(module: nn.Module, ignore: type) -> list[Callable[..., Any]]:
    """List the forward hooks of a module, without its submodules; those of type `ignore` are left out."""
    hooks = itertools.chain(module._forward_hooks.values(), module._forward_pre_hooks.values())
    return [hook for hook in hooks if not isinstance(hook, ignore)]


def same_parts(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two lists of parts hold the same objects and equal settings."""
    return len(first) == len(second) and all(
        one is other or (type(one) in PLAIN and type(other) in PLAIN and one == other)
        for one, other in zip(first, second, strict=True)
    )


@dataclass(frozen=True)
class _Fold:
    """One convolution of the twin, and the model's tensors that its weights come from."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> _Fold:
        """Take the normalisation out of the twin; the weights are those of the convolution until `refresh`."""
        fold = cls(convolution, norm, convolution.weight, convolution.bias)
        convolution.weight = nn.Parameter(fold.weight.detach(), requires_grad=False)
        convolution.bias = nn.Parameter(torch.zeros_like(fold.weight[:, 0, 0, 0]), requires_grad=False)
        norm.forward = _identity  # type: ignore[assignment,method-assign]
        return fold

    @property
    def sources(self) -> list[Tensor]:
        """The model's tensors."""
        norm = self.norm
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias, self.bias, self.weight)
        return [tensor for tensor in tensors if tensor is not None]

    def refresh(self) -> None:
        """Compute the folded weights from the model's."""
        mean, variance, norm = self.norm.running_mean, self.norm.running_var, self.norm
        assert mean is not None
        assert variance is not None
        assert self.convolution.bias is not None
        scale = torch.rsqrt(variance + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -mean * scale if self.bias is None else (self.bias - mean) * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.convolution.weight.data = self.weight * scale.view(-1, 1, 1, 1)
        self.convolution.bias.data = shift


class _Refresh:
    """A forward pre-hook of the twin: brings the folded weights up to date, and the images into its layout."""

    def __init__(self, folds: list[_Fold]) -> None:
        self._folds = folds
        self._seen: tuple[list[int], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sources = [tensor for fold in self._folds for tensor in fold.sources]
        # Writing through `.data` leaves the version alone, as old code for averaged teachers does. So some values are
        # looked at as well: all of each normalisation, and of a convolution the first weight of each filter.
        versions = [tensor._version for tensor in sources]
        values = torch.cat([tensor if tensor.dim() == 1 else tensor.flatten(1).select(1, 0) for tensor in sources])
        if self._seen is None or versions != self._seen[0] or not torch.equal(values, self._seen[1]):
            for fold in self._folds:
                fold.refresh()
            self._seen = versions, values
        images, *others = args
        return images.contiguous(memory_format=torch.channels_last), *others


def _identity(maps: Tensor) -> Tensor:
    return maps


def _share(model: nn.Module) -> nn.Module:
    """Copy the structure of a model, without its hooks, around the same tensors."""
    attributes = itertools.chain.from_iterable(vars(module).values() for module in model.modules())
    tensors = [*model.parameters(), *model.buffers(), *(value for value in attributes if isinstance(value, Tensor))]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for module in twin.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return twin


def _find_pairs(twin: nn.Module, images: Tensor, layers: Sequence[str]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Run the twin and give each convolution with the normalisation that alone reads its output."""
    readers = _Readers()
    watched = [module for module in twin.modules() if type(module) in (nn.Conv2d, nn.BatchNorm2d)]
    handles = [module.register_forward_hook(readers.note) for module in watched]
    handles += [twin.get_submodule(layer).register_forward_hook(readers.note_tap) for layer in layers]
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False), readers:
            twin(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in readers.pairs() if _is_foldable(*pair)]


def _is_foldable(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    tensors = (convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    types = {tensor.dtype for tensor in tensors if tensor is not None}
    # Without running statistics it normalises by the batch, in evaluation mode too.
    return norm.running_mean is not None and not norm.training and types in ({torch.float32}, {torch.float64})


class _Readers(TorchDispatchMode):
    """Watches in one run, and in this thread only, which operations read the outputs of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[nn.Module, int] = {}
        self._made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the id of the output, which is kept alive
        self._reads: dict[int, int] = {}
        self._norms: dict[int, nn.BatchNorm2d] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self._made:
                self._reads[id(value)] += 1
        return func(*args, **(kwargs or {}))

    def note(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Take down what a convolution puts out, and what a normalisation has read."""
        self._runs[module] = self._runs.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            self._made[id(output)] = (module, output)
            self._reads[id(output)] = 0
        elif args and id(args[0]) in self._made:  # the id of another tensor may be taken again later
            self._norms[id(args[0])] = module  # type: ignore[assignment]

    def note_tap(self, module: nn.Module, args: Any, output: Any) -> None:
        """Count a tap on a layer that puts out what a convolution did: it is to see this, not the normalised map."""
        if id(output) in self._made:
            self._reads[id(output)] += 1

    def pairs(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Give the convolutions and normalisations that ran once and have only each other."""
        for key, (convolution, _) in self._made.items():
            norm = self._norms.get(key)
            if norm is not None and self._reads[key] == self._runs[convolution] == self._runs[norm] == 1:
                yield convolution, norm
