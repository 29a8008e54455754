"""Data sets by name: ``digits``, ``cifar10:DIR``, ``cifar100:DIR``, ``imagefolder:DIR``.

A module in this folder lists its `DataSource` objects in ``SOURCES``; it is found by being there.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from optuna_kd.data.sources.base import DataSource, DataSplits, LoadRequest
from optuna_kd.registry import Registry, UnknownNameError

__all__ = ["DATA_SOURCES", "DataSource", "DataSplits", "LoadRequest", "load_data"]

DATA_SOURCES: Registry[DataSource] = Registry("data source")
for _module in pkgutil.iter_modules(__path__):
    for _source in getattr(importlib.import_module(f"{__name__}.{_module.name}"), "SOURCES", ()):
        DATA_SOURCES.add(_source.name, _source)


def load_data(
    spec: str,
    *,
    image_size: int | None = None,
    max_train: int | None = None,
    cache_dir: str | Path | None = None,
) -> DataSplits:
    """Load a data set by its name.

    Args:
        spec: ``digits``, or a name and a folder: ``cifar10:DIR``, ``cifar100:DIR``, ``imagefolder:DIR``.
        image_size: Side in pixels: images of a folder are resized (shorter side) and cropped to its centre.
        max_train: At most so many training images, each class in proportion, chosen before any is decoded.
        cache_dir: Folder in which decoded images are kept for the next time; None for none.

    Raises:
        UnknownNameError: If there is no source of that name.
        ValueError: If the folder is missing or its content cannot be used.

    Example:
        >>> load_data("digits").train.shape
        (1, 8, 8)
    """
    name, colon, folder = spec.partition(":")
    try:
        source = DATA_SOURCES[name]
    except UnknownNameError as error:
        forms = ", ".join(known.form for known in DATA_SOURCES.values())
        hint = f" For the folder {spec!r} write imagefolder:{spec}." if Path(spec).is_dir() else ""
        raise UnknownNameError(f"{error} Write it as one of: {forms}.{hint}") from None
    if source.needs_folder and not folder:
        raise ValueError(f"The data source {name!r} needs a folder: write {source.form}.")
    if not source.needs_folder and colon:
        raise ValueError(f"The data source {name!r} takes no folder: write {source.form}; got {spec!r}.")
    if image_size is not None and not source.resizes:
        raise ValueError(f"image_size is for image folders; the images of {name!r} have a fixed size.")
    request = LoadRequest(
        folder=_existing_folder(folder, source) if source.needs_folder else None,
        image_size=image_size,
        max_train=max_train,
        cache_dir=Path(cache_dir).expanduser() if cache_dir is not None else None,
    )
    return source.load(request)


def _existing_folder(folder: str, source: DataSource) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"The data folder {folder!r} {what}; {source.form} needs an existing folder.")
    return path
