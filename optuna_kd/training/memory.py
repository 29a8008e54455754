"""Running out of memory: a training goes on with smaller pieces of its batches, and a study in any case."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from optuna_kd.training.rejection import OutOfMemory

logger = logging.getLogger(__name__)

LEAST_IMAGES = 8  # of a piece of a batch
SHORT = ("can't allocate memory", "ALLOC_FAILED", "out of memory")
ONEDNN = ("could not create a primitive", "could not create a memory")
T = TypeVar("T")


def in_pieces(work: Callable[[int], T], count: int, pieces: int) -> tuple[T, int]:
    """Do something with a batch, cut into more pieces each time that memory is short.

    Args:
        work: Called with the number of pieces.
        count: Images of the batch.
        pieces: Into how many it is cut at first.

    Returns:
        What `work` gave, and the number of pieces that it took.

    Raises:
        OutOfMemory: If pieces of 8 images are too large.
    """
    while True:
        try:
            return work(pieces), pieces
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory()  # here, where the error does not hold the tensors any more
        pieces *= 2
        images = -(-count // pieces)
        if images < LEAST_IMAGES:
            raise OutOfMemory(f"out of memory with {2 * images} of {count} images at a time")
        logger.warning("Out of memory: going on with %d of the %d images of a batch at a time.", images, count)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is short, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    # The allocator of the CPU, and libraries of the GPU, raise plain RuntimeErrors. So does oneDNN, which says nothing
    # of memory; for an operation that it does not have, it could not create a "primitive descriptor".
    return any(words in text for words in SHORT) or (text.startswith(ONEDNN) and "descriptor" not in text)


def release_memory() -> None:
    """Give back what nobody uses any more, after a failed attempt."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def memory_guard(doing: str) -> Iterator[None]:
    """Turn running out of memory into `OutOfMemory`, which ends a trial and not a study.

    Args:
        doing: What needs the memory, for the message.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        return
    release_memory()
    raise OutOfMemory(f"out of memory while {doing}: {reason}")
