"""The joint space of UniADS: a student, and a term for each of features, embeddings and logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from optuna_kd.recipe import DistillerConfig, OpConfig, Options, Recipe, StudentConfig, TermConfig, TrainingConfig
from optuna_kd.search_space.base import SPACES, Space, Suggests, choose
from optuna_kd.search_space.student import StudentSpace

# What is valid where; the distillers know it too, but need torch. A test compares them.
_EVERYWHERE = (
    "none", "batchnorm", "norm_N", "norm_C", "exp", "relu", "tanh", "sigmoid", "pow2", "scale", "scale_r1",
    "scale_r2", "drop", "mask", "catt", "natt", "softmax_N", "softmax_C", "bmm",
)  # fmt: skip
_MAPS = ("norm_H", "norm_W", "multiscale", "local", "sample", "channel", "satt", "softmax_HW")
TRANSFORMS: Mapping[str, tuple[str, ...]] = {
    "features": (*_EVERYWHERE, *_MAPS),
    "embeddings": _EVERYWHERE,
    "logits": _EVERYWHERE,
}
DISTANCES = ("l1", "mse", "smooth_l1", "kl", "hard", "cosine", "row_pearson", "correlation")
WEIGHTS = (0.01, 0.1, 0.5, 1, 5, 16, 50, 100)  # the grid; continuous weights lie between its ends
TEMPERATURES = (1, 4, 8, 16)
LONGEST = 3  # transforms in a chain
_TO_ROWS = ("sample", "channel", "bmm")
_ON_ROWS = ("none", "exp", "relu", "tanh", "sigmoid", "pow2", "scale", "scale_r1", "scale_r2", "softmax_C", "bmm")
BATCH_SIZES = (32, 64, 128, 256)
LEARNING_RATES = (0.01, 0.3)


@dataclass(frozen=True)
class UniADSSpace(Space):
    """Student architecture and distiller together (UniADS, Table 1 and text).

    A distance and, where it matters, a temperature for the whole distiller; for each kind of knowledge a chain of
    transforms and a weight. `none` ends a chain.

    Args:
        dead: Cells (knowledge, transform, distance) that cannot teach on the maps and classes of the task.
        student: The students; None searches the distiller alone.
        distiller: Whether the distiller is searched; if not, every student learns by plain KD.
        chain: Transforms of one kind of knowledge at most, 1 to 3.
        weights: "continuous" (0.01 to 100, logarithmic) or "grid".
        temperatures: τ of kl and of softmax transforms.
        training: Whether batch size and learning rate are searched too (the paper's Fig. 3).

    Raises:
        ValueError: For a chain of another length, other weights, or a space in which nothing is searched.
    """

    name: ClassVar[str] = "uniads"
    description: ClassVar[str] = (
        "UniADS: the student, and transforms, distance and weights for three kinds of knowledge"
    )

    student: StudentSpace | None = field(default_factory=StudentSpace)
    distiller: bool = True
    chain: int = 1
    weights: str = "continuous"
    temperatures: tuple[float, ...] = TEMPERATURES
    training: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.student, Mapping):
            object.__setattr__(self, "student", StudentSpace.from_dict(self.student))
        if self.chain not in range(1, LONGEST + 1):
            raise ValueError(f"chain is the longest chain of transforms, 1 to {LONGEST}; got {self.chain!r}.")
        if self.weights not in ("continuous", "grid"):
            raise ValueError(f"weights is 'continuous' or 'grid'; got {self.weights!r}.")
        taken = UniADSSpace(student=None, chain=self.chain, training=True).factors() if self.student else {}
        if self.student is not None and (both := sorted(set(self.student.options) & set(taken))):
            raise ValueError(
                f"The student options {both} are parameters of the distiller or the training; rename them."
            )
        if self.student is None and not self.distiller:
            raise ValueError("Neither the student nor the distiller is searched; nothing is left.")

    @property
    def chooses_student(self) -> bool:
        """Whether its recipes name a student."""
        return self.student is not None

    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give the parameters in tree order, with all their options; of continuous weights, the grid."""
        found: dict[str, Sequence[Any]] = dict(self.student.options) if self.student is not None else {}
        if self.distiller:
            found["distance"] = DISTANCES
            for knowledge, transforms in TRANSFORMS.items():
                found |= {_numbered(f"{knowledge}_transform", place): transforms for place in range(self.chain)}
                found[f"{knowledge}_weight"] = WEIGHTS
            found["temperature"] = self.temperatures
        if self.training:
            found |= {"batch_size": BATCH_SIZES, "lr": LEARNING_RATES}
        return found

    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest the student, the distance, the terms and their temperature, the training."""
        student = self.student.suggest(trial) if self.student is not None else None
        terms = self._suggest_terms(trial) if self.distiller else PLAIN_KD
        training = None
        if self.training:
            size = trial.suggest_categorical("batch_size", list(BATCH_SIZES))
            lr = trial.suggest_float("lr", *LEARNING_RATES, log=True)
            training = TrainingConfig(size, float(f"{lr:.3g}"))
        return Recipe(DistillerConfig(terms), student, training)

    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Read the parameters off student, terms and training."""
        values: dict[str, Any] = {}
        if self.student is not None and recipe.student is not None:
            values |= self.student.values_of(recipe.student)
        for term in recipe.distiller.terms if self.distiller else ():
            values |= {"distance": term.distance.name, f"{term.knowledge}_weight": term.weight}
            values["temperature"] = max(term.temperature, values.get("temperature", 0))
            names = [op.name for op in term.transforms] + ["none"] * self.chain
            for place in range(self.chain):
                values[_numbered(f"{term.knowledge}_transform", place)] = names[place]
        if recipe.training is not None:
            values |= {"batch_size": recipe.training.batch_size, "lr": recipe.training.lr}
        return values

    def adopt(self, recipe: Recipe) -> Recipe:
        """Give a recipe of another study as this space would have it: its student with the options fixed here."""
        student = recipe.student if self.student is not None else None
        if student is not None and self.student is not None and student.name == self.student.name:
            chosen = {name: value for name, value in student.options.items() if name in self.student.options}
            student = StudentConfig(student.name, Options({**self.student.fixed, **chosen}))
        return replace(recipe, student=student, training=recipe.training if self.training else None)

    def size(self) -> int:
        """Count students times distillers; continuous weights count as the grid, the training is left out."""
        distillers = 0
        for distance in DISTANCES if self.distiller else ():
            plain, softened = 1, 1  # without a softmax, and with or without one
            for knowledge in TRANSFORMS:
                chains = list(self._chains(knowledge, distance))
                plain *= sum(not _softens(chain) for chain in chains) * len(WEIGHTS)
                softened *= len(chains) * len(WEIGHTS)
            taus = len(self.temperatures)
            distillers += softened * taus if distance == "kl" else plain + (softened - plain) * taus
        return max(distillers, 1) * (self.student.size() if self.student is not None else 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, stored with the study."""
        return {
            **super().to_dict(),
            "student": self.student.to_dict() if self.student is not None else None,
            "distiller": self.distiller,
            "chain": self.chain,
            "weights": self.weights,
            "temperatures": list(self.temperatures),
            "training": self.training,
        }

    def _suggest_terms(self, trial: Suggests) -> tuple[TermConfig, ...]:
        live = [name for name in DISTANCES if all(self._following(kind, name, ())[0] for kind in TRANSFORMS)]
        distance = choose(trial, "distance", DISTANCES, allowed=live, where="live")
        chains, weights = {}, {}
        for knowledge in TRANSFORMS:
            chains[knowledge] = self._suggest_chain(trial, knowledge, distance)
            weights[knowledge] = self._suggest_weight(trial, f"{knowledge}_weight")
        temperature = 1.0
        if distance == "kl" or any(map(_softens, chains.values())):
            temperature = choose(trial, "temperature", self.temperatures)
        return tuple(
            TermConfig(knowledge, OpConfig(distance), weights[knowledge], tuple(map(OpConfig, chain)), temperature)  # type: ignore[arg-type]
            for knowledge, chain in chains.items()
        )

    def _suggest_chain(self, trial: Suggests, knowledge: str, distance: str) -> tuple[str, ...]:
        chain: list[str] = []
        for place in range(self.chain):
            allowed, where = self._following(knowledge, distance, chain)
            name = _numbered(f"{knowledge}_transform", place)
            chosen = choose(trial, name, TRANSFORMS[knowledge], allowed=allowed, where=where)
            if chosen == "none":
                break
            chain.append(chosen)
        return tuple(chain)

    def _following(self, knowledge: str, distance: str, chain: Sequence[str]) -> tuple[list[str], str]:
        """Give what may come next, and the place in the tree where just that may."""
        on_rows = any(name in _TO_ROWS for name in chain)
        allowed = [name for name in TRANSFORMS[knowledge] if not on_rows or name in _ON_ROWS]
        dead = {cell.inter for cell in self.dead if (cell.intra, cell.distance) == (knowledge, distance)}
        if chain:
            return allowed, "rows" if on_rows else ""
        return [name for name in allowed if name not in dead], distance

    def _chains(self, knowledge: str, distance: str, chain: tuple[str, ...] = ()) -> Sequence[tuple[str, ...]]:
        if len(chain) == self.chain:
            return [chain]
        found: list[tuple[str, ...]] = []
        for name in self._following(knowledge, distance, chain)[0]:
            found += [chain] if name == "none" else self._chains(knowledge, distance, (*chain, name))
        return found

    def _suggest_weight(self, trial: Suggests, name: str) -> float:
        if self.weights == "grid":
            weight: float = trial.suggest_categorical(name, list(WEIGHTS))
            return weight
        # Three digits: a recipe is read by people, and more make no difference.
        return float(f"{trial.suggest_float(name, WEIGHTS[0], WEIGHTS[-1], log=True):.3g}")


PLAIN_KD = (TermConfig("logits", OpConfig("kl"), 1.0, temperature=4.0),)


def _numbered(name: str, place: int) -> str:
    return name if place == 0 else f"{name}_{place + 1}"


def _softens(chain: Sequence[str]) -> bool:
    return any(name.startswith("softmax") for name in chain)


SPACES.add(UniADSSpace.name, UniADSSpace)
