"""What a training hands out as it goes: lessons to be learned, and rungs where it may be stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from optuna_kd.rewards import Metrics
from optuna_kd.seeds import derive_seed

if TYPE_CHECKING:
    from optuna_kd.training.trainer import StudentTraining


@dataclass(frozen=True)
class Rung:
    """A point in a training where it may be stopped: the epoch, and what the student scores there."""

    epoch: int
    metrics: Metrics
    losses: dict[str, float] = field(default_factory=dict)


class MeanTerms:
    """The mean of loss terms over the steps of an epoch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add those of one step."""
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def values(self) -> dict[str, float]:
        """Give the mean of each."""
        return {name: float(value) / self._count for name, value in self._sums.items()}


class Batch(NamedTuple):
    """What a student is shown in one step.

    Args:
        view: Which augmented version of the images.
        indices: Of the training images [B].
        images: Prepared for the networks [B, C, H, W].
        labels: [B].
    """

    view: int
    indices: Tensor
    images: Tensor
    labels: Tensor


@dataclass(eq=False)
class Lesson:
    """One step of a training, to be learned: on its own, or beside those of other trainings (`learn_together`).

    Args:
        training: Whose step it is.
        epoch, step: Which one.
        indices: Of its training images [B].
        progress: Share of the training that is over.
        raw: These images [B, C, H, W] where they have been read ahead, else None.
        share: Of the batch that these images are, where other ranks have the rest.
        terms: The loss terms and their `total`, detached; there once it is learned.
    """

    training: StudentTraining
    epoch: int
    step: int
    indices: Tensor
    progress: float
    raw: Tensor | None = None
    share: float = 1.0
    terms: dict[str, Tensor] = field(default_factory=dict)

    def learn(self) -> None:
        """Take the step."""
        self.training.learn(self)

    def seed(self, piece: int = 0) -> int:
        """Derive the seed of what is drawn in this step, or in one piece of its batch."""
        rank = self.training.ranks.rank
        others = (f"rank {rank}",) if rank else ()  # draw something else than rank 0, which draws as one on its own
        return derive_seed(self.training.seed, "step", self.epoch, self.step, *([piece] if piece else []), *others)
