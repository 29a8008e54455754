"""Weights in files: loading them safely, and telling one set of weights from another."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optuna_kd.models.modes import unwrap

WRAPPERS = ("module.", "_orig_mod.")
NESTED_KEYS = ("state_dict", "model")
SHOWN = 5


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file of weights into a model, all of them or none.

    The file is a `state_dict` saved by `torch.save`, or a dict that holds one under `state_dict` or
    `model`; prefixes left by `DataParallel` and `torch.compile` are stripped. Code inside a file is never
    run: only tensors are read (`weights_only=True`).

    Args:
        model: The model, changed in place; it may be wrapped.
        path: The file.

    Raises:
        ValueError: If there is no such file, if it is not a file of weights, or if it fits another model:
            then the message lists what is missing, what is too much and which shapes differ.
    """
    target = unwrap(model)
    expected = target.state_dict()
    weights = _strip_wrappers(_read(Path(path)), expected)
    problems = _compare(weights, expected)
    if problems:
        raise ValueError(f"The weights in {path} are not those of this {type(target).__name__}. " + " ".join(problems))
    target.load_state_dict(weights)


def checksum(module: nn.Module) -> str:
    """Return 16 hexadecimal digits that stand for the weights and buffers of a module.

    They depend on names, shapes, types and bytes, and not on the device, the memory layout or a wrapper.
    """
    digest = hashlib.sha256()
    for name, value in sorted(unwrap(module).state_dict().items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name}:{value!r};".encode())
            continue
        digest.update(f"{name}:{value.dtype}:{list(value.shape)};".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no file of weights at {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read as weights: only files with a plain state_dict are loaded, because "
            "others may run code. If you trust the file, convert it once: "
            "`model = torch.load(path, weights_only=False); torch.save(model.state_dict(), new_path)`, or "
            "`torch.save(content['model'], new_path)` where it holds a dict."
        ) from error
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        shown = f"a dict with {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content)
        raise ValueError(
            f"{path} holds {shown}; it must hold a state_dict, or a dict with one under "
            f"{' or '.join(map(repr, NESTED_KEYS))}."
        )
    return dict(content)


def _strip_wrappers(weights: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Strip prefixes that all names share, as long as the model does not have them itself."""
    while not weights.keys() & expected.keys():
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in weights):
                weights = {name.removeprefix(prefix): value for name, value in weights.items()}
                break
        else:
            return weights
    return weights


def _compare(weights: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    # Files from before torch 0.4.1 do not count batches; torch fills the counter in.
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name}: file {list(weights[name].shape)}, model {list(value.shape)}"
        for name, value in expected.items()
        if isinstance(value, Tensor) and isinstance(weights.get(name), Tensor) and weights[name].shape != value.shape
    ]
    kinds = [("Missing", missing), ("Unexpected", unexpected), ("Different shapes", shapes)]
    return [f"{kind}: {_shorten(names)}." for kind, names in kinds if names]


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more
