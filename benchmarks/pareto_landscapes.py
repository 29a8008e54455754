"""The landscapes of the Pareto gauge: what a trial is worth without noise in two objectives, both minimised.

A landscape is written as an objective, with `trial.suggest_*`, so that every sampler meets it as it meets a user's.
Objectives are counted in standard deviations from the mean of `DRAWS` uniform draws, branch by branch. What a set of
trials has found is the hypervolume that it dominates below the reference point (1, 1), as a share of what the
landscape's reference front dominates:

- (P) and (S), (Q): the exact front, of all 10,450,944 and 612,360 configurations;
- (R): the exact front if integers, steps and choices could take any value between, which they cannot: a share of
  1 is just out of reach.
"""

# ruff: noqa: D102 - the methods of a landscape are described by `ParetoLandscape`

from __future__ import annotations

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
from landscapes import GATED_OPTIONS, Suggests, UniformTrial, gated_leaves, suggest_gated
from numpy.typing import NDArray
from scipy.special import ndtri

DRAWS = 6000
REFERENCE = (1.0, 1.0)  # standard deviations above the mean of uniform draws
_CHUNK = 50_000

Array = NDArray[np.float64]
Digits = NDArray[np.int64]


def front_of(points: Array) -> Array:
    """Keep the points that no other dominates, ascending in the first objective; [points, 2]."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(ordered[:, 1])
    kept = np.concatenate([[True], ordered[1:, 1] < lowest[:-1]])
    return ordered[kept]


def hypervolume(points: Array, reference: tuple[float, float] = REFERENCE) -> float:
    """Measure the area between some points, of which less is better, and a reference point."""
    inside = points[(points < np.array(reference)).all(axis=1)]
    if not len(inside):
        return 0.0
    front = front_of(inside)
    heights = np.concatenate([[reference[1]], front[:-1, 1]]) - front[:, 1]
    return float(((reference[0] - front[:, 0]) * heights).sum())


class ParetoLandscape(ABC):
    """Two functions of a trial's choices.

    Args:
        number: Which landscape of its family; everything random about it derives from family and number.
    """

    family: str
    noise: tuple[float, float] = (0.0, 0.0)  # standard deviations of an observation, in those of the landscape

    def __init__(self, number: int) -> None:
        self.number = number
        self.rng = np.random.default_rng([number, *self.family.encode()])

    @abstractmethod
    def values(self, trial: Suggests) -> Array:
        """Give both values without noise, in raw units; [2]."""

    @property
    @abstractmethod
    def front(self) -> Array:
        """The reference front in raw units; [points, 2]."""

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        """Means and standard deviations of uniform draws, branch by branch."""
        trial = UniformTrial(np.random.default_rng([self.number, 1]))
        drawn = np.array([self.values(trial) for _ in range(DRAWS)])
        return drawn.mean(axis=0), drawn.std(axis=0)

    def z(self, raw: Array) -> Array:
        """Count values in standard deviations above the means of uniform draws."""
        means, deviations = self.moments
        return (raw - means) / deviations

    def score(self, trial: Suggests) -> Array:
        """Give the values of a trial without noise, in standard deviations."""
        return self.z(self.values(trial))

    def noise_of(self, number: int) -> Array:
        """Give the noise of trial `number`: the same for every sampler; [2]."""
        if not any(self.noise):
            return np.zeros(2)
        return np.random.default_rng([self.number, 2, number, *self.family.encode()]).normal(size=2) * self.noise

    @cached_property
    def attainable(self) -> float:
        """The hypervolume of the reference front."""
        return hypervolume(self.z(self.front))

    def share(self, scores: Array) -> float:
        """Give the hypervolume of some noise-free scores as a share of what is attainable."""
        return hypervolume(scores) / self.attainable


class Effects:
    """Main effects and effects of pairs of options, active ones only.

    Args:
        sizes: Options of each parameter.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.starts = np.cumsum([0, *sizes[:-1]])
        self.count = sum(sizes)

    def active(self, digits: Digits) -> Array:
        """Mark the options that are taken; [configurations, options]."""
        marks = np.zeros((len(digits), self.count))
        rows, columns = np.nonzero(digits >= 0)
        marks[rows, self.starts[columns] + digits[rows, columns]] = 1.0
        return marks

    def pairs(self, rng: np.random.Generator, scale: float) -> Array:
        """Draw a symmetric matrix of pair effects."""
        upper = np.triu(rng.normal(scale=scale, size=(self.count, self.count)), 1)
        return upper + upper.T


def total_effect(active: Array, main: Array, pairs: Array) -> Array:
    """Sum up the effects of each configuration."""
    return active @ main + ((active @ pairs) * active).sum(axis=1) / 2


TAIL_OPTIONS = {"optimizer": 3, "schedule": 3, "cycles": 3}
PIPELINE_OPTIONS = {**GATED_OPTIONS, **TAIL_OPTIONS}


def digits_of(chosen: dict[str, int], names: Sequence[str]) -> list[int]:
    """Number the choices of a trial, -1 where a parameter is not there."""
    return [chosen.get(name, -1) for name in names]


def suggest_pipeline(trial: Any) -> list[int]:
    """The gated distiller, an optimizer and a schedule, one with cycles: 13 parameters, 612,360 configurations."""
    chosen = suggest_gated(trial)
    chosen["optimizer"] = trial.suggest_categorical("optimizer", range(3))
    chosen["schedule"] = trial.suggest_categorical("schedule", range(3))
    if chosen["schedule"] == 1:
        chosen["cycles"] = trial.suggest_categorical("cycles", range(3))
    return digits_of(chosen, list(PIPELINE_OPTIONS))


@cache
def distiller_digits() -> Digits:
    return np.array([digits_of(leaf, list(GATED_OPTIONS)) for leaf in gated_leaves()])


@cache
def pipeline_digits() -> Digits:
    tails = [
        (optimizer, schedule, cycles)
        for optimizer, schedule in itertools.product(range(3), repeat=2)
        for cycles in (range(3) if schedule == 1 else (-1,))
    ]
    heads = distiller_digits()
    return np.concatenate([np.repeat(heads, len(tails), axis=0), np.tile(np.array(tails), (len(heads), 1))], axis=1)


class Joint(ParetoLandscape):
    """(P) A student and how to teach it: the logarithm of its parameters, and a noisy loss.

    Three depths in {1, 3, 5, 7} and a width ratio in {0.5, 1, 1.5, 2} make the cost log(width² · Σ depth_s · 4^s).
    The loss is minus a sum of three, each in its own standard deviation: what depths and width bring, with
    diminishing returns (c_s · depth^-½ and c · width^-1, c uniform in [0.5, 1.5]); the gated distiller, main effects
    N(0, 1) and pairs N(0, 0.5²); and, times 0.5, an effect N(0, 1) of every pair of a student's and a distiller's
    option.
    """

    family = "P"
    noise = (0.0, 0.3)
    depths = (1, 3, 5, 7)
    widths = (0.5, 1.0, 1.5, 2.0)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.effects = Effects(list(GATED_OPTIONS.values()))
        self.main = self.rng.normal(size=self.effects.count)
        self.pair = self.effects.pairs(self.rng, 0.5)
        self.crossed = self.rng.normal(size=(self.effects.count, 16))
        self.students = np.array(list(itertools.product(range(4), repeat=4)))  # three depths and the width
        coefficients = self.rng.uniform(0.5, 1.5, size=4)
        depths, widths = np.array(self.depths), np.array(self.widths)
        blocks = depths[self.students[:, :3]]
        self.cost = np.log(widths[self.students[:, 3]] ** 2 * (blocks @ 4.0 ** np.arange(3)))
        gain = -(blocks**-0.5 @ coefficients[:3] + coefficients[3] / widths[self.students[:, 3]])
        self.gain = (gain - gain.mean()) / gain.std()
        self.marks = np.zeros((len(self.students), 16))
        for slot in range(4):
            self.marks[np.arange(len(self.students)), 4 * slot + self.students[:, slot]] = 1.0
        self.recipe_unit = float(total_effect(self.effects.active(distiller_digits()), self.main, self.pair).std())
        self.crossed *= 0.5 / 6.0  # of some 9 · 4 pairs

    def values(self, trial: Suggests) -> Array:
        depths = [trial.suggest_int(f"depth_{stage}", 1, 7, step=2) for stage in (1, 2, 3)]
        width = trial.suggest_float("width", 0.5, 2.0, step=0.5)
        student = 0
        for digit in (*((depth - 1) // 2 for depth in depths), round(width / 0.5) - 1):
            student = 4 * student + digit
        active = self.effects.active(np.array([digits_of(suggest_gated(trial), list(GATED_OPTIONS))]))
        recipe = total_effect(active, self.main, self.pair)[0] / self.recipe_unit
        gain = self.gain[student] + recipe + (active @ self.crossed @ self.marks[student])[0]
        return np.array([self.cost[student], -gain])

    @cached_property
    def front(self) -> Array:
        active = self.effects.active(distiller_digits())
        recipe = total_effect(active, self.main, self.pair) / self.recipe_unit
        best = (recipe[:, None] + active @ (self.crossed @ self.marks.T)).max(axis=0)
        return front_of(np.stack([self.cost, -(self.gain + best)], axis=1))


class Pipeline(ParetoLandscape):
    """A landscape over `suggest_pipeline`; its front is that of all configurations."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.effects = Effects(list(PIPELINE_OPTIONS.values()))

    @abstractmethod
    def values_of(self, digits: Digits) -> Array:
        """Give the values of many configurations; [configurations, 2]."""

    def values(self, trial: Suggests) -> Array:
        return self.values_of(np.array([suggest_pipeline(trial)]))[0]

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        trial = UniformTrial(np.random.default_rng([self.number, 1]))
        drawn = self.values_of(np.array([suggest_pipeline(trial) for _ in range(DRAWS)]))
        return drawn.mean(axis=0), drawn.std(axis=0)

    @cached_property
    def front(self) -> Array:
        digits = pipeline_digits()
        pieces = (digits[start : start + _CHUNK] for start in range(0, len(digits), _CHUNK))
        return front_of(np.concatenate([front_of(self.values_of(piece)) for piece in pieces]))


class Prefixes(Pipeline):
    """(Q) N(0, 1)·0.8^depth for every beginning of a path and 0.4·e for each option, against options and pairs.

    The second objective: -0.6·e + 0.8·N(0, 1) for each option, which conflicts, and N(0, 0.3²) for each pair.
    """

    family = "Q"

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.options = self.rng.normal(size=self.effects.count)
        self.main = -0.6 * self.options + 0.8 * self.rng.normal(size=self.effects.count)
        self.pair = self.effects.pairs(self.rng, 0.3)
        digest = hashlib.sha256(f"{self.family}{number}".encode()).digest()
        self.salt = np.uint64(int.from_bytes(digest[:8], "big"))

    def values_of(self, digits: Digits) -> Array:
        active = self.effects.active(digits)
        first = 0.4 * active @ self.options
        codes, depths = np.full(len(digits), self.salt), np.zeros(len(digits))
        for slot in range(digits.shape[1]):
            there = digits[:, slot] >= 0
            option = (self.effects.starts[slot] + digits[there, slot] + 1).astype(np.uint64)
            codes[there] = _mixed(codes[there] + option * np.uint64(0x9E3779B97F4A7C15))
            uniform = ((codes[there] >> np.uint64(11)).astype(float) + 0.5) / 2.0**53
            first[there] += 0.8 ** depths[there] * ndtri(uniform)
            depths[there] += 1
        return np.stack([first, total_effect(active, self.main, self.pair)], axis=1)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of numbers as splitmix64 does."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class Opposed(Pipeline):
    """(S) Effects of options and pairs in both objectives, correlated by -0.5: a long front; both observed with noise.

    Main effects N(0, 1), pairs N(0, 0.5²).
    """

    family = "S"
    noise = (0.3, 0.3)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        count = self.effects.count
        first, other = self.rng.normal(size=count), self.rng.normal(size=count)
        self.mains = first, -0.5 * first + math.sqrt(0.75) * other
        pair, other_pair = self.effects.pairs(self.rng, 0.5), self.effects.pairs(self.rng, 0.5)
        self.pairs = pair, -0.5 * pair + math.sqrt(0.75) * other_pair

    def values_of(self, digits: Digits) -> Array:
        active = self.effects.active(digits)
        return np.stack([total_effect(active, *each) for each in zip(self.mains, self.pairs, strict=True)], axis=1)


class Bowls(ParetoLandscape):
    """(R) Floats, integers and grids, each with one bowl for each objective; five exist in one branch only.

    Three gates with effects N(0, 0.5²) on each objective. Each bowl is a·(2(u - c))², with u the place in the range
    from 0 to 1, a centre c uniform in [0, 1] for each objective and each option of the gate that moves it, and a
    uniform in [0.3, 1] for each objective.
    """

    family = "R"
    gates = ("optimizer", "schedule", "augment")
    names = (
        "lr", "decay", "dropout", "smoothing", "ema", "width", "depth", "batch",
        "momentum", "beta", "warmup", "cycles", "mixing",
    )  # fmt: skip
    branches = {  # noqa: RUF012
        "momentum": ("optimizer", 0), "beta": ("optimizer", 1), "warmup": ("schedule", 1), "cycles": ("schedule", 2),
        "mixing": ("augment", 1),
    }  # fmt: skip

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.effects = {gate: self.rng.normal(scale=0.5, size=(3, 2)) for gate in self.gates}
        self.centres = {name: self.rng.uniform(size=(3, 2)) for name in self.names}
        self.depths = {name: self.rng.uniform(0.3, 1.0, size=2) for name in self.names}
        self.gate_of = {name: str(self.rng.choice(list(self.gates))) for name in self.names}

    def values(self, trial: Suggests) -> Array:
        chosen = {gate: trial.suggest_categorical(gate, range(3)) for gate in self.gates}
        places = {
            "lr": math.log10(trial.suggest_float("lr", 1e-4, 1.0, log=True)) / 4 + 1,
            "decay": (math.log10(trial.suggest_float("decay", 1e-6, 1e-2, log=True)) + 6) / 4,
            "dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.05) / 0.5,
            "smoothing": trial.suggest_float("smoothing", 0.0, 0.3) / 0.3,
            "ema": math.log10(trial.suggest_float("ema", 1e-4, 1e-1, log=True)) / 3 + 4 / 3,
            "width": math.log2(trial.suggest_int("width", 8, 512, log=True) / 8) / 6,
            "depth": (trial.suggest_int("depth", 1, 12) - 1) / 11,
            "batch": trial.suggest_categorical("batch", range(5)) / 4,
        }
        if chosen["optimizer"] == 0:
            places["momentum"] = trial.suggest_float("momentum", 0.0, 0.99) / 0.99
        if chosen["optimizer"] == 1:
            places["beta"] = math.log10(trial.suggest_float("beta", 1e-4, 1e-1, log=True)) / 3 + 4 / 3
        if chosen["schedule"] == 1:
            places["warmup"] = trial.suggest_int("warmup", 0, 20) / 20
        if chosen["schedule"] == 2:
            places["cycles"] = (trial.suggest_int("cycles", 1, 8) - 1) / 7
        if chosen["augment"] == 1:
            places["mixing"] = trial.suggest_float("mixing", 0.0, 1.0)
        total = sum((self.effects[gate][option] for gate, option in chosen.items()), start=np.zeros(2))
        for name, place in places.items():
            total = total + self.depths[name] * (2 * (place - self.centres[name][chosen[self.gate_of[name]]])) ** 2
        return total

    @cached_property
    def front(self) -> Array:
        weights = np.linspace(0, 1, 201)[:, None]
        found = []
        for options in itertools.product(range(3), repeat=3):
            chosen = dict(zip(self.gates, options, strict=True))
            total = sum((self.effects[gate][option] for gate, option in chosen.items()), start=np.zeros(2))
            for name in self.names:
                if name in self.branches and chosen[self.branches[name][0]] != self.branches[name][1]:
                    continue
                pull = self.depths[name] * np.hstack([weights, 1 - weights])  # convex: weighted sums give all of it
                centre = self.centres[name][chosen[self.gate_of[name]]]
                place = (pull @ centre) / pull.sum(axis=1)
                total = total + self.depths[name] * (2 * (place[:, None] - centre)) ** 2
            found.append(total)
        return front_of(np.concatenate(found))


FAMILIES: dict[str, type[ParetoLandscape]] = {kind.family: kind for kind in (Joint, Prefixes, Bowls, Opposed)}
