"""Files that are there complete, or not at all."""

from __future__ import annotations

import contextlib
import glob
import secrets
from pathlib import Path

PARTIAL = ".partial"  # the end of a name, while a file is written


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file in place of the one that is there, which stays as it is where the new one cannot be written.

    Raises:
        OSError: With the name of the file: the disk is full, read-only ...
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")  # processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def remove(path: Path) -> None:
    """Remove a file, where it is there and can be removed, and what is left of whoever was killed while writing it."""
    for left in (path, *path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}")):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)
