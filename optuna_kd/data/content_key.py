"""A key for what a data set of image files decodes to, found without decoding anything."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from types import BuiltinFunctionType, FunctionType
from typing import Any

import PIL
import torch
from torch.utils.data import Subset

from optuna_kd.data.pixel_cache import CACHE_VERSION

_KNOWN_CODE = {"torchvision", "torch", "PIL", "numpy", "builtins", "collections", "copyreg", "functools", "enum"}


def content_key(dataset: Any) -> str | None:
    """Name the images and labels of a data set; None where only decoding them would tell.

    That is so for all but the `ImageFolder` and `DatasetFolder` of torchvision, and their `Subset`: of these the items
    follow from the files, known by path, size and time, and from transforms. The transforms have to be torchvision's
    own, whose code is known by its version; a function of the user may do something else tomorrow.

    Args:
        dataset: Map-style data set.
    """
    digest = hashlib.sha256(f"{CACHE_VERSION};{torch.__version__};{PIL.__version__}".encode())
    while type(dataset) is Subset:
        digest.update(f"{list(map(int, dataset.indices))}".encode())
        dataset = dataset.dataset
    if type(dataset).__module__ != "torchvision.datasets.folder":
        return None
    import torchvision  # is there already, if the data set is

    parts = (type(dataset), dataset.loader, dataset.transform, dataset.target_transform)
    recipe = io.BytesIO()
    try:
        _KnownCodePickler(recipe).dump(parts)
        files = [(path, label, os.stat(path)) for path, label in dataset.samples]
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, OSError):
        return None
    digest.update(f"{torchvision.__version__};{torchvision.get_image_backend()}".encode() + recipe.getvalue())
    for path, label, stat in files:
        line = f"\n{os.path.abspath(path)};{label};{stat.st_size};{stat.st_mtime_ns}"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


class _KnownCodePickler(pickle.Pickler):
    """Refuses what refers to code outside of the libraries that are part of the key by their version."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, type | FunctionType | BuiltinFunctionType):
            module = str(thing.__module__ or "")
            if module.partition(".")[0] not in _KNOWN_CODE:
                raise pickle.PicklingError(f"{thing} is from {module or 'nowhere'}")
        return NotImplemented
