"""How far two tasks are apart: one number, in doublings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from optuna_kd.cards.facts import DataFacts, NetworkFacts, TaskFacts

UNKNOWN = 1.0  # what counts for something that one of the two does not say


def distance(one: TaskFacts, other: TaskFacts) -> float:
    """Give the distance of two tasks: 0 for equal ones, and one for every difference in kind and every doubling.

    - data: 1 for another name; 1 for another number of colour channels; the doublings of the classes, of the image
      side and, by half, of the training images;
    - teacher and student each: 1 for another family, which is what its name begins with; half the doublings of the
      parameters, because twice the width is four times the parameters; and for the compared maps half the doublings of
      their channels and of their side.

    What one of the two does not say, because a search has still to choose it, counts as one.
    """
    return _data(one.data, other.data) + _network(one.teacher, other.teacher) + _network(one.student, other.student)


def _data(one: DataFacts, other: DataFacts) -> float:
    return (
        float(one.name != other.name)
        + float(one.image_shape[0] != other.image_shape[0])
        + _doublings(one.classes, other.classes)
        + _doublings(_side(one.image_shape), _side(other.image_shape))
        + _doublings(one.train, other.train) / 2
    )


def _network(one: NetworkFacts, other: NetworkFacts) -> float:
    found = float(_family(one.name) != _family(other.name))
    if one.parameters is None or other.parameters is None:
        found += UNKNOWN
    else:
        found += _doublings(one.parameters, other.parameters) / 2
    if one.layer is None or other.layer is None:
        return found + UNKNOWN
    return found + (_doublings(one.layer[0], other.layer[0]) + _doublings(_side(one.layer), _side(other.layer))) / 2


def _family(name: str) -> str:
    """Give the letters that a name begins with: resnet8x4, resnet32 and resnet1-1-3x0.25 are one family."""
    letters = re.match(r"[a-z]+", name.lower())
    return letters[0] if letters else name


def _side(shape: Sequence[int]) -> float:
    return math.sqrt(shape[1] * shape[2])


def _doublings(one: float, other: float) -> float:
    return abs(math.log2(max(one, 1)) - math.log2(max(other, 1)))
