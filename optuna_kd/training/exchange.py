"""The exchange at the end of a step: gradients, loss terms, and how each rank has fared, in one message."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from optuna_kd.training.ranks import Terms, connection

if TYPE_CHECKING:
    from optuna_kd.training.distributed import ManyRanks


class GradientExchange:
    """Sums the gradients of a step over the ranks, its loss terms, and how each rank has fared.

    Args:
        ranks: Of the default process group.
        parameters: All on one device.
        names: Of the loss terms.
    """

    def __init__(self, ranks: ManyRanks, parameters: Sequence[nn.Parameter], names: Sequence[str]) -> None:
        self._ranks, self._parameters, self._names = ranks, list(parameters), list(names)
        dtype = functools.reduce(torch.promote_types, (one.dtype for one in parameters), torch.float32)
        sizes = [ranks.size, len(self._names), len(self._parameters), *(one.numel() for one in parameters)]
        # Kept through the training: memory that is short is found out before it, and not between two ranks.
        self._message = torch.zeros(sum(sizes), dtype=dtype, device=self._parameters[0].device)
        self._failed, self._terms, self._present, *gradients = self._message.split(sizes)
        self._gradients = [flat.view_as(one) for flat, one in zip(gradients, parameters, strict=True)]
        self._head = self._message[: sum(sizes[:3])]

    @torch.no_grad()
    def __call__(self, backward: Callable[[], Terms]) -> Terms:
        """Run the backward pass of this rank; leave the sums of all of them in the parameters, and give the terms.

        A rank that fails sends zeros, and all of them raise its reason.
        """
        terms, error = {}, None
        try:
            with torch.enable_grad():
                terms = backward()
        except Exception as raised:
            error = raised
        self._message.zero_()
        self._failed.copy_(self._ranks.failures(error))
        if error is None:
            self._terms.copy_(torch.stack([terms[name] for name in self._names]))
            # A term whose weight is still zero gives its adapter no gradient, and that is not one of zeros.
            given = [one.grad is not None for one in self._parameters]
            self._present.copy_(torch.tensor(given))
            self._copy(given, to_message=True)
        with connection():
            dist.all_reduce(self._message)
            head = self._head.tolist()
        self._ranks.settle(head[: self._ranks.size], error)
        present = [count > 0 for count in head[len(head) - len(self._parameters) :]]
        for one, is_present in zip(self._parameters, present, strict=True):
            if is_present and one.grad is None:
                one.grad = torch.empty_like(one)
        self._copy(present, to_message=False)
        return dict(zip(self._names, self._terms.clone().unbind(), strict=True))

    def _copy(self, which: Sequence[bool], *, to_message: bool) -> None:
        pairs = zip(self._parameters, self._gradients, which, strict=True)
        chosen = [(one.grad, place) for one, place, is_chosen in pairs if is_chosen and one.grad is not None]
        if chosen:
            gradients, places = (list(tensors) for tensors in zip(*chosen, strict=True))
            torch._foreach_copy_(*((places, gradients) if to_message else (gradients, places)))
