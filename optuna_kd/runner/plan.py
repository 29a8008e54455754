"""How much a search does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from optuna_kd.study import check_objectives, check_sampler

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
        together: Trials that each of them trains at a time.
    """

    trials: int | None = 60
    budget: float | None = None
    confirm: tuple[int, int] = (5, 3)
    epochs: int = 60
    seeds: int = 10
    workers: int = 1
    together: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "workers", "together"):
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


def check_method(
    method: str,
    *,
    objectives: Sequence[str] | None,
    sampler: str | BaseSampler | None,
    reward: str,
    limits: Mapping[str, float | None],
    screen: float = 0.0,
) -> None:
    """Refuse arguments that do not fit the method, before anything is trained or written.

    Args:
        method: By name.
        objectives: As asked for.
        sampler: As asked for.
        reward: As asked for.
        limits: Of the students, and their budget, by argument.
        screen: Share of the students that are not trained.

    Raises:
        UnknownNameError: For an unknown method, objective or sampler.
        ValueError: For anything else, saying what fits.
    """
    goals = check_objectives(method, objectives)
    check_sampler(method, goals, sampler)
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not goals:
        if screen:
            given["screen"] = screen
        if given:
            raise ValueError(
                f"Limits are for students that the search chooses; got {', '.join(given)} for one student ({method!r})."
            )
        return
    for name, limit in given.items():
        if not limit > 0:
            raise ValueError(f"{name} must be > 0; got {limit!r}.")
    if "budget_gap" in goals and "budget" not in given:
        raise ValueError("The objective budget_gap needs a budget of parameters (budget_params, --budget-params).")
    if "budget" in given and "budget_gap" not in goals:
        raise ValueError(
            f"A budget of parameters is for the objective budget_gap; the objectives are {', '.join(goals)}. For a "
            "limit use max_params (--max-params)."
        )
    if not 0 <= screen < 1:
        raise ValueError(f"screen is a share of the students, in [0, 1); got {screen!r}.")
    if reward != "bounded":
        raise ValueError(f"The method {method!r} has objectives and no reward; got reward={reward!r}.")


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


def parse_size(text: str) -> int:
    """Read a number of bytes: 500MB, 2GB, 1.5 GB, 64kB, 0; of 1,024 each.

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(|k|M|G|T)B?\s*", text)
    if not match:
        raise ValueError(f"A size reads like 500MB or 2GB; got {text!r}.")
    return int(float(match[1]) * 1024 ** ("", "k", "M", "G", "T").index(match[2]))
