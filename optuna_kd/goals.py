"""What a search with several objectives can minimise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optuna_kd.registry import Registry


@dataclass(frozen=True)
class Goal:
    """Something to minimise.

    Args:
        kind: "quality" is measured on validation data at every rung, "cost" on the untrained student.
        description: One phrase.
        logarithmic: Whether it spans orders of magnitude, and is compared by its logarithm.
    """

    kind: Literal["quality", "cost"]
    description: str
    logarithmic: bool = False


GOALS: Registry[Goal] = Registry("objective")
GOALS.add("cross_entropy", Goal("quality", "validation cross-entropy, in nats"))
GOALS.add("error", Goal("quality", "share of wrong classes on the validation data"))
GOALS.add("parameters", Goal("cost", "parameters of the student", logarithmic=True))
GOALS.add("flops", Goal("cost", "floating-point operations for one image", logarithmic=True))
GOALS.add("latency_ms", Goal("cost", "milliseconds for one image on one CPU thread, measured", logarithmic=True))
GOALS.add("budget_gap", Goal("cost", "|parameters - budget| / budget, the paper's eq. 2"))
