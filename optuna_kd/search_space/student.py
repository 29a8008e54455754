"""The architecture half of a joint search: what a student may look like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from optuna_kd.recipe import Options, Scalar, StudentConfig
from optuna_kd.search_space.base import Suggests

DEPTHS = (1, 3, 5, 7)
WIDTHS = (0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class StudentSpace:
    """Students as a name and the values that each option may take.

    Numbers at equal distances are suggested as numbers, so that a sampler knows their order; everything else is
    a choice. The values are looked up by the parameter names of the study: they may not be those of the distiller
    (`features_transform`, `temperature`, ...).

    Args:
        name: Of the family; a function of your own that builds students finds it in its `StudentConfig`.
        options: The values of each option, at least one; one alone is not searched.
        fixed: Options that every student has, e.g. `{"base_width": 0.25}`.

    Raises:
        ValueError: For an option without values, with a value twice, or both searched and fixed.

    Example:
        >>> StudentSpace("mine", {"channels": (8, 16, 24), "head": ("linear", "cosine")}).size()
        6
    """

    name: str = "resnet"
    options: Mapping[str, tuple[Scalar, ...]] = field(
        default_factory=lambda: {"depth_1": DEPTHS, "depth_2": DEPTHS, "depth_3": DEPTHS, "width": WIDTHS}
    )
    fixed: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", {name: tuple(values) for name, values in self.options.items()})
        for name, values in self.options.items():
            if not values or len(set(values)) != len(values):
                raise ValueError(f"The student option {name!r} needs different values, at least one; got {values!r}.")
        if both := sorted(set(self.options) & set(self.fixed)):
            raise ValueError(f"The student options {both} are both searched and fixed; choose one.")

    def __hash__(self) -> int:
        return hash((self.name, frozenset(self.options.items()), frozenset(self.fixed.items())))

    def suggest(self, trial: Suggests) -> StudentConfig:
        """Suggest one student, option by option."""
        chosen = {name: _suggest(trial, name, values) for name, values in self.options.items()}
        return StudentConfig(self.name, Options({**self.fixed, **chosen}))

    def values_of(self, student: StudentConfig) -> Mapping[str, Any]:
        """Give the value of every parameter that makes `suggest` return this student."""
        return {name: student.options.get(name) for name in self.options}

    def all(self) -> list[StudentConfig]:
        """List every student."""
        names = list(self.options)
        return [
            StudentConfig(self.name, Options({**self.fixed, **dict(zip(names, values, strict=True))}))
            for values in product(*self.options.values())
        ]

    def size(self) -> int:
        """Count the students."""
        return math.prod(map(len, self.options.values()))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, stored with the study."""
        return {
            "name": self.name,
            "options": {name: list(values) for name, values in self.options.items()},
            "fixed": dict(self.fixed),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudentSpace:
        """Read the JSON form."""
        options = {name: tuple(values) for name, values in data["options"].items()}
        return cls(data["name"], options, dict(data["fixed"]))


def _suggest(trial: Suggests, name: str, values: tuple[Scalar, ...]) -> Scalar:
    if len(values) == 1:
        return values[0]
    step = _step(values)
    if step is None:
        chosen: Scalar = trial.suggest_categorical(name, list(values))
        return chosen
    low, high = values[0], values[-1]
    if all(isinstance(value, int) for value in values):
        place: float = trial.suggest_int(name, low, high, step=int(step))  # type: ignore[arg-type]
    else:
        place = trial.suggest_float(name, low, high, step=round(step, 12))  # type: ignore[arg-type]
    # The value as it was given: 0.1 + 2 * 0.1 is not 0.3.
    return min(values, key=lambda value: abs(value - place))  # type: ignore[operator]


def _step(values: tuple[Scalar, ...]) -> float | None:
    """Give the distance of numbers that rise in equal steps; None for everything else."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return None
    steps = [after - before for before, after in pairwise(numbers)]
    return steps[0] if steps[0] > 0 and all(math.isclose(step, steps[0]) for step in steps) else None
