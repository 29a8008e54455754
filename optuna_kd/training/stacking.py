"""Students of the same layers as one network: their parameters stacked, one operation for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from optuna_kd.models import unwrap
from optuna_kd.models.knowledge import Knowledge, Observer
from optuna_kd.training.memory import is_out_of_memory
from optuna_kd.training.trainer import StudentTraining

Outputs = tuple[tuple[Tensor, ...], Tensor]
TOLERANCE = 1e-3  # of the largest output: what the order of sums may change


class NotStackableError(RuntimeError):
    """Students that cannot run as one network, or do not give the same outputs then."""


def stack_key(training: StudentTraining) -> Hashable:
    """Tell which students can be stacked: those with equal keys have the same layers, and the same one is tapped."""
    student = unwrap(training.student)
    return type(student), repr(student), training.observer.layers, str(next(student.parameters()).dtype)


class StackedStudents:
    """Students of the same layers, stacked along a new first dimension.

    The students keep their own parameters: these are stacked anew in every pass, and gradients arrive at each. Their
    buffers (running statistics) become views of one stacked buffer for good.

    Args:
        trainings: With equal `stack_key`, on one device.

    Raises:
        NotStackableError: If they cannot run as one, for instance because they draw random numbers, or if the outputs
            are not those of each alone.
    """

    def __init__(self, trainings: Sequence[StudentTraining]) -> None:
        self.trainings = tuple(trainings)
        self._network = _Tapped(trainings[0].observer)
        students = [training.observer.model for training in trainings]
        names = dict(students[0].named_parameters())
        parameters = [dict(student.named_parameters()) for student in students]
        self._parameters = {f"model.{name}": [one[name] for one in parameters] for name in names}
        self._buffers = {}
        for name, _ in list(students[0].named_buffers()):
            owners = [student.get_submodule(name.rpartition(".")[0]) for student in students]
            leaf = name.rpartition(".")[2]
            stacked = torch.stack([cast(Tensor, getattr(owner, leaf)) for owner in owners])
            for owner, view in zip(owners, stacked.unbind(), strict=True):
                setattr(owner, leaf, view)
            self._buffers[f"model.{name}"] = stacked

    def __call__(self, images: Tensor) -> list[Knowledge]:
        """Run every student on its own images.

        Args:
            images: [S, B, C, H, W], a batch for each of S students.
        """
        with self.trainings[0].precision.autocast():
            return self._run(images, self._buffers)

    @torch.no_grad()
    def check(self, images: Tensor) -> None:
        """Compare with the students alone; no running statistics move.

        Raises:
            NotStackableError: If they differ.
        """
        copies = {name: buffer.clone() for name, buffer in self._buffers.items()}
        try:
            together = self._run(images, copies)
        except Exception as error:  # of a user's network, which may do anything
            if is_out_of_memory(error):
                raise
            raise NotStackableError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
        for index, known in enumerate(together):
            buffers = {name: buffer[index].clone() for name, buffer in self._buffers.items()}
            own: dict[str, Tensor] = {name: parameters[index] for name, parameters in self._parameters.items()}
            features, logits = functional_call(self._network, (own, buffers), (images[index],))
            for mine, alone in zip([*known.features, known.logits], [*features, logits], strict=True):
                if not float((mine - alone).abs().max()) <= TOLERANCE * max(1.0, float(alone.abs().max())):
                    raise NotStackableError("their outputs are not those of each alone")

    def _run(self, images: Tensor, buffers: dict[str, Tensor]) -> list[Knowledge]:
        stacked = {name: torch.stack(list(parameters)) for name, parameters in self._parameters.items()}

        def run(parameters: dict[str, Tensor], statistics: dict[str, Tensor], batch: Tensor) -> Outputs:
            return cast(Outputs, functional_call(self._network, (parameters, statistics), (batch,)))

        features, logits = vmap(run, randomness="error")(stacked, buffers, images)
        # Unbound and not indexed: the backward pass of an index makes a whole stack of zeros for every student.
        maps = zip(*(layer.unbind() for layer in features), strict=True)
        return [Knowledge(own, scores) for own, scores in zip(maps, logits.unbind(), strict=True)]


class _Tapped(nn.Module):
    """A student with its taps, as a module whose outputs are tensors."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.model, self._observer = observer.model, observer

    def forward(self, images: Tensor) -> Outputs:
        known = self._observer(images)
        return known.features, known.logits
