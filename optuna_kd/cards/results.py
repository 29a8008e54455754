"""What a method scored, seed by seed, and the interval that its mean lies in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from optuna_kd.cards.checks import CardError, require_list, require_object, require_share, require_text

LEVEL = 0.95


@dataclass(frozen=True)
class MethodResult:
    """The full trainings of one method.

    Args:
        method: Its name.
        recipe: What it trained with, in one line, for people.
        accuracies: After the last epoch, one for each seed, in [0, 1]; at least one.
        validation: Of the same students, on the data that chose; in the same order.
        selected: Test accuracies of the students of the epochs with the best validation accuracy, in the same order;
            empty without test data.
    """

    method: str
    recipe: str
    accuracies: tuple[float, ...]
    validation: tuple[float, ...]
    selected: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean accuracy over the seeds."""
        return fmean(self.accuracies)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Ends of the 95 % t interval of that mean; see `interval`."""
        return interval(self.accuracies)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with what follows from it for whoever reads it by eye."""
        return {
            "method": self.method,
            "recipe": self.recipe,
            "accuracies": list(self.accuracies),
            "validation": list(self.validation),
            "selected": list(self.selected),
            "mean": self.mean,
            "interval": None if self.bounds is None else list(self.bounds),
        }

    @classmethod
    def from_dict(cls, data: object) -> MethodResult:
        """Read the JSON form; mean and interval follow from the accuracies, whatever it says of them."""
        names = ("method", "recipe", "accuracies", "validation", "selected", "mean", "interval")
        found = require_object(data, "a result", names)
        accuracies, validation, selected = (
            tuple(require_share(value, f"an entry of {name}") for value in require_list(found[name], name))
            for name in ("accuracies", "validation", "selected")
        )
        if not accuracies or len(accuracies) != len(validation):
            raise CardError(
                f"A result has one accuracy and one validation accuracy for each seed, at least one; got "
                f"{len(accuracies)} and {len(validation)}."
            )
        if selected and len(selected) != len(accuracies):
            raise CardError(f"A result has one selected accuracy for each seed, or none; got {len(selected)}.")
        return cls(
            require_text(found["method"], "method"),
            require_text(found["recipe"], "recipe"),
            accuracies,
            validation,
            selected,
        )


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Give the t interval of a mean: mean ± t · sd / √n, with n - 1 degrees of freedom.

    Returns:
        Its ends; None for a single value, and where all are equal: so few do not show their spread.
    """
    n = len(values)
    if n < 2 or (sd := stdev(values)) == 0:
        return None
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return fmean(values) - half, fmean(values) + half
