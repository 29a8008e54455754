"""Ranks: processes that train one student together, each on its slice of every batch, and that decide alike.

What a training asks of them; here the process is on its own, and in `distributed` there are many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from optuna_kd.stopping import TrainingInterrupted

T = TypeVar("T")
Terms = dict[str, Tensor]
Exchange = Callable[[Callable[[], Terms]], Terms]


class RankLostError(TrainingInterrupted):
    """Another rank has ended or does not answer; a training that keeps a checkpoint goes on from there."""


class RankFailedError(RuntimeError):
    """Another rank has failed, with an error of its own."""


class Ranks:
    """The processes that train one student. This one is on its own, and all of it is free; see `join_ranks`.

    All ranks call the same methods in the same order.
    """

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and speaks for all."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Give the device of this rank.

        Args:
            name: What was asked for: "auto", "cpu", "cuda", ...

        Raises:
            ValueError: If each rank cannot have one of its own.
        """
        return name

    def part(self, batch: Tensor) -> Tensor:
        """Give this rank's slice of a batch [B].

        Raises:
            ValueError: If it has fewer images than there are ranks.
        """
        return batch

    def agree(self, decide: Callable[[], T]) -> T:
        """Give every rank what rank 0 decides.

        Args:
            decide: Called on rank 0 alone, for as long as it takes; gives plain JSON, or one number. What it raises is
                raised on all ranks: a rejected loss as it is, anything else as `RankFailedError` on the others.
        """
        return decide()

    def any(self, wish: bool) -> bool:
        """Tell every rank whether one of them has a wish."""
        return wish

    def sum(self, values: Tensor) -> Tensor:
        """Give every rank the sum of their values, in float64 on the CPU."""
        return values.double().cpu()

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Give a context in which what fails on one rank fails on all; there the ranks do not call each other."""
        return contextlib.nullcontext()

    def exchange(self, parameters: Sequence[nn.Parameter], names: Sequence[str]) -> Exchange:
        """Give a function that takes the backward pass of a step, and adds up over all ranks what comes of it.

        Args:
            parameters: Whose gradients are summed; each rank weights its loss by its share of the batch.
            names: Of the loss terms that the backward pass gives; they are summed as well.
        """
        return _as_it_is

    def unify(self, share: float, *modules: nn.Module) -> None:
        """Make the buffers equal: running statistics of batch normalisation are averaged, others are rank 0's.

        Args:
            share: Of each batch that this rank sees.
            modules: The same on each rank.
        """

    def state_of_leader(self, state: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Give the other ranks a state of rank 0 (tensors and numbers), and rank 0 itself None."""
        return None

    def require_same(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        """Refuse to train on ranks that have been given different things.

        Args:
            facts: Gives plain JSON.

        Raises:
            ValueError: Naming both sides of every difference.
        """


ALONE = Ranks()


def _as_it_is(backward: Callable[[], Terms]) -> Terms:
    return backward()


@contextlib.contextmanager
def connection() -> Iterator[None]:
    """Name the error of a group that has fallen apart."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RankLostError(f"Another of the processes that train together has ended or hangs: {reason}") from error
