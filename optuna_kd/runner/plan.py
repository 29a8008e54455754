"""How much a search does."""

from __future__ import annotations

import re
from dataclasses import dataclass

METHODS = 4  # in the closing table: labels only, plain KD, tuned KD, the searched recipe
PRUNED_SHARE = 0.45  # of the epochs of an unpruned trial, for estimates of the time left


@dataclass(frozen=True)
class Plan:
    """How much a search does.

    Args:
        trials: Total of the study; None searches until `budget` is nearly used up.
        budget: Seconds for the whole job, or None.
        confirm: How many of the best recipes are scored again, and with how many new seeds each.
        epochs: Of each full training.
        seeds: Students per method in the closing table.
        workers: Processes.
    """

    trials: int | None = 60
    budget: float | None = None
    confirm: tuple[int, int] = (5, 3)
    epochs: int = 60
    seeds: int = 10
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1; got {getattr(self, name)!r}.")
        if self.trials is None and self.budget is None:
            raise ValueError("A search needs a number of trials or a budget.")
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials must be >= 1; got {self.trials!r}.")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"The budget must be > 0 seconds; got {self.budget!r}.")
        if min(self.confirm) < 0 or (self.confirm[0] > 0 and self.confirm[1] < 1):
            raise ValueError(f"confirm is (recipes, seeds), e.g. (5, 3), or (0, 0) for none; got {self.confirm!r}.")


def parse_duration(text: str | float) -> float:
    """Read a duration in seconds: 90, "90", "20m", "1h30m", "45s".

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?\s*", str(text))
    if not match or not any(match.groups()):
        raise ValueError(f"A duration reads like 20m, 1h30m or 90s; got {text!r}.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds
