"""Many ranks: the processes that `torchrun` starts, with gloo on CPUs and NCCL on GPUs.

Nothing wraps the student. `DistributedDataParallel` averages the gradients of the module that it wraps and knows of
nothing else: not of the distiller's adapters, of a loss that one process refuses, or of memory that is short on one.
Here all that travels in one message a step (`exchange`), and decisions are made on rank 0.

A rank that has ended is noticed at once by those that wait for it, one that hangs after a while; either raises
`RankLostError`. `torchrun` ends the others then, and starts all of them again if it is told to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optuna_kd.distillers import DeadTermError
from optuna_kd.training.exchange import GradientExchange
from optuna_kd.training.ranks import ALONE, Exchange, RankFailedError, Ranks, T, connection
from optuna_kd.training.rejection import LossRejected, OutOfMemory

STEP = timedelta(minutes=10)  # within which all ranks have to come to the end of a step
PATIENCE = timedelta(days=1)  # with rank 0, which may have a teacher to train first


@contextlib.contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` has started, gloo on CPUs and NCCL on GPUs; `ALONE` where there are none.

    A process group that is there already is used.
    """
    started = dist.is_available() and dist.is_initialized()
    if not started and (os.environ.get("WORLD_SIZE", "1") == "1" or "MASTER_ADDR" not in os.environ):
        yield ALONE
        return
    if not started:
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=STEP)
    decisions = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(decisions, dist.ProcessGroup)  # of all processes, so of this one
    ranks = ManyRanks(decisions)
    try:
        yield ranks
        dist.barrier(decisions)  # who ends first would end the meeting point under the others, which can abort them
    finally:
        dist.destroy_process_group(decisions if started else None)
        # Its threads end with the last reference to it. One that still runs when Python ends aborts the process.
        ranks.leave()
        del decisions


class ManyRanks(Ranks):
    """One of several processes that train one student; `join_ranks` gives it.

    Args:
        decisions: A process group for tensors on the CPU: decisions are made there. Gradients go by the default group.
    """

    def __init__(self, decisions: dist.ProcessGroup) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._decisions: dist.ProcessGroup | None = decisions

    def leave(self) -> None:
        """Let go of the process group."""
        self._decisions = None

    def device(self, name: str) -> str:
        """Give the device of this rank: of the GPUs of a machine the one with its local number."""
        kind, _, number = name.partition(":")
        if number:
            raise ValueError(f"Several processes cannot share {name!r}: say --device {kind}, and each takes its own.")
        if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if kind not in ("auto", "cuda"):
            raise ValueError(f"Several processes train on CPUs or CUDA devices; got {name!r}.")
        local, count = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f"Each process takes a GPU of its own, but this is number {local + 1} on a machine with {count}: start "
                "one for each GPU, or say --device cpu."
            )
        torch.cuda.set_device(local)  # where NCCL, and whatever is created without a device, goes
        return f"cuda:{local}"

    def part(self, batch: Tensor) -> Tensor:
        """Give this rank's slice of a batch [B]: slices differ by one image at most."""
        if len(batch) < self.size:
            raise ValueError(
                f"A batch of {len(batch)} images cannot be shared by {self.size} processes: start fewer, or use larger "
                "batches."
            )
        return batch.tensor_split(self.size)[self.rank]

    def agree(self, decide: Callable[[], T]) -> T:
        """Give every rank what rank 0 decides."""
        error: Exception | None = None
        told = ""
        if self.leads:
            try:
                told = json.dumps({"decided": decide()}, default=_plain)
            except Exception as raised:
                error, told = raised, _tell(self.rank, raised)
        message = json.loads(self._broadcast(0, told.encode()))
        if "decided" not in message:
            raise _reason(message, error)
        decided: T = message["decided"]
        return decided

    def any(self, wish: bool) -> bool:
        """Tell every rank whether one of them has a wish."""
        return bool(self.sum(torch.tensor(float(wish))))

    def sum(self, values: Tensor) -> Tensor:
        """Give every rank the sum of their values, in float64 on the CPU."""
        total = values.detach().to("cpu", torch.float64, copy=True)
        with connection():
            dist.all_reduce(total, group=self._decisions)
        return total

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Give a context in which what fails on one rank fails on all."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        self.settle(self.sum(self.failures(error)).tolist(), error)

    def failures(self, error: Exception | None) -> Tensor:
        """Say whether this rank has failed, as its part of a sum [ranks]."""
        failed = torch.zeros(self.size)
        failed[self.rank] = float(error is not None)
        return failed

    def settle(self, failed: Sequence[float], error: Exception | None) -> None:
        """Fail on every rank where one has failed.

        Args:
            failed: Of each rank, whether it has: the same on all of them.
            error: What this rank has failed with.

        Raises:
            LossRejected, OutOfMemory, DeadTermError: What the first of them has failed with.
            RankFailedError: If that is another error, on ranks that have none.
        """
        first = next((rank for rank, has_failed in enumerate(failed) if has_failed), None)
        if first is None:
            return
        told = "" if error is None or self.rank != first else _tell(first, error)
        raise _reason(json.loads(self._broadcast(first, told.encode())), error)

    def exchange(self, parameters: Sequence[nn.Parameter], names: Sequence[str]) -> Exchange:
        """Give a function that adds up gradients and loss terms over all ranks."""
        return GradientExchange(self, parameters, names)

    def unify(self, share: float, *modules: nn.Module) -> None:
        """Make the buffers equal."""
        averaged: list[Tensor] = []
        others: list[Tensor] = []
        for part in (part for module in modules for part in module.modules()):
            for name, buffer in part.named_buffers(recurse=False):
                is_statistic = isinstance(part, _BatchNorm) and name in ("running_mean", "running_var")
                (averaged if is_statistic else others).append(buffer)
        if averaged:
            means = self.sum(share * torch.cat([buffer.flatten().double() for buffer in averaged]))
            for buffer, mean in zip(averaged, means.split([buffer.numel() for buffer in averaged]), strict=True):
                buffer.copy_(mean.view_as(buffer))
        given = self.state_of_leader(lambda: {str(place): buffer for place, buffer in enumerate(others)}) or {}
        for place, value in given.items():
            others[int(place)].copy_(value)

    def state_of_leader(self, state: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Give the other ranks a state of rank 0."""
        content = io.BytesIO()
        if self.leads:
            torch.save(state(), content)
        received = self._broadcast(0, content.getvalue())
        if self.leads:
            return None
        given: dict[str, Any] = torch.load(io.BytesIO(received), map_location="cpu", weights_only=True)
        return given

    def require_same(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """Refuse to train on ranks that have been given different things."""
        mine = json.loads(json.dumps(facts()))
        wanted = self.agree(lambda: mine)
        differences = [
            f"{name}: {mine.get(name)!r} here, {wanted.get(name)!r} on rank 0"
            for name in {**wanted, **mine}
            if mine.get(name) != wanted.get(name)
        ]
        with self.together():
            if differences:
                raise ValueError(f"Rank {self.rank} was given something else than rank 0: {'; '.join(differences)}.")

    def _broadcast(self, source: int, content: bytes) -> bytes:
        """Give every rank what one of them has; never empty."""
        length = torch.tensor(len(content))
        with connection():
            dist.broadcast(length, source, group=self._decisions)
            data = torch.empty(int(length), dtype=torch.uint8)
            if self.rank == source:
                data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(data, source, group=self._decisions)
        return data.numpy().tobytes()


_SHARED = {kind.__name__: kind for kind in (LossRejected, OutOfMemory, DeadTermError)}  # what every rank raises itself


def _plain(value: Any) -> Any:
    """Turn a scalar of NumPy or torch into a number: pruners give `numpy.bool`."""
    if callable(item := getattr(value, "item", None)):
        return item()
    raise TypeError(f"Ranks agree on plain JSON; got {type(value).__name__}.")


def _tell(rank: int, error: Exception) -> str:
    """Describe an error to the other ranks."""
    kind = type(error).__name__
    if _SHARED.get(kind) is type(error):
        return json.dumps({"kind": kind, "arguments": error.__reduce__()[1]})
    return json.dumps({"failed": f"Rank {rank} has failed: {kind}: {error}"})


def _reason(told: dict[str, Any], own: Exception | None) -> Exception:
    """Give what to raise where a rank has failed: the same on all, but for errors that only their rank can raise."""
    if "kind" in told:
        return _SHARED[told["kind"]](*told["arguments"])
    if own is not None and type(own) not in _SHARED.values():
        return own
    return RankFailedError(told["failed"])
