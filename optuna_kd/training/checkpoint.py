"""Trainings that go on where they were interrupted: their state on disk, after a rung or when asked to stop."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from optuna_kd.files import remove, write_whole
from optuna_kd.stopping import TrainingInterrupted

logger = logging.getLogger(__name__)

VERSION = 2  # of the files
EVERY = 60.0  # seconds of training within a rung after which its state is kept as well
DIGEST = hashlib.sha256().digest_size  # bytes, ahead of the rest of a file


@dataclass
class Checkpoint:
    """The file of one training, which stops where it is asked to (`optuna_kd.stopping`).

    The file holds tensors and numbers alone and is read as such (`torch.load(weights_only=True)`), after its checksum
    was compared. One that is cut short, altered or of another training is left aside, and the training begins anew:
    with the same result, only later.

    Args:
        file: Where the state is kept; None keeps nothing.
        identity: What makes the training what it is (recipe, seed, data, schedule), as plain JSON.
        limit: Bytes that the files of the folder may have together; what would go beyond is not kept.
    """

    file: Path | None
    identity: Mapping[str, Any] = field(default_factory=dict)
    limit: float = math.inf
    _written: float = field(default_factory=time.monotonic)
    _refused: bool = False

    def load(self) -> dict[str, Any] | None:
        """Read the state that was kept, or None."""
        if self.file is None:
            return None
        try:
            content = self.file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            logger.warning("Starting over: the checkpoint %s cannot be read (%s).", self.file, error.strerror)
            return None
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            logger.warning("Starting over: the checkpoint %s is damaged.", self.file)
            return None
        try:
            stored = torch.load(io.BytesIO(content[DIGEST:]), map_location="cpu", weights_only=True)
            if stored["identity"] != self._identity():
                logger.info("Starting over: the checkpoint %s is of another training.", self.file)
                return None
            state: dict[str, Any] = stored["state"]
        except Exception as error:  # whoever can write a checksum can write anything behind it
            logger.warning("Starting over: the checkpoint %s cannot be used (%s).", self.file, type(error).__name__)
            return None
        return state

    def after_epoch(self, state: Callable[[], dict[str, Any]], *, at_rung: bool, asked: bool) -> None:
        """Keep the state where it is time to, and stop if that is wished.

        Args:
            state: Gives it.
            at_rung: Whether the epoch ends a cycle, whose state is always kept.
            asked: Whether the training is to stop.

        Raises:
            TrainingInterrupted: If it is.
        """
        if at_rung or asked or time.monotonic() - self._written > EVERY:
            self._write(state)
        if asked:
            raise TrainingInterrupted

    @contextlib.contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Remove the file when the training has ended, well or badly; keep it when it was only interrupted."""
        try:
            yield
        except (TrainingInterrupted, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:
            self._delete()
            raise
        self._delete()

    def _delete(self) -> None:
        if self.file is not None:
            remove(self.file)

    def _write(self, state: Callable[[], dict[str, Any]]) -> None:
        if self.file is None or self._refused:
            return
        buffer = io.BytesIO()
        torch.save({"identity": self._identity(), "state": state()}, buffer)
        content = buffer.getvalue()
        try:
            others = sum(file.stat().st_size for file in self.file.parent.glob("*.ckpt") if file != self.file)
            if others + len(content) > self.limit:
                raise OSError(f"the limit of {self.limit / 2**30:.1f} GiB for all checkpoints is reached")
            write_whole(self.file, hashlib.sha256(content).digest() + content)
        except OSError as error:
            self._refused = True
            _warn(self.file.parent, error.strerror or str(error))
        self._written = time.monotonic()

    def _identity(self) -> str:
        # Another torch may round otherwise.
        described = {"version": VERSION, "torch": torch.__version__, **self.identity}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@cache  # once, and not for every trial
def _warn(folder: Path, reason: str) -> None:
    logger.warning("No checkpoints are kept in %s (%s): an interrupted training starts over.", folder, reason)


def checkpoint_file(folder: Path, *parts: object) -> Path:
    """Name the file of a training in a folder, which no part of the name can leave."""
    return folder / (re.sub(r"[^A-Za-z0-9_-]", "-", "-".join(map(str, parts))) + ".ckpt")


NO_CHECKPOINT = Checkpoint(None)
