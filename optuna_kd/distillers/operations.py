"""What transforms and distances are: functions with frozen facts, in two registries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from optuna_kd.distillers.numerics import Axis, on_knowledge
from optuna_kd.recipe import Scalar
from optuna_kd.registry import Registry, suggest_name

Form = Literal["map", "rows", "matrix"]
Stage = Literal["global", "intra", "inter", "logit", "any"]
Pairs = list[tuple[Tensor, Tensor]]
F = TypeVar("F", bound=Callable[..., object])

#: Number of dimensions of each form: [N, C, H, W], [B, R, D], [N, K].
FORMS: Mapping[Form, int] = MappingProxyType({"map": 4, "rows": 3, "matrix": 2})


class TransformFunction(Protocol):
    """Changes both sides alike: `(student, teacher, generator=..., **options) -> pairs`."""

    def __call__(
        self, student: Tensor, teacher: Tensor, *, generator: torch.Generator | None = None, **options: Scalar
    ) -> Pairs:
        """Give the pairs to compare."""


class DistanceFunction(Protocol):
    """Compares both sides: `(student, teacher, temperature=..., **options) -> 0-dim tensor`."""

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        temperature: float = 1.0,
        probabilities_over: Axis | None = None,
        **options: Scalar,
    ) -> Tensor:
        """Give the distance."""


@dataclass(frozen=True)
class OptionInfo:
    """One option of an operation: its default, what it means, and which values are allowed.

    Args:
        default: Value when the recipe does not name the option; its type is the type of the option.
        description: What it changes, in one phrase.
        choices: Allowed values, if they can be listed.
        minimum: Smallest allowed number.
        below: Bound that a number stays under.
        above: Bound that a number stays over.
    """

    default: Scalar
    description: str
    choices: tuple[Scalar, ...] = ()
    minimum: float | None = None
    below: float | None = None
    above: float | None = None

    def check(self, owner: str, name: str, value: Scalar) -> Scalar:
        """Return `value` if it is allowed.

        Raises:
            ValueError: If its type or size is not allowed; the message names the operation and the option.
        """
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        allowed = f"a {kind.__name__}"
        valid = type(value) is kind
        if self.choices:
            allowed = "one of " + ", ".join(map(repr, self.choices))
            valid = valid and value in self.choices
        for bound, sign, holds in (
            (self.minimum, ">=", lambda x, limit: x >= limit),
            (self.above, ">", lambda x, limit: x > limit),
            (self.below, "<", lambda x, limit: x < limit),
        ):
            if bound is not None:
                allowed += f" {sign} {bound:g}"
                valid = valid and holds(value, bound)
        if not valid:
            raise ValueError(f"The option {name} of {owner!r} is {allowed}; got {value!r}.")
        return value


@dataclass(frozen=True)
class OperationInfo:
    """What transforms and distances have in common.

    Args:
        name: The registered name.
        takes: Forms it accepts: `"map"` [N, C, H, W], `"rows"` [B, R, D], `"matrix"` [N, K].
        description: One sentence.
        source: Where the formula comes from.
        options: Its options by name.
    """

    name: str
    takes: tuple[Form, ...]
    description: str
    source: str
    options: Mapping[str, OptionInfo] = field(default_factory=dict)

    def resolve(self, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Complete `given` options with the defaults.

        Raises:
            UnknownNameError: For an option that this operation does not have.
            ValueError: For a value that is not allowed.
        """
        for name in given:
            if name not in self.options:
                if not self.options:
                    raise ValueError(f"{self.name!r} has no options; got {name!r}.")
                raise suggest_name(f"option of {self.name!r}", name, self.options)
        values = {name: option.default for name, option in self.options.items()}
        return {name: self.options[name].check(self.name, name, given.get(name, values[name])) for name in values}


@dataclass(frozen=True)
class TransformInfo(OperationInfo):
    """A transform: what is done to knowledge before it is compared.

    Args:
        function: `(student, teacher, generator=..., **options)` to a list of pairs; usually one. The losses
            of several pairs are averaged with equal weight.
        gives: Form of its result; None keeps the form.
        stage: Place in the tree of Auto-KD's search space: `"global"`, `"intra"`, `"inter"` (feature maps) or
            `"logit"`; `"any"` for the transforms of UniADS, which have no order.
        random: Whether it draws from the generator.
        uses_temperature: Whether τ changes it. A term with such a transform is multiplied by τ², once.
        probabilities_over: Axis along which its results are probabilities; None if they are none.
        needs_equal_width: Whether [N, D] of both sides must have the same D.
    """

    function: TransformFunction = field(kw_only=True)
    gives: Form | None = field(kw_only=True)
    stage: Stage = field(kw_only=True)
    random: bool = field(default=False, kw_only=True)
    uses_temperature: bool = field(default=False, kw_only=True)
    probabilities_over: Axis | None = field(default=None, kw_only=True)
    needs_equal_width: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class DistanceInfo(OperationInfo):
    """A distance: how two pieces of knowledge are compared.

    Args:
        function: `(student, teacher, temperature=..., **options)` to a 0-dim tensor.
        knowledge: Kinds of knowledge it is meant for: `"features"`, `"embeddings"`, `"logits"`.
        uses_temperature: Whether τ changes it.
        needs_equal_width: False if both sides may have different numbers of channels or dimensions.
        zero_at_equality: Whether equal knowledge has distance 0.
        knows_probabilities: Whether it is told the axis of probabilities, as `probabilities_over`, because it
            takes a softmax of its own, and they must not go through a second one.
    """

    function: DistanceFunction = field(kw_only=True)
    knowledge: tuple[str, ...] = field(kw_only=True)
    uses_temperature: bool = field(default=False, kw_only=True)
    needs_equal_width: bool = field(default=True, kw_only=True)
    zero_at_equality: bool = field(default=True, kw_only=True)
    knows_probabilities: bool = field(default=False, kw_only=True)


TRANSFORMS: Registry[TransformInfo] = Registry("transform")
DISTANCES: Registry[DistanceInfo] = Registry("distance")


def transform(
    name: str,
    *,
    takes: tuple[Form, ...],
    stage: Stage,
    source: str,
    gives: Form | None = None,
    random: bool = False,
    uses_temperature: bool = False,
    probabilities_over: Axis | None = None,
    needs_equal_width: bool = False,
    options: Mapping[str, OptionInfo] | None = None,
) -> Callable[[Callable[..., Pairs]], TransformFunction]:
    """Register the decorated function as a transform; see `TransformInfo`.

    The function gets both sides in full precision with the teacher detached; its docstring's first line is
    its description. It need not take the generator unless `random`, nor τ unless `uses_temperature`.
    """

    def register(function: Callable[..., Pairs]) -> TransformFunction:
        computed = on_knowledge(function)

        def run(
            student: Tensor, teacher: Tensor, *, generator: torch.Generator | None = None, **given: Scalar
        ) -> Pairs:
            check_form(info, student, teacher)
            extra: dict[str, object] = {"generator": generator} if random else {}
            if uses_temperature:  # otherwise the name is free for an option, as in `attention`
                extra["temperature"] = given.pop("temperature", 1.0)
            return computed(student, teacher, **extra, **info.resolve(given))

        info = TransformInfo(
            name,
            takes,
            _first_line(function),
            source,
            MappingProxyType(dict(options or {})),
            function=_named(run, function),
            gives=gives,
            stage=stage,
            random=random,
            uses_temperature=uses_temperature,
            probabilities_over=probabilities_over,
            needs_equal_width=needs_equal_width,
        )
        return TRANSFORMS.add(name, info).function

    return register


def distance(
    name: str,
    *,
    takes: tuple[Form, ...],
    knowledge: tuple[str, ...],
    source: str,
    uses_temperature: bool = False,
    needs_equal_width: bool = True,
    zero_at_equality: bool = True,
    knows_probabilities: bool = False,
    options: Mapping[str, OptionInfo] | None = None,
) -> Callable[[Callable[..., Tensor]], DistanceFunction]:
    """Register the decorated function as a distance; see `DistanceInfo`.

    The function gets both sides in full precision with the teacher detached and checked shapes; its
    docstring's first line is its description. It need not take the temperature unless `uses_temperature`, nor
    the axis of probabilities unless `knows_probabilities`.
    """

    def register(function: Callable[..., Tensor]) -> DistanceFunction:
        computed = on_knowledge(function)

        def run(
            student: Tensor,
            teacher: Tensor,
            *,
            temperature: float = 1.0,
            probabilities_over: Axis | None = None,
            **given: Scalar,
        ) -> Tensor:
            check_form(info, student, teacher)
            if needs_equal_width and student.shape != teacher.shape:
                raise ValueError(
                    f"{name!r} compares knowledge of equal shape; got student {tuple(student.shape)} and "
                    f"teacher {tuple(teacher.shape)}. Align them first (see Adapter)."
                )
            extra: dict[str, object] = {"temperature": temperature} if uses_temperature else {}
            if knows_probabilities:
                extra["probabilities_over"] = probabilities_over
            return computed(student, teacher, **extra, **info.resolve(given))

        info = DistanceInfo(
            name,
            takes,
            _first_line(function),
            source,
            MappingProxyType(dict(options or {})),
            function=_named(run, function),
            knowledge=knowledge,
            uses_temperature=uses_temperature,
            needs_equal_width=needs_equal_width,
            zero_at_equality=zero_at_equality,
            knows_probabilities=knows_probabilities,
        )
        return DISTANCES.add(name, info).function

    return register


def check_form(info: OperationInfo, student: Tensor, teacher: Tensor) -> None:
    """Refuse knowledge of a form that the operation does not take, with a `ValueError`."""
    dims = [FORMS[form] for form in info.takes]
    if student.dim() not in dims or teacher.dim() != student.dim():
        raise ValueError(
            f"{info.name!r} takes {' or '.join(f'{form} ({FORMS[form]}-D)' for form in info.takes)}; got "
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)}."
        )


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().split("\n")[0]


def _named(run: F, function: Callable[..., object]) -> F:
    run.__name__, run.__qualname__, run.__doc__ = function.__name__, function.__qualname__, function.__doc__
    run.__module__ = function.__module__
    return run
