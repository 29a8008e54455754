"""A disk that fills up, or cannot be written to: also by root, to whom permissions mean nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Disk:
    """A file system of 16 MB in memory."""

    folder: Path

    def __post_init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("A disk of its own can only be mounted by root.")
        self.folder.mkdir()
        self._mount("size=16m")

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free."""
        free = shutil.disk_usage(self.folder).free
        (self.folder / "ballast").write_bytes(bytes(free - leave))

    def empty(self) -> None:
        """Take away what filled it."""
        (self.folder / "ballast").unlink()

    def forbid(self) -> None:
        """Let nobody write to it."""
        self._mount("remount,ro")

    def remove(self) -> None:
        """Take it away, also while files on it are open."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"A disk of its own cannot be mounted here: {done.stderr.strip()}")
