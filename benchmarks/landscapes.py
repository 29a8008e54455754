"""The landscapes of the sampler gauge: what a trial is worth without noise, by family and number.

A landscape is written as an objective, with `trial.suggest_*`, so that every sampler meets it as it meets a
user's. `Landscape.uniform` draws a recipe branch by branch, each option of each parameter with the same
probability; the mean and standard deviation of 6,000 such draws are the unit in which the gauge counts.
"""

# ruff: noqa: D102 - the methods of a landscape are described by `Landscape`, those of a trial by Optuna

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

TABLES = Path(__file__).with_name("tables")
DRAWS = 6000


class Suggests(Protocol):
    """What a landscape needs of a trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...


class UniformTrial:
    """Draws every parameter uniformly (in log space where asked for), as random search does."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.random() * len(choices))]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            return math.exp(self.rng.uniform(math.log(low), math.log(high)))
        if step is None:
            return self.rng.uniform(low, high)
        return low + step * int(self.rng.random() * (round((high - low) / step) + 1))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            return min(max(round(math.exp(self.rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))), low), high)
        return low + step * int(self.rng.random() * ((high - low) // step + 1))


class Replay:
    """Answers every categorical parameter from a list of choice numbers, and notes how many there were."""

    def __init__(self, digits: Sequence[int]) -> None:
        self.digits = digits
        self.sizes: list[int] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        place = len(self.sizes)
        self.sizes.append(len(choices))
        return choices[self.digits[place] if place < len(self.digits) else 0]


class Landscape(ABC):
    """A function of a trial's choices.

    Args:
        number: Which landscape of its family; everything random about it derives from family and number.
    """

    family: str
    noise = 0.3  # standard deviation of an observation, in standard deviations of the landscape

    def __init__(self, number: int) -> None:
        self.number = number
        self.rng = np.random.default_rng([number, *self.family.encode()])

    @abstractmethod
    def value(self, trial: Suggests) -> float:
        """Give the value without noise, in raw units."""

    @property
    @abstractmethod
    def best(self) -> float:
        """The highest value there is, in raw units."""

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of uniform draws, branch by branch."""
        trial = UniformTrial(np.random.default_rng([self.number, 1]))
        drawn = [self.value(trial) for _ in range(DRAWS)]
        return float(np.mean(drawn)), float(np.std(drawn))

    def z(self, raw: float) -> float:
        """Count a value in standard deviations above the mean of uniform draws."""
        mean, sd = self.moments
        return (raw - mean) / sd

    def score(self, trial: Suggests) -> float:
        """Give the value of a trial without noise, in standard deviations."""
        return self.z(self.value(trial))

    def observe(self, trial: Suggests, number: int) -> float:
        """Give the noisy value of trial `number`.

        The noise is the same for every sampler: it depends on family, landscape and number only.
        """
        return self.score(trial) + self.noise * self._unit_noise(number)

    def _unit_noise(self, number: int) -> float:
        return float(np.random.default_rng([self.number, 2, number, *self.family.encode()]).normal())


def leaves(suggest: Callable[[Any], Any]) -> list[Any]:
    """Enumerate every outcome of a function that suggests categorical parameters only."""
    outcomes, digits = [], []
    while True:
        replay = Replay(digits)
        outcomes.append(suggest(replay))
        digits = [*digits, *[0] * (len(replay.sizes) - len(digits))][: len(replay.sizes)]
        while digits and digits[-1] == replay.sizes[len(digits) - 1] - 1:
            digits.pop()
        if not digits:
            return outcomes
        digits[-1] += 1


GATED_OPTIONS: dict[str, int] = {
    "global": 3, "mask_ratio": 4, "intra": 3, "inter": 3, "feature_distance": 3, "feature_weight": 4,
    "logit_distance": 3, "logit_weight": 4, "temperature": 4, "warmup": 3,
}  # fmt: skip


def suggest_gated(trial: Any) -> dict[str, int]:
    """Ten parameters shaped like the Auto-KD space, with three gates; 40,824 recipes."""
    chosen: dict[str, int] = {}

    def pick(name: str) -> int:
        chosen[name] = trial.suggest_categorical(name, range(GATED_OPTIONS[name]))
        return chosen[name]

    if pick("global") == 1:
        pick("mask_ratio")
    for name in ("intra", "inter", "feature_distance", "feature_weight"):
        pick(name)
    distance = pick("logit_distance")  # none, kl, pearson
    if distance > 0:
        pick("logit_weight")
    if distance == 1:
        pick("temperature")
    pick("warmup")
    return chosen


@cache
def gated_leaves() -> tuple[dict[str, int], ...]:
    return tuple(leaves(suggest_gated))


class Pairwise(Landscape):
    """(A) Main effect N(0, 1) for each option and N(0, 0.5²) for each pair of options, active ones only."""

    family = "A"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        names, sizes = list(GATED_OPTIONS), list(GATED_OPTIONS.values())
        self.start = dict(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        count = sum(sizes)
        self.main = self.rng.normal(size=count)
        pairs = np.triu(self.rng.normal(scale=0.5, size=(count, count)), 1)
        self.pairs = pairs + pairs.T

    def value_of(self, chosen: dict[str, int]) -> float:
        index = np.array([self.start[name] + option for name, option in chosen.items()])
        return float(self.main[index].sum() + self.pairs[np.ix_(index, index)].sum() / 2)

    def value(self, trial: Suggests) -> float:
        return self.value_of(suggest_gated(trial))

    @cached_property
    def best(self) -> float:
        return max(map(self.value_of, gated_leaves()))


class PrefixTree(Landscape):
    """(B) N(0, 1)·0.8^depth for every beginning of a path, and 0.4·N(0, 1) for each option."""

    family = "B"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.drawn: dict[str, float] = {}

    def normal(self, key: str) -> float:
        if key not in self.drawn:
            digest = hashlib.sha256(f"{self.number}/{key}".encode()).digest()
            uniform = (int.from_bytes(digest[:7], "big") + 0.5) / 2**56
            self.drawn[key] = NormalDist().inv_cdf(uniform)
        return self.drawn[key]

    def value_of(self, chosen: dict[str, int]) -> float:
        total, prefix = 0.0, ""
        for depth, (name, option) in enumerate(chosen.items()):
            prefix += f"{name}={option},"
            total += 0.8**depth * self.normal(prefix) + 0.4 * self.normal(f"option {name}={option}")
        return total

    def value(self, trial: Suggests) -> float:
        return self.value_of(suggest_gated(trial))

    @cached_property
    def best(self) -> float:
        return max(map(self.value_of, gated_leaves()))


class Mixed(Landscape):
    """(C) Floats, integers and grids; each is a bowl whose centre depends on a gate; some exist in one branch.

    Two gates with main effects N(0, 0.5²); each bowl is -a·(2(u - c))², with u the place in the range from 0 to
    1, a centre c uniform in [0.1, 0.9] for each option of its gate, and a uniform in [0.3, 1].
    """

    family = "C"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.gate_effects = {gate: self.rng.normal(scale=0.5, size=3) for gate in ("optimizer", "schedule")}
        names = ("lr", "decay", "momentum", "width", "depth", "dropout", "warmup", "batch")
        self.centres = {name: self.rng.uniform(0.1, 0.9, size=3) for name in names}
        self.depths = {name: self.rng.uniform(0.3, 1.0) for name in names}
        self.gate_of = {name: str(self.rng.choice(["optimizer", "schedule"])) for name in names}

    def value(self, trial: Suggests) -> float:
        gates = {gate: trial.suggest_categorical(gate, range(3)) for gate in self.gate_effects}
        total = sum(float(self.gate_effects[gate][option]) for gate, option in gates.items())

        def bowl(name: str, place: float) -> float:
            return -self.depths[name] * (2 * (place - self.centres[name][gates[self.gate_of[name]]])) ** 2

        total += bowl("lr", math.log10(trial.suggest_float("lr", 1e-4, 1.0, log=True)) / 4 + 1)
        total += bowl("decay", (math.log10(trial.suggest_float("decay", 1e-6, 1e-2, log=True)) + 6) / 4)
        if gates["optimizer"] == 0:
            total += bowl("momentum", trial.suggest_float("momentum", 0.0, 0.99) / 0.99)
        total += bowl("width", math.log2(trial.suggest_int("width", 8, 512, log=True) / 8) / 6)
        total += bowl("depth", (trial.suggest_int("depth", 1, 12) - 1) / 11)
        total += bowl("dropout", trial.suggest_float("dropout", 0.0, 0.5, step=0.05) / 0.5)
        if gates["schedule"] == 1:
            total += bowl("warmup", trial.suggest_int("warmup", 0, 20) / 20)
        return float(total + bowl("batch", trial.suggest_categorical("batch", range(5)) / 4))

    @cached_property
    def best(self) -> float:
        def closest(name: str, centre: float) -> float:
            """Give the least distance of a place on the parameter's grid to the centre."""
            places = {
                "width": [math.log2(value / 8) / 6 for value in range(8, 513)],
                "depth": np.arange(12) / 11,
                "dropout": np.arange(11) / 10,
                "warmup": np.arange(21) / 20,
                "batch": np.arange(5) / 4,
            }.get(name)
            return 0.0 if places is None else float(np.abs(np.asarray(places) - centre).min())

        values = []
        for optimizer, schedule in itertools.product(range(3), repeat=2):
            gates = {"optimizer": optimizer, "schedule": schedule}
            total = sum(float(self.gate_effects[gate][option]) for gate, option in gates.items())
            for name, centres in self.centres.items():
                if (name == "momentum" and optimizer != 0) or (name == "warmup" and schedule != 1):
                    continue
                total -= self.depths[name] * (2 * closest(name, centres[gates[self.gate_of[name]]])) ** 2
            values.append(total)
        return max(values)


@cache
def digits_recipes() -> tuple[dict[str, list[str]], dict[tuple[str, ...], list[float]]]:
    """Read the table of `tables/make_digits_recipes.py`: its factors, and three rewards for each recipe."""
    with gzip.open(TABLES / "digits-recipes.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])[: list(rows[0]).index("seed")]
    factors = {name: list(dict.fromkeys(row[name] for row in rows)) for name in names}
    rewards: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        # The reward of the search, `optuna_kd.rewards.bounded`; a rejected training counts as it does there.
        lost = float(row["cross_entropy"] or 10 * math.log(10)) + 1 - float(row["cka"] or 0)
        reward = min(1.0, max(0.0, 1 - lost / (math.log(10) + 1)))
        rewards.setdefault(tuple(row[name] for name in names), []).append(reward)
    return factors, rewards


class RecipeTable(Landscape):
    """(D) 1,296 Auto-KD recipes, each trained three times; an observation is one of the three, the value their mean.

    There is one table; landscapes differ in which of the three trainings a trial observes.
    """

    family = "D"
    noise = math.nan  # the table's own

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.factors, self.rewards = digits_recipes()

    def recipe(self, trial: Suggests) -> tuple[str, ...]:
        return tuple(trial.suggest_categorical(name, options) for name, options in self.factors.items())

    def value(self, trial: Suggests) -> float:
        return float(np.mean(self.rewards[self.recipe(trial)]))

    @cached_property
    def moments(self) -> tuple[float, float]:
        means = [np.mean(rewards) for rewards in self.rewards.values()]  # no branches: all recipes at once
        return float(np.mean(means)), float(np.std(means))

    def observe(self, trial: Suggests, number: int) -> float:
        rewards = self.rewards[self.recipe(trial)]
        draw = np.random.default_rng([self.number, 2, number, *self.family.encode()]).integers(len(rewards))
        return self.z(rewards[int(draw)])

    @cached_property
    def best(self) -> float:
        return max(float(np.mean(rewards)) for rewards in self.rewards.values())


@cache
def resnet_depths() -> dict[tuple[int, ...], float]:
    """Read the published accuracies of the 64 ResNets with 1, 3, 5 or 7 blocks in each stage, in their own sd."""
    lines = (TABLES / "resnet-depths.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    accuracies = np.array([float(accuracy) for _, accuracy in rows])
    scaled = (accuracies - accuracies.mean()) / accuracies.std()
    return {tuple(map(int, depths)): float(z) for (depths, _), z in zip(rows, scaled, strict=True)}


class DepthsAndRecipe(Landscape):
    """(E) The real depth table of 64 students, plus landscape A, each counted in its own standard deviation."""

    family = "E"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.recipe, self.students = Pairwise(number + 10_000), resnet_depths()

    def value(self, trial: Suggests) -> float:
        depths = tuple(trial.suggest_int(f"depth_{stage}", 1, 7, step=2) for stage in (1, 2, 3))
        return self.students[depths] + self.recipe.score(trial)

    @cached_property
    def best(self) -> float:
        return max(self.students.values()) + self.recipe.z(self.recipe.best)


FAMILIES: dict[str, type[Landscape]] = {
    kind.family: kind for kind in (Pairwise, PrefixTree, Mixed, RecipeTable, DepthsAndRecipe)
}
