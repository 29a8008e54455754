"""What a network hands out for one batch, and how it is read off any `nn.Module`."""

from __future__ import annotations

import difflib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from optuna_kd.models.folding import fold_batchnorm, list_hooks, list_parts, same_parts
from optuna_kd.models.modes import unwrap
from optuna_kd.registry import UnknownNameError

CHECKED = 8  # images on which a folded teacher is compared with the teacher
ROUNDING = 1e-4  # of the largest value; a deep network in float32 differs by 1e-6, a wrong one by 1e-1


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The knowledge of one network on one batch.

    Args:
        features: Feature maps [N, C, H, W], one for each tapped layer, in the order asked for.
        logits: Class scores before the softmax, [N, K].
    """

    features: tuple[Tensor, ...]
    logits: Tensor

    @property
    def embeddings(self) -> tuple[Tensor, ...]:
        """Global average pool of each map, [N, C]."""
        return tuple(maps.mean(dim=(2, 3)) for maps in self.features)

    def detach(self) -> Knowledge:
        """Return the same knowledge cut off from the graph."""
        return Knowledge(tuple(maps.detach() for maps in self.features), self.logits.detach())


@dataclass(frozen=True, slots=True)
class TappedLayer:
    """A layer that puts out feature maps.

    Args:
        name: Dotted name of the submodule, as in `named_modules()` of the unwrapped model.
        shape: Channels, height and width of its maps.
    """

    name: str
    shape: tuple[int, int, int]


class Observer:
    """Runs a model and returns its `Knowledge` at some layers, without a change to the model's code.

    The observer keeps no tensor once a call has returned, and outside its own calls the model runs as
    ever. A layer that runs more than once in a forward pass counts with its last output. The map is the
    tensor that the layer put out: where the next operation works in place (`F.relu_`), the map holds the
    result of that operation, with the right gradients. Threads may share an observer.

    Args:
        model: Any module that maps a batch of images to logits; it may be wrapped by `torch.compile` or
            `DistributedDataParallel`. A compiled model is run uncompiled.
        layers: Dotted names of submodules of the unwrapped model.

    Raises:
        UnknownNameError: If there is no such layer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
        >>> with Observer(model, ["0"]) as observe:
        ...     known = observe(torch.zeros(2, 1, 8, 8))
        >>> known.features[0].shape, known.logits.shape
        (torch.Size([2, 4, 6, 6]), torch.Size([2, 10]))
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        if isinstance(layers, str):
            raise TypeError(f"`layers` is a sequence of names; write [{layers!r}].")
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise ValueError(
                "DataParallel splits a batch over copies of the model, whose maps would get mixed up. "
                "Use DistributedDataParallel, or pass `model.module`."
            )
        # A compiled graph skips every hook that was not there when it was traced.
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.layers = tuple(layers)
        self._record = _Record()
        modules = dict(unwrap(model).named_modules())
        handles = [
            _find(modules, name).register_forward_hook(_Tap(name, self._record)) for name in dict.fromkeys(self.layers)
        ]
        self._watch(handles)

    def _watch(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles
        # Also runs when the observer is collected: a teacher that outlives a thousand trials must not
        # collect a thousand hooks.
        self._finalizer = weakref.finalize(self, _remove, handles)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_finalizer": self._finalizer.alive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._watch(self._handles)  # the hooks have travelled with the model, their finalizer has not
        if not state["_finalizer"]:
            self.close()

    def __call__(self, images: Tensor) -> Knowledge:
        """Run the model on images [N, C, H, W].

        Raises:
            RuntimeError: If the observer is closed, or a layer did not run.
            TypeError: If a layer does not put out one map [N, C, H, W], or the model no logits [N, K].
        """
        if not self._finalizer.alive:
            raise RuntimeError("This observer is closed; make a new one.")
        thread = threading.get_ident()
        self._record.maps[thread] = {}
        try:
            output = self.model(images)
            outputs = self._record.maps[thread]
        finally:
            del self._record.maps[thread]
        return Knowledge(tuple(_map(name, outputs) for name in self.layers), logits_of(output))

    def close(self) -> None:
        """Take the hooks off the model; closing twice is fine."""
        self._finalizer()

    def __enter__(self) -> Observer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FrozenTeacher:
    """A teacher that gives its knowledge and cannot be changed by it.

    The model itself is asked: its parameters stop requiring gradients, and every call puts it
    into evaluation mode, so an outer `train()` has no effect on what it says. Its batch-norm buffers never
    move. What comes out is detached; it is made under `torch.no_grad`, because the tensors of
    `torch.inference_mode` could not be saved for the student's backward pass.

    Args:
        model: The trained teacher.
        layers: Names of the layers to tap, see `Observer`.
        batchnorm: `"eval"` normalises with the running statistics; `"train"` with those of the batch, as
            published code does that leaves the teacher in training mode, yet without moving the buffers.
        fold: On a CPU, let a twin with folded batch normalisation answer in its place, wherever it was seen to say the
            same up to rounding on the first images (see `fold_batchnorm`). In bfloat16 it takes two thirds of the
            time; in float32 it gains nothing. Changes of the model count for the twin too; of those made in place
            through `.data`, which torch does not count, a change to a few single weights may go unnoticed.

    Raises:
        UnknownNameError: If there is no such layer.
        ValueError: If `batchnorm` is something else.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        batchnorm: Literal["eval", "train"] = "eval",
        *,
        fold: bool = False,
    ) -> None:
        if batchnorm not in ("eval", "train"):
            raise ValueError(f"batchnorm is 'eval' or 'train'; got {batchnorm!r}.")
        self.model = model
        self.layers = tuple(layers)
        self.batchnorm = batchnorm
        self._observer = Observer(model, layers)
        self._fold = fold
        self._parts: list[Any] = []
        self._folded: Observer | None = None
        model.requires_grad_(False)
        model.eval()

    def __call__(self, images: Tensor) -> Knowledge:
        """Return the detached knowledge for images [N, C, H, W]."""
        self.model.eval()
        with torch.no_grad():
            if self.batchnorm == "eval":
                twin = self._twin(images) if self._fold else None
                return (twin or self._observer)(images).detach()
            with _batch_statistics(self.model):
                return self._observer(images).detach()

    def close(self) -> None:
        """Take the hooks off the model; it stays frozen."""
        self._observer.close()
        self._parts, self._folded = [], None

    def _twin(self, images: Tensor) -> Observer | None:
        """Give the observer of the twin, made at the first call and where something of the model was replaced."""
        parts = list_parts(self.model, ignore=_Tap)
        if not same_parts(parts, self._parts) and len(images):
            self._folded = self._make_folded(images[:CHECKED])
            self._parts = parts
        return self._folded

    def _make_folded(self, images: Tensor) -> Observer | None:
        if any(list_hooks(module, ignore=_Tap) for module in self.model.modules()):
            return None  # they may change outputs, and are to run
        twin = fold_batchnorm(self.model, images, self.layers)
        if twin is None:
            return None
        folded = Observer(twin, self.layers)
        with torch.autocast("cpu", enabled=False):  # whose rounding would hide a difference
            return folded if _agree(self._observer(images), folded(images)) else None


def _agree(known: Knowledge, other: Knowledge) -> bool:
    """Whether two answers to the same images differ by rounding at most."""
    pairs = zip((*known.features, known.logits), (*other.features, other.logits), strict=True)
    return all(
        one.shape == two.shape and bool((one - two).abs().max() <= ROUNDING * one.abs().max()) for one, two in pairs
    )


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise with the statistics of the batch while leaving every buffer alone."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(layer.training, layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.training = True
        layer.track_running_stats = False  # in training: neither reads nor updates the running statistics
    try:
        yield
    finally:
        for layer, (training, track) in zip(layers, before, strict=True):
            layer.training, layer.track_running_stats = training, track


@dataclass
class _Record:
    """Where the hooks put outputs, by thread; outside of an observer's call there is no place and they do nothing."""

    maps: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tap:
    """A forward hook, as an object so that a hooked model can still be pickled."""

    name: str
    record: _Record = field(repr=False)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        maps = self.record.maps.get(threading.get_ident())
        if maps is not None:
            maps[self.name] = output


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _find(modules: dict[str, nn.Module], name: str) -> nn.Module:
    if name and name in modules:
        return modules[name]
    close = difflib.get_close_matches(str(name), [known for known in modules if known], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNameError(
        f"Unknown layer {name!r}.{hint} `optuna_kd.models.list_maps(model, images)` lists the layers that "
        "put out feature maps."
    )


def _map(name: str, outputs: dict[str, Any]) -> Tensor:
    if name not in outputs:
        raise RuntimeError(
            f"Layer {name!r} did not run in the forward pass. Tap a layer that does; a model with compiled "
            "parts must be observed before its first run."
        )
    output = outputs[name]
    if not isinstance(output, Tensor) or output.dim() != 4:
        raise TypeError(
            f"Layer {name!r} puts out {_describe(output)}, and a distiller compares maps [N, C, H, W]. "
            "Tap a convolutional layer."
        )
    return output


def logits_of(output: Any) -> Tensor:
    """Return the logits [N, K] in what a model put out: the tensor itself, or its field `logits`.

    Raises:
        TypeError: If there is no 2-D tensor.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", output)
    if isinstance(logits, Tensor) and logits.dim() == 2:
        return logits
    raise TypeError(
        f"The model put out {_describe(output)}; it must be logits [N, K], or an object with a field "
        "`logits` of that shape."
    )


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    return f"a {type(output).__name__}"
