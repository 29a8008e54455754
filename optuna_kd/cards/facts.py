"""What a recipe was found for: data, teacher and student, as plain facts that two tasks can be compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optuna_kd.cards.checks import CardError, require_list, require_object, require_text, require_whole


@dataclass(frozen=True)
class DataFacts:
    """A data set.

    Args:
        name: Of the data set; "data" where nobody named it.
        classes: Number of classes.
        image_shape: (C, H, W).
        train: Images to train on.
        validation: Images that choose.
        test: Images that are read once; 0 for none.
    """

    name: str
    classes: int
    image_shape: tuple[int, ...]
    train: int
    validation: int
    test: int

    @classmethod
    def from_dict(cls, data: object) -> DataFacts:
        """Read the JSON form."""
        found = require_object(data, "data", cls.__dataclass_fields__)
        counts = {name: require_whole(found[name], f"data.{name}") for name in ("train", "validation", "test")}
        classes = require_whole(found["classes"], "data.classes", low=1)
        return cls(
            require_text(found["name"], "data.name"),
            classes,
            _shape(found["image_shape"], "data.image_shape"),
            **counts,
        )


@dataclass(frozen=True)
class NetworkFacts:
    """A teacher or a student.

    Args:
        name: Of the network, or of the family that a search chooses from.
        parameters: None where the search has still to choose it.
        layer: Shape (C, H, W) of the maps that are compared; None likewise.
    """

    name: str
    parameters: int | None = None
    layer: tuple[int, ...] | None = None

    @classmethod
    def from_dict(cls, data: object, role: str) -> NetworkFacts:
        """Read the JSON form."""
        found = require_object(data, role, cls.__dataclass_fields__)
        parameters, layer = found["parameters"], found["layer"]
        return cls(
            require_text(found["name"], f"{role}.name"),
            None if parameters is None else require_whole(parameters, f"{role}.parameters"),
            None if layer is None else _shape(layer, f"{role}.layer"),
        )


@dataclass(frozen=True)
class TaskFacts:
    """What is distilled: data, teacher, student."""

    data: DataFacts
    teacher: NetworkFacts
    student: NetworkFacts

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: _plain(asdict(part)) for name, part in self.parts().items()}

    def parts(self) -> dict[str, DataFacts | NetworkFacts]:
        """Give the parts by name."""
        return {"data": self.data, "teacher": self.teacher, "student": self.student}

    @classmethod
    def from_dict(cls, data: object) -> TaskFacts:
        """Read the JSON form.

        Raises:
            CardError: If it is something else.
        """
        found = require_object(data, "the task", cls.__dataclass_fields__)
        teacher, student = (NetworkFacts.from_dict(found[role], role) for role in ("teacher", "student"))
        return cls(DataFacts.from_dict(found["data"]), teacher, student)


def _shape(value: object, what: str) -> tuple[int, ...]:
    sides = tuple(require_whole(side, what, low=1) for side in require_list(value, what))
    if len(sides) != 3:
        raise CardError(f"{what} is a shape of three sides, (C, H, W); got {list(sides)}.")
    return sides


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
