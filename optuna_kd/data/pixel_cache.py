"""Decoded images kept on disk for the next time: one file for each content key, checked whenever it is read."""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

CACHE_VERSION = 2
"""Part of every key; raised when the same source would be decoded to other pixels, or the files change."""


def cache_file(folder: Path, key: str) -> Path:
    """Name the file that holds the images of one content key."""
    # Not compressed; the format has a checksum for every array.
    return folder / f"images-{key}.npz"


def load_arrays(file: Path, lengths: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """Read arrays back; None where there is no such file, or it is cut short or altered, which is said.

    Args:
        file: Where they may be.
        lengths: By name, how many rows each has to have.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} differs")
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in lengths}
        if any(len(arrays[name]) != length for name, length in lengths.items()):
            raise ValueError("it holds another number of images")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # an altered archive can raise anything
        logger.warning("Decoding again: the cache file %s cannot be used (%s).", file, error)
        return None
    return arrays


def save_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write arrays for the next time; a folder that cannot be written to is said once and gone without."""
    # Not of `tempfile`, whose files nobody else may read: people share such folders.
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as writing:
            np.savez(writing, **arrays)  # type: ignore[arg-type]
        # Renamed when complete: of several processes that write, each leaves the whole file, and the last one stays.
        partial.replace(file)
    except OSError as error:
        _warn_once(f"Decoded images are not kept: cannot write to {file.parent} ({error.strerror or error}).")
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@functools.cache
def _warn_once(message: str) -> None:
    # The parts of a data set go to one folder, and fail for one reason.
    logger.warning(message)
