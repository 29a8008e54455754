"""Functions whose importances are known exactly: the share of the variance that each parameter explains.

A function is written as an objective, with `trial.suggest_*`. Its truth is the definition of
`optuna_kd.analysis.shapley` worked out by hand: the variance of a sum of centred, independent terms is the sum of
their variances; the term of a parameter that exists with probability P counts P times its variance; an interaction of
two parameters counts half for each. Numbers are uniform in their range (of a logarithmic one, the logarithm is).

With u uniform in [0, 1]: Var(2u - 1) = 1/3 and Var((2u - 1)²) = 4/45. Of k whole numbers evenly spaced from -1 to 1 the
variance is (k + 1) / (3 (k - 1)).
"""

# ruff: noqa: D102 - the method of a function is described by `KnownFunction`

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from statistics import fmean, pvariance
from typing import Any, ClassVar

SLOPE = 1 / 3  # variance of 2u - 1
BOWL = 4 / 45  # of (2u - 1)²


class KnownFunction(ABC):
    """A function of a trial's choices, and what each explains of its variance.

    Attributes:
        name: One word.
        variances: What each parameter explains.
        presence: How often a uniform draw has it, where that is less than always.
        effects: Of categorical parameters, what each option is worth, all else being equal; of some also where all
            are worth the same.
        noise: Standard deviation of an observation, in standard deviations of the function.
    """

    name: ClassVar[str]
    variances: ClassVar[Mapping[str, float]]
    presence: ClassVar[Mapping[str, float]] = {}
    effects: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    noise = 0.3

    @abstractmethod
    def value(self, trial: Any) -> float:
        """Give the value without noise."""

    @property
    def truth(self) -> dict[str, float]:
        """The share of the variance that each parameter explains."""
        total = sum(self.variances.values())
        return {name: variance / total for name, variance in self.variances.items()}

    @property
    def sd(self) -> float:
        """Standard deviation over uniform draws."""
        return math.sqrt(sum(self.variances.values()))


def spread(values: Sequence[float]) -> float:
    return pvariance(values)


def choose(trial: Any, name: str, values: Mapping[str, float]) -> float:
    """Suggest a choice and give its centred value."""
    return values[trial.suggest_categorical(name, list(values))] - fmean(values.values())


def line(trial: Any, name: str, low: float, high: float, *, log: bool = False) -> float:
    """Suggest a float and give its place, -1 to 1."""
    value = trial.suggest_float(name, low, high, log=log)
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 2 * (value - low) / (high - low) - 1


class Additive(KnownFunction):
    """A sum over all kinds of parameters, none conditional, two without effect: all methods mean the same here."""

    name = "additive"
    losses: ClassVar = {"l1": 0.0, "l2": 1.0, "kl": 3.0, "cos": 1.0}
    variances: ClassVar = {
        "learning_rate": 4**2 * BOWL,
        "loss": spread([0.0, 1.0, 3.0, 1.0]),
        "momentum": SLOPE,
        "layers": 0.8**2 * 6 / 12,  # five numbers: (5 + 1) / (3 · 4)
        "seed": 0.0,
        "schedule": 0.0,
    }
    effects: ClassVar = {"loss": losses, "schedule": {"step": 0.0, "cosine": 0.0, "none": 0.0}}

    def value(self, trial: Any) -> float:
        total = -4 * line(trial, "learning_rate", 1e-5, 1e-1, log=True) ** 2
        total += choose(trial, "loss", self.losses)
        total += line(trial, "momentum", 0.0, 0.99)
        total += 0.8 * (trial.suggest_int("layers", 1, 5) - 3) / 2
        line(trial, "seed", 0.0, 1.0)
        trial.suggest_categorical("schedule", ["step", "cosine", "none"])
        return total


class Gated(KnownFunction):
    """Parameters that exist for one choice of a gate only, each as important inside as it can be outside."""

    name = "gated"
    methods: ClassVar = {"kl": 1.0, "attention": 0.5, "none": -1.5}
    variances: ClassVar = {
        "method": spread([1.0, 0.5, -1.5]),
        "temperature": 6**2 * BOWL / 3,
        "power": spread([0.0, 2.0]) / 3,
        "weight": SLOPE / 3,
        "learning_rate": 0.8**2 * SLOPE,
        "momentum": 0.0,
    }
    presence: ClassVar = {"temperature": 1 / 3, "power": 1 / 3, "weight": 1 / 3}
    effects: ClassVar = {"method": methods, "power": {"square": 0.0, "absolute": 2.0}}

    def value(self, trial: Any) -> float:
        total = 0.8 * line(trial, "learning_rate", 1e-5, 1e-1, log=True)
        line(trial, "momentum", 0.0, 0.99)
        method = trial.suggest_categorical("method", list(self.methods))
        total += self.methods[method]
        if method == "kl":
            total += -6 * (line(trial, "temperature", 1.0, 16.0, log=True) ** 2 - 1 / 3)
        elif method == "attention":
            total += choose(trial, "power", {"square": 0.0, "absolute": 2.0})
            total += line(trial, "weight", 0.1, 10.0, log=True)
        return total


class LosingBranch(KnownFunction):
    """One choice is always worse, and what matters most there never matters among the best trials."""

    name = "losing branch"
    variances: ClassVar = {
        "branch": spread([1.0, -1.0]),
        "shift": spread([1.0, -1.0]) / 2,
        "rate": 0.3**2 * SLOPE / 2,
        "share": 0.3**2 * SLOPE,
    }
    presence: ClassVar = {"shift": 1 / 2, "rate": 1 / 2}
    effects: ClassVar = {"branch": {"good": 1.0, "bad": -1.0}, "shift": {"up": 1.0, "down": -1.0}}

    def value(self, trial: Any) -> float:
        total = 0.3 * line(trial, "share", 0.0, 1.0)
        if trial.suggest_categorical("branch", ["good", "bad"]) == "good":
            return total + 1.0 + 0.3 * line(trial, "rate", 0.0, 1.0)
        return total - 1.0 + choose(trial, "shift", {"up": 1.0, "down": -1.0})


class Together(KnownFunction):
    """Two pairs that matter only together, and one parameter that matters alone."""

    name = "together"
    variances: ClassVar = {
        "left": 1.0 / 2,  # +1 and -1
        "right": 1.0 / 2,
        "x": 3**2 * SLOPE**2 / 2,
        "y": 3**2 * SLOPE**2 / 2,
        "alone": spread([1.0, -1.0]),
    }
    effects: ClassVar = {
        "alone": {"p": -1.0, "q": 1.0},
        "left": {"a": 0.0, "b": 0.0},
        "right": {"a": 0.0, "b": 0.0},
    }

    def value(self, trial: Any) -> float:
        same = trial.suggest_categorical("left", ["a", "b"]) == trial.suggest_categorical("right", ["a", "b"])
        total = 1.0 if same else -1.0
        total += 3 * line(trial, "x", -1.0, 1.0) * line(trial, "y", -1.0, 1.0)
        return total + choose(trial, "alone", {"p": -1.0, "q": 1.0})


class Nested(KnownFunction):
    """Gates below gates; a parameter that two branches share, and that means more in one of them."""

    name = "nested"
    variances: ClassVar = {
        "student": spread([0.0, 1.0, 2.0]),
        "distiller": spread([0.5, -0.5]),
        "feature": spread([0.0, 1.0, 0.0, 1.0]) / 2,
        "stage": 6 / 12 / 4,
        "temperature": (2**2 / 2 + 1**2 / 4) * SLOPE,  # half as steep where there are features
        "epochs": 0.0,
    }
    presence: ClassVar = {"feature": 1 / 2, "stage": 1 / 4, "temperature": 3 / 4}
    effects: ClassVar = {
        "student": {"small": 0.0, "middle": 1.0, "large": 2.0},
        "distiller": {"logits": 0.5, "features": -0.5},
        "feature": {"fitnet": 0.0, "attention": 1.0, "fsp": 0.0, "crd": 1.0},
    }

    def value(self, trial: Any) -> float:
        total = choose(trial, "student", {"small": 0.0, "middle": 1.0, "large": 2.0})
        trial.suggest_int("epochs", 10, 100, step=10)
        if trial.suggest_categorical("distiller", ["logits", "features"]) == "logits":
            return total + 0.5 + 2.0 * line(trial, "temperature", 1.0, 8.0)
        features = {"fitnet": 0.0, "attention": 1.0, "fsp": 0.0, "crd": 1.0}
        feature = trial.suggest_categorical("feature", list(features))
        total += features[feature] - 1.0
        if feature in ("fitnet", "attention"):
            total += (trial.suggest_int("stage", 1, 5) - 3) / 2
            total += 1.0 * line(trial, "temperature", 1.0, 8.0)
        return total


FUNCTIONS: dict[str, KnownFunction] = {
    function.name: function for function in (Additive(), Gated(), LosingBranch(), Together(), Nested())
}
