"""The file that holds stored knowledge: a JSON header with checksums, then plain arrays to be mapped into memory.

Why a format of its own: `torch.save` pickles, and safetensors, which would be another dependency, has no checksum
and wants all tensors in memory before it writes. Here arrays are written row by row as the teacher answers, through
ordinary writes: a full disk is an error then, where a write into a memory map kills the process.

    8 bytes   magic
    4, 4      length of the header and CRC-32 of it, little-endian
    header    JSON, padded with spaces: description, length and CRC-32 of all that follows, arrays
    arrays    each at a multiple of 64 bytes, little-endian, in C order
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAGIC = b"OKD-KN-1"
HEAD = struct.Struct("<8sII")
ALIGN = 64
HEADER_STEP, HEADER_ROOM = 4096, 1024  # bytes; the room is for figures that are known only at the end
PIECE = 1 << 24  # bytes that are read at a time for a checksum
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int64": torch.int64}
BFLOAT16_ERROR = 2.0**-9  # the largest relative rounding error of bfloat16; float16 keeps 2^-11 within its range


class DamagedFileError(ValueError):
    """A file of knowledge is cut short or altered, or is no such file; the message says which."""


class NotStoredError(Exception):
    """Knowledge cannot be kept on disk (full, read-only ...); the message says why."""


class KnowledgeWriter:
    """Writes one file, row by row, the rows of an array in order.

    Maps in half precision are float16. Where that does not hold the values (above 65,504 they would become
    infinite, below 6e-8 zero) the array goes on in bfloat16, and what is written already is converted.

    Args:
        path: The file.
        shapes: Name and shape of every array; the first dimension are the rows.
        half: Names of those in half precision; the others are float32.
        description: What is stored, as plain JSON.

    Raises:
        NotStoredError: If it cannot be written; likewise from the methods.
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], half: Collection[str], description: Mapping[str, Any]
    ) -> None:
        self.description = dict(description)
        self._arrays: dict[str, dict[str, Any]] = {
            name: {"dtype": "float16" if name in half else "int64" if name == "rows" else "float32", "shape": shape}
            for name, shape in shapes.items()
        }
        self._squares = {name: [0.0, 0.0] for name in half}  # of rounding errors, of values
        start = len(json.dumps([self.description, self._arrays])) + HEADER_ROOM
        self._start = offset = _round_up(HEAD.size + start, HEADER_STEP)
        for array in self._arrays.values():
            array["offset"] = offset
            offset = _round_up(offset + math.prod(array["shape"]) * DTYPES[array["dtype"]].itemsize, ALIGN)
        self._end = offset
        self._file = _written(open, path, "w+b")

    def write(self, name: str, row: int, values: Tensor) -> None:
        """Write some rows of an array from `row` on."""
        array, values = self._arrays[name], values.detach().cpu()
        stored = values.to(DTYPES[array["dtype"]])
        if name in self._squares:
            error, size = _norms(stored, values)
            if array["dtype"] == "float16" and error > BFLOAT16_ERROR * size:
                self._convert(name, row)
                stored = values.bfloat16()
                error, size = _norms(stored, values)
            self._count(name, error, size)
        self._put(name, row, stored)

    def close(self, **figures: Any) -> None:
        """Write the header, with some more figures for the description, and close the file."""
        _written(self._file.truncate, self._end)
        self._file.seek(self._start)
        header = {
            "description": {**self.description, "rounding": self.rounding, **figures},
            "bytes": self._end - self._start,
            "crc32": _checksum(self._file.read),
            "arrays": self._arrays,
        }
        text = json.dumps(header).encode().ljust(self._start - HEAD.size)
        _written(self._file.seek, 0)
        _written(self._file.write, HEAD.pack(MAGIC, len(text), zlib.crc32(text)) + text)
        _written(self._file.flush)
        _written(os.fsync, self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close a file, finished or not."""
        with contextlib.suppress(OSError):  # what is still buffered for a full disk
            self._file.close()

    @property
    def rounding(self) -> float:
        """‖rounded − exact‖ / ‖exact‖ over all values in half precision."""
        errors = sum(error for error, _ in self._squares.values())
        values = sum(value for _, value in self._squares.values())
        return math.sqrt(errors / values) if values else 0.0

    @property
    def dtypes(self) -> dict[str, str]:
        """Type of every array."""
        return {name: array["dtype"] for name, array in self._arrays.items()}

    def _put(self, name: str, row: int, stored: Tensor) -> None:
        array = self._arrays[name]
        row_bytes = math.prod(array["shape"][1:]) * stored.element_size()
        _written(self._file.seek, array["offset"] + row * row_bytes)
        _written(self._file.write, stored.contiguous().view(torch.uint8).numpy().data)

    def _convert(self, name: str, rows: int) -> None:
        """Turn the rows of an array that are there already from float16 to bfloat16, in place."""
        array = self._arrays[name]
        width = math.prod(array["shape"][1:])
        array["dtype"] = "bfloat16"
        step = max(1, PIECE // (2 * width))
        for row in range(0, rows, step):
            count = min(step, rows - row) * width
            self._file.seek(array["offset"] + row * width * 2)
            before = torch.from_numpy(np.frombuffer(self._file.read(2 * count), np.float16).astype(np.float32))
            stored = before.bfloat16()
            self._count(name, _norms(stored, before)[0], 0.0)
            self._put(name, row, stored)

    def _count(self, name: str, error: float, size: float) -> None:
        self._squares[name][0] += error**2
        self._squares[name][1] += size**2


def read_knowledge_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check a file and map it into memory; processes on one machine share its pages.

    Returns:
        The description, and the arrays: read-only, on the CPU.

    Raises:
        DamagedFileError: If it is cut short or altered, or no file of knowledge.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        header = _check(file.read, os.fstat(file.fileno()).st_size)
    return header["description"], _arrays(header, np.memmap(path, np.uint8, mode="r"))


def read_knowledge_bytes(content: np.ndarray) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Check the content of such a file [bytes]; the arrays stay where it is.

    Raises:
        DamagedFileError: As for a file.
    """
    place = 0

    def read(count: int) -> bytes:
        nonlocal place
        place += count
        return content[place - count : place].tobytes()

    header = _check(read, content.size)
    return header["description"], _arrays(header, content)


def fingerprint(path: Path) -> str:
    """Name the content of a file by its header, which has the checksum of all that follows; "" if there is none."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD.size)
            text = file.read(HEAD.unpack(head)[1]) if len(head) == HEAD.size and head.startswith(MAGIC) else b""
    except OSError:
        return ""
    return hashlib.sha256(text).hexdigest() if text else ""


def _check(read: Callable[[int], bytes], size: int) -> dict[str, Any]:
    """Read all of a file, and give its header."""
    head = read(HEAD.size)
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        raise DamagedFileError("it does not begin like one")
    _, length, checksum = HEAD.unpack(head)
    text = read(length)
    if len(text) < length or zlib.crc32(text) != checksum:
        raise DamagedFileError("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    start = HEAD.size + length
    if size != start + header["bytes"]:
        raise DamagedFileError(f"it has {size:,} bytes instead of {start + header['bytes']:,}")
    if _checksum(read) != header["crc32"]:
        raise DamagedFileError("its checksum differs")
    return header


def _arrays(header: Mapping[str, Any], content: np.ndarray) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # Mapped read-only: a private writable map of a file larger than the memory would be refused.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        raw = torch.from_numpy(content)
    return {name: _array(raw, **array) for name, array in header["arrays"].items()}


def _array(raw: Tensor, dtype: str, shape: list[int], offset: int) -> Tensor:
    kind = DTYPES[dtype]
    return raw[offset : offset + math.prod(shape) * kind.itemsize].view(kind).view(shape)


def _checksum(read: Callable[[int], bytes]) -> int:
    """Of all that is left to read."""
    checksum = 0
    while piece := read(PIECE):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def _norms(stored: Tensor, values: Tensor) -> tuple[float, float]:
    """Norms of the rounding errors and of the values; squares of large float32 numbers need float64."""
    error = torch.linalg.vector_norm(stored.float() - values, dtype=torch.float64)
    return float(error), float(torch.linalg.vector_norm(values, dtype=torch.float64))


def _written(function: Any, *arguments: Any) -> Any:
    """Call something that writes; a full or read-only disk is told apart from other errors of the system."""
    try:
        return function(*arguments)
    except OSError as error:
        raise NotStoredError(error.strerror or str(error)) from None


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
