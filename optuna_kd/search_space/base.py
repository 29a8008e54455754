"""What every search space does: suggest a recipe, find the parameters of a recipe, describe itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

from optuna.trial import FixedTrial

from optuna_kd.recipe import Recipe
from optuna_kd.registry import Registry

Choice = TypeVar("Choice", bound=str | int | float)


class Suggests(Protocol):
    """The part of `optuna.trial.BaseTrial` that a space uses."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return a whole number from `low` to `high`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number from `low` to `high`."""


@dataclass(frozen=True, order=True)
class DeadCell:
    """A combination of operations that has no loss or no gradient on the maps at hand.

    Args:
        intra: In UniADS's space, the kind of knowledge.
        inter: There, the transform.
        distance: The distance.
    """

    intra: str
    inter: str
    distance: str

    def __str__(self) -> str:
        return f"{self.intra}>{self.inter}|{self.distance}"


@dataclass(frozen=True)
class Space(ABC):
    """A frozen search space. It is stored with the study: the choices of a parameter never change inside one.

    Args:
        dead: Cells that are left out, because they cannot teach on the maps of the task.
    """

    name: ClassVar[str]
    description: ClassVar[str]

    dead: tuple[DeadCell, ...] = ()

    @property
    def chooses_student(self) -> bool:
        """Whether its recipes name a student."""
        return False

    @abstractmethod
    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest one recipe, parameter by parameter, in tree order."""

    @abstractmethod
    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Give the value of every parameter, by its plain name, that makes `suggest` return `recipe`."""

    @abstractmethod
    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give the parameters in tree order, with all their options."""

    @abstractmethod
    def size(self) -> int:
        """Count the recipes of the space."""

    def recipe(self, params: Mapping[str, Any]) -> Recipe:
        """Rebuild the recipe from the parameters of a trial."""
        return self.suggest(FixedTrial(dict(params)))

    def params(self, recipe: Recipe) -> dict[str, Any]:
        """Give the trial parameters of a recipe, e.g. for `study.enqueue_trial`.

        Raises:
            ValueError: If the recipe is not in this space.
        """
        recorder = _Recorder(self.values_of(recipe))
        try:
            found = self.suggest(recorder)
        except KeyError as error:
            raise ValueError(f"The recipe {recipe} is not in the space {self.name!r}: {error.args[0]}.") from None
        if found != recipe:
            raise ValueError(f"The recipe {recipe} is not in the space {self.name!r}; the nearest there is {found}.")
        return recorder.params

    def adopt(self, recipe: Recipe) -> Recipe:
        """Give a recipe of another study as this space would have it, without what is not searched here.

        Whether it is in this space, `params` tells.
        """
        return replace(recipe, student=None, training=None)

    def without(self, dead: Sequence[DeadCell]) -> Space:
        """Give the same space without these cells."""
        return replace(self, dead=tuple(sorted({*self.dead, *dead})))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, stored with the study."""
        return {"name": self.name, "dead": [[cell.intra, cell.inter, cell.distance] for cell in self.dead]}


SPACES: Registry[type[Space]] = Registry("search space")


def create_space(name: str, **options: Any) -> Space:
    """Create a registered space by name, e.g. ``create_space("auto-kd", temperatures=(1, 4, 8, 16))``."""
    return SPACES[name](**options)


def space_from_dict(data: Mapping[str, Any]) -> Space:
    """Read the JSON form of a space."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key != "name"}
    options["dead"] = tuple(DeadCell(*cell) for cell in data.get("dead", ()))
    return create_space(data["name"], **options)


def choose(
    trial: Suggests,
    name: str,
    choices: Sequence[Choice],
    *,
    allowed: Sequence[Choice] | None = None,
    where: str = "",
) -> Choice:
    """Suggest one of the `allowed` choices.

    Optuna fixes the choices of a parameter for the whole study, so a place in the tree where only some of
    them are allowed gets a parameter of its own, `name__where`; a single allowed choice needs none.
    """
    left = [choice for choice in choices if allowed is None or choice in allowed]
    if len(left) == len(choices):
        return trial.suggest_categorical(name, list(choices))
    if len(left) == 1:
        return left[0]
    return trial.suggest_categorical(f"{name}__{where}", left)


class _Recorder:
    """Stands in for a trial: gives the wanted values and records under which names they were asked."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        plain = name if name in self.values else name.partition("__")[0]
        value = self.values.get(plain)
        if value not in choices:
            raise KeyError(f"{plain} = {value!r} is not one of {list(choices)}")
        self.params[name] = choices[list(choices).index(value)]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._number(name, low, high, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._number(name, low, high, step))

    def _number(self, name: str, low: float, high: float, step: float | None) -> float:
        value = self.values.get(name)
        fits = isinstance(value, int | float) and low <= value <= high
        if fits and step is not None:
            fits = abs((value - low) / step - round((value - low) / step)) < 1e-6  # type: ignore[operator]
        if not fits:
            grid = "" if step is None else f" in steps of {step:g}"
            raise KeyError(f"{name} = {value!r} is not between {low:g} and {high:g}{grid}")
        self.params[name] = value
        return float(value)  # type: ignore[arg-type]
