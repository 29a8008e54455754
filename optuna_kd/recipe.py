"""Recipes: what a search finds, as frozen data that travels as JSON (or, for the base space, as one line).

A `Recipe` holds a `DistillerConfig` (the sum of its `TermConfig`s) and, where the search chose them, a
`StudentConfig` and a `TrainingConfig`; these parts are in `recipe_parts`, and imported from here. A term is a
chain of transforms, a distance, a weight and a temperature, applied to one kind of knowledge. Nothing here
imports torch or optuna.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna_kd.files import write_whole
from optuna_kd.recipe_notation import describe_term, format_term, parse_term
from optuna_kd.recipe_parts import (
    KNOWLEDGE_KINDS,
    DistillerConfig,
    Knowledge,
    OpConfig,
    Options,
    ProxyConfig,
    RecipeError,
    Scalar,
    StudentConfig,
    TermConfig,
    TrainingConfig,
    halving_rungs,
)

FORMAT = "optuna_kd.recipe"
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """Everything a search finds, frozen.

    Args:
        distiller: What the student learns from the teacher.
        student: Which student; None where it was given.
        training: Batch size and learning rate; None where they were given.

    Example:
        >>> recipe = Recipe.from_string("attention>multiscale>channel|kl*5 + pearson@4*1")
        >>> recipe == Recipe.from_json(recipe.to_json())
        True
        >>> str(recipe)
        'attention>multiscale>channel|kl*5 + pearson@4*1'
    """

    distiller: DistillerConfig = field(default_factory=DistillerConfig)
    student: StudentConfig | None = None
    training: TrainingConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with its format and version."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "distiller": self.distiller.to_dict(),
            "student": self.student.to_dict() if self.student else None,
        }
        # Only where there is one: the digests of all other recipes stay what they were.
        return {**data, "training": self.training.to_dict()} if self.training else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read the JSON form.

        Raises:
            RecipeError: If it is no recipe, or a recipe of another version.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise RecipeError(f'This is not a recipe: it needs "format": "{FORMAT}".')
        if data.get("version") != VERSION:
            raise RecipeError(
                f"This recipe has version {data.get('version')!r}; this optuna_kd reads version {VERSION}. "
                "Run the optuna_kd that wrote it, or search again."
            )
        unknown = set(data) - {"format", "version", "distiller", "student", "training"}
        if unknown or "distiller" not in data:
            raise RecipeError(
                f"A recipe has the keys distiller, student and training; got unknown {sorted(unknown)}."
                if unknown
                else "A recipe needs the key 'distiller'."
            )
        student, training = data.get("student"), data.get("training")
        return cls(
            DistillerConfig.from_dict(data["distiller"]),
            StudentConfig.from_dict(student) if student is not None else None,
            TrainingConfig.from_dict(training) if training is not None else None,
        )

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read JSON text; a `RecipeError` says what is wrong with it."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecipeError(f"This is not JSON: {error}.") from None
        return cls.from_dict(data)

    def save(self, path: str | Path) -> None:
        """Write the JSON form to a file."""
        write_whole(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file written by `save`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Cannot read the recipe {str(path)!r}: {error}.") from None
        try:
            return cls.from_json(text)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from None

    @property
    def digest(self) -> str:
        """Twelve hex digits that name this recipe."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def from_string(cls, text: str) -> Recipe:
        """Read the one-line form of the base space: ``chain|distance*weight + distance@temperature*weight``.

        The first part distils feature maps, the second logits; either may be missing, and ``labels`` is the
        recipe without any term. ``none`` stands for a chain without transforms.

        Raises:
            RecipeError: If the text does not have this form.
        """
        terms: list[TermConfig] = []
        if text.strip() != "labels":
            for part in text.split(" + ") if " + " in text else [text]:
                terms.append(parse_term(part.strip(), text))
        return cls(DistillerConfig(tuple(terms)))

    def __str__(self) -> str:
        """Give one line for people: the one-line form where there is one; options and schedules in brackets."""
        config = self.distiller
        line = " + ".join(map(describe_term, config.terms)) or "labels"
        plain = DistillerConfig()
        changed = [
            f"{name}={getattr(config, name)}"
            for name in ("warmup", "stop", "teacher_batchnorm", "normalise")
            if getattr(config, name) != getattr(plain, name)
        ]
        if self.training is not None:
            changed += [f"batch={self.training.batch_size}", f"lr={self.training.lr:.3g}"]
        schedule = f" [{', '.join(changed)}]" if changed else ""
        return f"{line}{schedule} -> {self.student}" if self.student is not None else line + schedule

    def to_string(self) -> str:
        """Give the one-line form.

        Raises:
            RecipeError: If the recipe uses what that form cannot say (options, embeddings, schedules).
        """
        plain = dataclasses.replace(self.distiller, terms=()) == DistillerConfig()
        if self.student is None and self.training is None and plain:
            text = " + ".join(filter(None, map(format_term, self.distiller.terms))) or "labels"
            if Recipe.from_string(text) == self:
                return text
        raise RecipeError("Only recipes of the base space have a one-line form; use to_json().")


def canonical(recipe: Recipe) -> Recipe:
    """Map recipes that train alike to one of them, so that repeats are recognised.

    `local` patches at the end of a chain change nothing for `l2`, `kl` and the distances of single entries (`l1`,
    `mse`, `smooth_l1`): the same numbers are averaged in another order. The latter do not see `sample` and `channel`
    there either. 9,600 of the 10,368 recipes of Auto-KD's base space are distinct.
    (At sizes that the patch number does not divide, `local` also crops the border; that is not told apart.)
    """
    terms = tuple(dataclasses.replace(term, transforms=_without_idle_end(term)) for term in recipe.distiller.terms)
    return dataclasses.replace(recipe, distiller=dataclasses.replace(recipe.distiller, terms=terms))


_IDLE = {
    **dict.fromkeys(("l2", "kl"), ("local",)),
    **dict.fromkeys(("l1", "mse", "smooth_l1"), ("local", "sample", "channel")),
}


def _without_idle_end(term: TermConfig) -> tuple[OpConfig, ...]:
    """Drop the last transforms of a chain on feature maps as long as the distance cannot tell."""
    chain = list(term.transforms)
    if term.knowledge == "features" and not any(op.name.startswith("softmax") for op in chain):
        while chain and chain[-1].name in _IDLE.get(term.distance.name, ()):
            chain.pop()
    return tuple(chain)


__all__ = [
    "FORMAT",
    "KNOWLEDGE_KINDS",
    "VERSION",
    "DistillerConfig",
    "Knowledge",
    "OpConfig",
    "Options",
    "ProxyConfig",
    "Recipe",
    "RecipeError",
    "Scalar",
    "StudentConfig",
    "TermConfig",
    "TrainingConfig",
    "canonical",
    "halving_rungs",
]
