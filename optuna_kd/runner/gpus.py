"""The GPUs of one machine, shared out among its worker processes: worker i sees GPU i mod count, and no other."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import cloudpickle
import torch

from optuna_kd.runner.numbering import take_number

Context = TypeVar("Context")

VISIBLE = "CUDA_VISIBLE_DEVICES"


def share_gpus(
    create_context: Callable[[], Context], device: str, workers: int, folder: Path, say: Callable[[str], object]
) -> Callable[[], Context]:
    """Let each of several worker processes create its context on a GPU of its own, where there are several.

    Args:
        create_context: Called once in every process.
        device: As asked for: "cuda" is any GPU, "cuda:1" a certain one.
        workers: Processes.
        folder: Of this run, for the numbers of its workers.
        say: Told in one line how they are shared out.
    """
    if workers == 1 or device != "cuda" or torch.cuda.current_device() != 0:  # else "cuda" is a certain one, too
        return create_context
    gpus = visible_gpus()
    if gpu_of(device, 0, gpus) is None:
        return create_context
    say(shared_out(workers, len(gpus)))
    return OnItsGPU(cloudpickle.dumps(create_context), device, tuple(gpus), folder)


def gpu_of(device: str, worker: int, gpus: Sequence[str]) -> str | None:
    """Say which GPU a worker is given; None if it takes the device as it is.

    Args:
        device: As asked for.
        worker: Its number, from 0.
        gpus: All there are, as CUDA_VISIBLE_DEVICES names them.
    """
    return gpus[worker % len(gpus)] if device == "cuda" and len(gpus) > 1 else None


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers or identifiers."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


def shared_out(workers: int, gpus: int) -> str:
    """Say in one line how many workers each GPU has."""
    low, more = divmod(workers, gpus)
    each = f"{low} on each" if not more else f"{low + 1} on {more} of them" + (f", {low} on the others" if low else "")
    return f"GPUs       {workers} workers share {gpus} GPUs: {each}"


@dataclass(frozen=True)
class OnItsGPU(Generic[Context]):
    """Creates a context in a worker process that sees one GPU alone, which is `cuda` and `cuda:0` there.

    Args:
        packed: What creates the context, pickled. It is unpacked when the process sees its GPU: a tensor that was on
            `cuda:0` arrives on `cuda:0`, and no process takes memory of another one's GPU.
        device: As asked for.
        gpus: All there are.
        folder: Where the workers have their numbers.
    """

    packed: bytes
    device: str
    gpus: tuple[str, ...]
    folder: Path

    def __call__(self) -> Context:
        """Take a number, see its GPU, and create the context."""
        gpu = gpu_of(self.device, take_number(self.folder), self.gpus)
        if gpu is not None:
            os.environ[VISIBLE] = gpu
        create_context: Callable[[], Context] = pickle.loads(self.packed)
        return create_context()
