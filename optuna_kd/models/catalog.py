"""The catalogue of model families: what can be built by name, as frozen facts.

A family file adds one `ModelInfo` for each published size and, where its names follow a rule, one
`Grammar` that reads any other size ("resnet8x0.25", "wrn_22_3"). Nothing else has to change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from optuna_kd.registry import Registry


class ModelFactory(Protocol):
    """Anything that builds an untrained network."""

    def __call__(self, *, num_classes: int, in_channels: int, input_size: int) -> nn.Module:
        """Build it for images of `in_channels` channels whose shorter side is `input_size` pixels."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """One model that can be built by name.

    Args:
        name: Canonical name: lower case, without hyphens.
        family: The family it belongs to, e.g. `"resnet"`.
        factory: Builds it, untrained.
        description: One line on what it is and where it was published.
    """

    name: str
    family: str
    factory: ModelFactory
    description: str


@dataclass(frozen=True)
class Grammar:
    """A rule by which names of a family are read.

    Args:
        family: The family.
        rule: The rule in words, shown in error messages.
        pattern: Matched against the whole canonical name.
        read: Turns a match into a `ModelInfo`; raises `ValueError` for a size that does not exist.
    """

    family: str
    rule: str
    pattern: re.Pattern[str]
    read: Callable[[re.Match[str]], ModelInfo] = field(repr=False)


MODELS: Registry[ModelInfo] = Registry("model")
GRAMMARS: Registry[Grammar] = Registry("model family")
_ALIASES: dict[str, str] = {}


def register_model(info: ModelInfo, *aliases: str) -> ModelInfo:
    """Add a model under its name, and under other spellings that the literature uses.

    Raises:
        ValueError: If the name or an alias is taken.
    """
    for alias in aliases:
        if alias in MODELS or alias in _ALIASES:
            raise ValueError(f"The model name {alias!r} is already registered; choose another alias.")
    MODELS.add(info.name, info)
    _ALIASES.update(dict.fromkeys(aliases, info.name))
    return info


def register_grammar(grammar: Grammar) -> Grammar:
    """Add the rule by which a family reads its names.

    Raises:
        ValueError: If the family has a rule already.
    """
    return GRAMMARS.add(grammar.family, grammar)


def canonical_name(name: str) -> str:
    """Reduce the usual spellings of a name to one: ``"ResNet-20"`` and ``"resnet_20"`` to ``"resnet20"``."""
    plain = name.strip().lower().replace("-", "_")
    return re.sub(r"^(resnet|vgg)_(?=\d)", r"\1", plain)


def find_own(name: str) -> ModelInfo | None:
    """Look a name up in the catalogue: registered models and aliases first, then the families' rules."""
    plain = canonical_name(name)
    plain = _ALIASES.get(plain, plain)
    if plain in MODELS:
        return MODELS[plain]
    for grammar in GRAMMARS.values():
        match = grammar.pattern.fullmatch(plain)
        if match:
            return grammar.read(match)
    return None
