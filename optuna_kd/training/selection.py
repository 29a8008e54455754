"""The student of the epoch with the best validation accuracy, which many published results are of."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from optuna_kd.training.evaluation import accuracy
from optuna_kd.training.memory import memory_guard
from optuna_kd.training.ranks import ALONE, Ranks
from optuna_kd.training.task import ImageClassification

TAIL = 0.25  # of the epochs: at the end of a cosine cycle, where its best ones are; all would cost a tenth of the time


class Selection:
    """Watches a training, and keeps the weights of its best epoch among the last quarter.

    Ours is the student of the last epoch. This one stands beside it, because the two are often compared: quoting the
    best epoch on the test data would make every result better, on the validation data it need not.

    Args:
        task: Whose validation data choose.
        epochs: Of the training.
        ranks: The processes that train together; rank 0 looks.
    """

    def __init__(self, task: ImageClassification, epochs: int, ranks: Ranks = ALONE) -> None:
        self._task, self._ranks = task, ranks
        self._first = epochs - math.ceil(TAIL * epochs) + 1
        self.epoch: int | None = None
        self._accuracy = -1.0
        self._state: dict[str, Tensor] | None = None

    def after_epoch(self, student: nn.Module, epoch: int) -> None:
        """Look at the student after so many epochs; of equally good ones the first is kept."""
        if epoch < self._first:
            return
        with memory_guard("scoring the validation images"):
            found = self._ranks.agree(lambda: accuracy(self._task, student, "val"))
        if found > self._accuracy:
            self.epoch, self._accuracy = epoch, found
            self._state = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}

    def student(self, last: nn.Module) -> nn.Module:
        """Give the student of the best epoch, on the grounds of the last one, which stays as it is."""
        assert self._state is not None
        chosen = copy.deepcopy(last)
        chosen.load_state_dict(self._state)
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Give what to go on from."""
        return {"epoch": self.epoch, "accuracy": self._accuracy, "student": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self._accuracy, self._state = state["epoch"], state["accuracy"], state["student"]
