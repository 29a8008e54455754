"""Students that a search has put together: a `StudentConfig` turned into a network of a family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import nn

from optuna_kd.models.create import create_model
from optuna_kd.recipe import Scalar, StudentConfig
from optuna_kd.registry import Registry

#: Families by name: from the options of a student to the name of the network.
STUDENTS: Registry[Callable[[Mapping[str, Scalar]], str]] = Registry("student family")
_NARROWEST = 0.0625  # one channel instead of 16
STAGED = ("depth_1", "depth_2", "depth_3", "width", "base_width")


def create_student(
    config: StudentConfig, *, num_classes: int, in_channels: int = 3, input_size: int | tuple[int, int] = 32
) -> nn.Module:
    """Build the untrained student of a recipe.

    Args:
        config: A registered model by name, without options; or a family with the options that were searched:
            "resnet" and "wrn" take `depth_1`, `depth_2`, `depth_3` (residual blocks in each stage), `width` (ratio
            of the channels to 16, 32 and 64) and `base_width` (another factor of the same, 1 by default).
        num_classes: Number of classes.
        in_channels: Channels of the images.
        input_size: As for `create_model`.

    Raises:
        UnknownNameError: For a name that is neither a family nor a model.
        ValueError: For options that are missing, unknown, or give no network.

    Example:
        >>> config = StudentConfig("resnet", {"depth_1": 3, "depth_2": 3, "depth_3": 3, "width": 1})
        >>> student = create_student(config, num_classes=100)  # a ResNet-20
    """
    return create_model(student_name(config), num_classes=num_classes, in_channels=in_channels, input_size=input_size)


def student_name(config: StudentConfig) -> str:
    """Give the name under which `create_model` builds a student, e.g. "resnet7-1-3x0.5".

    Raises:
        ValueError: For options that are missing or unknown.
    """
    if not config.options:
        return config.name
    return STUDENTS[config.name](config.options)


def student_label(config: StudentConfig) -> str:
    """Name a student for people: by its network where the family is known, else with its options in brackets."""
    try:
        return student_name(config)
    except ValueError:  # of another factory, maybe under the same name
        return str(config)


def _staged(family: str, options: Mapping[str, Scalar]) -> tuple[str, float]:
    """Read the options of a family of three stages: its blocks, and the factor of its channels."""
    missing = [name for name in STAGED[:4] if name not in options]
    unknown = [name for name in options if name not in STAGED]
    if missing or unknown:
        raise ValueError(
            f"A student of the family {family!r} has the options {', '.join(STAGED[:4])} and maybe {STAGED[4]}; "
            + (f"{', '.join(missing)} missing." if missing else f"unknown: {', '.join(unknown)}.")
        )
    depths = [options[name] for name in STAGED[:3]]
    factors = [options["width"], options.get("base_width", 1)]
    if not all(isinstance(depth, int) and not isinstance(depth, bool) and depth > 0 for depth in depths):
        raise ValueError(f"The depths of a student are whole numbers > 0; got {depths}.")
    width = 1.0
    for factor in factors:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
            raise ValueError(f"width and base_width of a student are numbers > 0; got {factor!r}.")
        width *= factor
    if not _NARROWEST <= width < math.inf:
        raise ValueError(
            f"A student of width {width:g} (width times base_width) has no channels, or no end of them; the smallest "
            f"width is {_NARROWEST}."
        )
    return "-".join(map(str, depths)), width


def _resnet(options: Mapping[str, Scalar]) -> str:
    blocks, width = _staged("resnet", options)
    return f"resnet{blocks}" + (f"x{width:g}" if width != 1 else "")


def _wrn(options: Mapping[str, Scalar]) -> str:
    blocks, width = _staged("wrn", options)
    return f"wrn_{blocks}_{width:g}"


STUDENTS.add("resnet", _resnet)
STUDENTS.add("wrn", _wrn)
