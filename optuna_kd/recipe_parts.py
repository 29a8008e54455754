"""The parts of a recipe, as frozen data: distiller and terms, student, training; and the proxy that scores it.

Each checks itself when it is made, and has a JSON form. Nothing here imports torch or optuna.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Scalar = str | int | float | bool | None
Knowledge = Literal["features", "embeddings", "logits"]

KNOWLEDGE_KINDS = ("features", "embeddings", "logits")


class RecipeError(ValueError):
    """A recipe that cannot be read; the message says what came and what is allowed."""


class Options(Mapping[str, Scalar]):
    """Frozen, hashable options of an operation, e.g. ``Options(ratio=0.5)``."""

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, Scalar] | None = None, /, **more: Scalar) -> None:
        self._items = tuple(sorted({**(values or {}), **more}.items()))

    def __getitem__(self, key: str) -> Scalar:
        return dict(self._items)[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{key}={value!r}' for key, value in self._items)})"


@dataclass(frozen=True)
class OpConfig:
    """One operation (a transform or a distance) by its registered name, with its options."""

    name: str
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Options):
            object.__setattr__(self, "options", Options(self.options))

    def to_dict(self) -> dict[str, Scalar]:
        """Flat JSON form: ``{"name": "mask", "ratio": 0.5}``."""
        return {"name": self.name, **self.options}

    @classmethod
    def from_dict(cls, data: str | Mapping[str, Scalar]) -> OpConfig:
        """Read the flat form, or a bare name."""
        if isinstance(data, str):
            return cls(data)
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
            raise RecipeError(f'An operation is a name or {{"name": ..., option: value}}; got {data!r}.')
        return cls(str(data["name"]), _options({key: value for key, value in data.items() if key != "name"}))


@dataclass(frozen=True)
class TermConfig:
    """One distillation term: weight · distance(transforms(knowledge)).

    Args:
        knowledge: `"features"` (maps [N, C, H, W]), `"embeddings"` ([N, D], pooled maps) or `"logits"`
            ([N, K]).
        distance: Name or `OpConfig` of a registered distance.
        weight: Factor of the term beside the cross-entropy, which always has weight 1; finite, >= 0.
        transforms: Chain of registered transforms in the order in which they are applied. Identity steps
            are left out: `none` is not stored.
        temperature: τ of distances that soften their input (KL, Pearson); > 0.
        layer: Index of the tapped pair of layers, for maps and embeddings; -1 is the last.

    Raises:
        RecipeError: For an unknown kind of knowledge, a weight or a temperature out of range.
    """

    knowledge: Knowledge
    distance: OpConfig
    weight: float = 1.0
    transforms: tuple[OpConfig, ...] = ()
    temperature: float = 1.0
    layer: int = -1

    def __post_init__(self) -> None:
        if self.knowledge not in KNOWLEDGE_KINDS:
            raise RecipeError(f"Unknown knowledge {self.knowledge!r}. Known: {', '.join(KNOWLEDGE_KINDS)}.")
        if isinstance(self.distance, str):
            object.__setattr__(self, "distance", OpConfig(self.distance))
        operations = (OpConfig(op) if isinstance(op, str) else op for op in self.transforms)
        object.__setattr__(self, "transforms", tuple(op for op in operations if op.name != "none"))
        for name, value, bound in (("weight", self.weight, ">= 0"), ("temperature", self.temperature, "> 0")):
            if not _is_number(value) or value < 0 or (value == 0 and bound == "> 0"):
                raise RecipeError(
                    f"The {name} of a {self.knowledge} term must be a finite number {bound}; got {value!r}."
                )
            object.__setattr__(self, name, float(value))
        if isinstance(self.layer, bool) or not isinstance(self.layer, int):
            raise RecipeError(f"The layer of a {self.knowledge} term is a whole number; got {self.layer!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "knowledge": self.knowledge,
            "transforms": [op.to_dict() for op in self.transforms],
            "distance": self.distance.to_dict(),
            "weight": self.weight,
            "temperature": self.temperature,
            "layer": self.layer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TermConfig:
        """Read the JSON form."""
        _check_keys(cls, data, required=("knowledge", "distance"))
        converted = dict(data)
        converted["distance"] = OpConfig.from_dict(data["distance"])
        converted["transforms"] = tuple(
            OpConfig.from_dict(op) for op in _list_of("transforms", data.get("transforms", ()))
        )
        return cls(**converted)


@dataclass(frozen=True)
class DistillerConfig:
    """A distiller: the sum of its terms, and how their weights move over the training.

    Args:
        terms: The distillation terms; none of them means training on the labels alone.
        warmup: Share of the training over which all term weights rise linearly from 0; in [0, 1).
        stop: Share of the training after which all term weights are 0 (ESKD); in (0, 1].
        teacher_batchnorm: `"eval"` uses the teacher's running statistics, `"train"` those of the batch
            (the running statistics are never changed).
        normalise: `"none"`, or `"initial"`: each term is scaled to a unit gradient at the first step.
    """

    terms: tuple[TermConfig, ...] = ()
    warmup: float = 0.0
    stop: float = 1.0
    teacher_batchnorm: Literal["eval", "train"] = "eval"
    normalise: Literal["none", "initial"] = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not _is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise RecipeError(f"warmup is a share of the training in [0, 1); got {self.warmup!r}.")
        object.__setattr__(self, "warmup", float(self.warmup))  # 0 and 0.0 are one recipe, with one digest
        if not _is_number(self.stop) or not 0 < self.stop <= 1:
            raise RecipeError(f"stop is a share of the training in (0, 1]; got {self.stop!r}.")
        object.__setattr__(self, "stop", float(self.stop))
        if self.teacher_batchnorm not in ("eval", "train"):
            raise RecipeError(f"teacher_batchnorm is 'eval' or 'train'; got {self.teacher_batchnorm!r}.")
        if self.normalise not in ("none", "initial"):
            raise RecipeError(f"normalise is 'none' or 'initial'; got {self.normalise!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**_plain_fields(self), "terms": [term.to_dict() for term in self.terms]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DistillerConfig:
        """Read the JSON form."""
        _check_keys(cls, data, required=("terms",))
        return cls(**{**data, "terms": tuple(map(TermConfig.from_dict, _list_of("terms", data["terms"])))})


@dataclass(frozen=True)
class StudentConfig:
    """The student by its registered model name, with the options that were searched (none in Auto-KD)."""

    name: str
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Options):
            object.__setattr__(self, "options", Options(self.options))

    def __str__(self) -> str:
        """Give the name, and the options in brackets: `resnet(depth_1=3, width=1.5)`."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"name": self.name, "options": dict(self.options)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudentConfig:
        """Read the JSON form."""
        _check_keys(cls, data, required=("name",))
        if not isinstance(data["name"], str):
            raise RecipeError(f"The name of a student is a string; got {data['name']!r}.")
        return cls(data["name"], _options(data.get("options", {})))


@dataclass(frozen=True)
class TrainingConfig:
    """How a student is trained, where the search chose it.

    Args:
        batch_size: Images per step; >= 1.
        lr: Peak learning rate; > 0.

    Raises:
        RecipeError: For a number out of range.
    """

    batch_size: int
    lr: float

    def __post_init__(self) -> None:
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise RecipeError(f"The batch_size of a training is a whole number >= 1; got {self.batch_size!r}.")
        if not _is_number(self.lr) or not self.lr > 0:
            raise RecipeError(f"The lr of a training is a finite number > 0; got {self.lr!r}.")
        object.__setattr__(self, "lr", float(self.lr))

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """Read the JSON form."""
        _check_keys(cls, data, required=("batch_size", "lr"))
        return cls(**data)


@dataclass(frozen=True)
class ProxyConfig:
    """The cheap training that scores a recipe.

    Args:
        epochs: Length of an unpruned proxy, in epochs of the subset.
        rungs: Epochs at which the reward is reported and a trial may be stopped; rising, the last one is
            `epochs`. Empty: a quarter, a half and all of the epochs, rounded.
        subset: Share of the training data (or of the classes) a proxy sees; in (0, 1].
        subset_by: `"images"`: a stratified share of all classes; `"classes"`: all images of a share of them.
        sparsity: Share of the student's weights that are zero while it is a proxy; in [0, 1), 0 for none. Auto-KD has
            0.5. It saves parameters and no time: kernels for dense weights do not get faster.
        regrow: Whether the zeros move while it trains (RigL), or stay where they were drawn.
        narrow: Share of the student's channels that stay while it is a proxy; in (0, 1], 1 for all. About its square
            is the cost that is left; 0.71 halves it. Needs torch-pruning.
        batch_size: Images per step, unless the recipe says; None for those of the task. A smaller batch makes more
            steps of the same images, and proxies of fewer than 100 rank badly.
    """

    epochs: int = 12
    rungs: tuple[int, ...] = ()
    subset: float = 1.0
    subset_by: Literal["images", "classes"] = "images"
    sparsity: float = 0.0
    regrow: bool = True
    narrow: float = 1.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"A proxy needs a whole number of epochs, at least 1; got {self.epochs!r}.")
        rungs = tuple(self.rungs) or tuple(
            sorted({max(1, round(self.epochs / 4)), max(1, round(self.epochs / 2)), self.epochs})
        )
        if list(rungs) != sorted(set(rungs)) or rungs[0] < 1 or rungs[-1] != self.epochs:
            raise ValueError(f"rungs rise from >= 1 to the number of epochs ({self.epochs}); got {rungs!r}.")
        object.__setattr__(self, "rungs", rungs)
        if not 0 < self.subset <= 1:
            raise ValueError(f"subset is a share in (0, 1]; got {self.subset!r}.")
        if self.subset_by not in ("images", "classes"):
            raise ValueError(f"subset_by is 'images' or 'classes'; got {self.subset_by!r}.")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is a share of the weights in [0, 1); got {self.sparsity!r}.")
        if not 0 < self.narrow <= 1:
            raise ValueError(f"narrow is the share of the channels that stay, in (0, 1]; got {self.narrow!r}.")
        if self.batch_size is not None and (
            isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1
        ):
            raise ValueError(f"The batch_size of a proxy is a whole number >= 1, or None; got {self.batch_size!r}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**_plain_fields(self), "rungs": list(self.rungs)}


def halving_rungs(epochs: int, count: int = 4) -> tuple[int, ...]:
    """Give the rungs of successive halving: all epochs, half of them, and so on; (3, 6, 12, 24) for 24.

    At most `count`, and none below two epochs: after a single one a student of any recipe may still be guessing.
    """
    rungs = {round(epochs / 2**power) for power in range(count)}
    return tuple(sorted(rung for rung in rungs if rung >= min(2, epochs)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list_of(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RecipeError(f"The {name} of a recipe are a list; got {value!r}.")
    return value


def _options(values: object) -> Options:
    if not isinstance(values, Mapping) or not all(isinstance(value, Scalar) for value in values.values()):
        raise RecipeError(f"Options are an object of strings and numbers; got {values!r}.")
    return Options(values)


def _plain_fields(config: Any) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}


def _check_keys(cls: type, data: Mapping[str, Any], required: tuple[str, ...]) -> None:
    if not isinstance(data, Mapping):
        raise RecipeError(f"A {cls.__name__} is a JSON object; got {data!r}.")
    known = {item.name for item in dataclasses.fields(cls)}
    unknown, missing = sorted(set(data) - known), sorted(set(required) - set(data))
    if unknown or missing:
        problem = f"unknown keys {unknown}" if unknown else f"missing keys {missing}"
        raise RecipeError(f"A {cls.__name__} has {problem}; known: {', '.join(sorted(known))}.")
