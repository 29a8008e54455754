"""Running out of memory: a training goes on with smaller pieces of its batches, and a study in any case."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from optuna_kd.training.rejection import OutOfMemory


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is short, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    # The allocator of the CPU, and libraries of the GPU, raise plain RuntimeErrors.
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "ALLOC_FAILED" in text or "out of memory" in text
    )


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
