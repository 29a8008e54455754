"""The recipe card: a recipe with what it was found for, what it brought, and which results it may be compared with."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from optuna_kd.cards.checks import (
    CardError,
    require_list,
    require_object,
    require_plain,
    require_share,
    require_text,
)
from optuna_kd.cards.facts import TaskFacts
from optuna_kd.cards.results import MethodResult
from optuna_kd.recipe import Recipe, RecipeError

FORMAT = "optuna_kd.card"
VERSION = 1

#: What a verdict comes to, about the recipe and tuned KD over the same seeds.
OUTCOMES = ("better", "level", "worse", "one seed", "not compared")
PARTS = ("test", "validation")
_KEYS = (
    "format", "version", "study", "study_id", "method", "date", "recipe", "line", "digest", "comparable", "data",
    "teacher", "student", "teacher_accuracy", "protocol", "results", "verdict", "outcome", "runners_up", "versions",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecipeCard:
    """What a search, or a full training, has to say about one recipe.

    Args:
        recipe: The recipe, with its student where that has a name.
        task: What it was found for.
        teacher_accuracy: Of the teacher, on the validation data, in [0, 1].
        protocol: Everything else that makes two results comparable, as plain JSON: what `task.describe()` says, with
            checksums of data, split and teacher, the epochs, and how the teacher was asked. No seeds and no recipe.
        part: Which data the accuracies are of: "test", or "validation" where there are no test data.
        result: The recipe's own full trainings.
        controls: Those of the methods beside it, over the same seeds.
        verdict: One sentence; empty where nothing was compared.
        outcome: What it comes to, one of `OUTCOMES`.
        runners_up: What the search would have taken next, best first; for warm starts.
        study: Name of the study, or of the folder.
        study_id: Tells studies of the same name apart; empty where there was none.
        method: "auto-kd", "uniads", or "distill" for a recipe that was given.
        date: When it was written, in UTC (ISO 8601).
        versions: Of Python and of the packages that matter.
    """

    recipe: Recipe
    task: TaskFacts
    teacher_accuracy: float
    protocol: Mapping[str, Any]
    part: str
    result: MethodResult
    controls: tuple[MethodResult, ...] = ()
    verdict: str = ""
    outcome: str = "not compared"
    runners_up: tuple[Recipe, ...] = ()
    study: str = ""
    study_id: str = ""
    method: str = "distill"
    date: str = field(default_factory=lambda: now())
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())

    def __post_init__(self) -> None:
        object.__setattr__(self, "protocol", require_plain(self.protocol, "protocol"))  # as it will be read

    @property
    def comparable(self) -> str:
        """Twelve hex digits that say which results may be compared: those of cards that have the same.

        Over the whole protocol; so it is another for other data, another split, teacher, student, preprocessing or
        number of epochs, and the same for other seeds and recipes.
        """
        return _hash(self.protocol)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with its format and version."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "study": self.study,
            "study_id": self.study_id,
            "method": self.method,
            "date": self.date,
            "recipe": self.recipe.to_dict(),
            "line": str(self.recipe),
            "digest": self.recipe.digest,
            "comparable": self.comparable,
            **self.task.to_dict(),
            "teacher_accuracy": self.teacher_accuracy,
            "protocol": dict(self.protocol),
            "results": {
                "part": self.part,
                "recipe": self.result.to_dict(),
                "controls": [control.to_dict() for control in self.controls],
            },
            "verdict": self.verdict,
            "outcome": self.outcome,
            "runners_up": [recipe.to_dict() for recipe in self.runners_up],
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, data: object) -> RecipeCard:
        """Read the JSON form. `line`, means and intervals follow from the rest, and are not read.

        Raises:
            CardError: If it is no card, one of another version, or its hashes are not those of what it says.
        """
        found = _require_card(data)
        results = require_object(found["results"], "results", ("part", "recipe", "controls"))
        card = cls(
            recipe=_recipe(found["recipe"], "recipe"),
            task=TaskFacts.from_dict({role: found[role] for role in ("data", "teacher", "student")}),
            teacher_accuracy=require_share(found["teacher_accuracy"], "teacher_accuracy"),
            protocol=require_object(found["protocol"], "protocol"),
            part=_one_of(results["part"], PARTS, "results.part"),
            result=MethodResult.from_dict(results["recipe"]),
            controls=tuple(map(MethodResult.from_dict, require_list(results["controls"], "results.controls"))),
            verdict=require_text(found["verdict"], "verdict"),
            outcome=_one_of(found["outcome"], OUTCOMES, "outcome"),
            runners_up=tuple(_recipe(each, "runners_up") for each in require_list(found["runners_up"], "runners_up")),
            study=require_text(found["study"], "study"),
            study_id=require_text(found["study_id"], "study_id"),
            method=require_text(found["method"], "method"),
            date=_date(found["date"]),
            versions=_versions(found["versions"]),
        )
        for name, stated, own in (
            ("digest", found["digest"], card.recipe.digest),
            ("comparable", found["comparable"], card.comparable),
        ):
            if stated != own:
                raise CardError(f"Its {name} is {stated!r}, but what it says has {own!r}: it was changed by hand.")
        return card

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> RecipeCard:
        """Read JSON text; a `CardError` says what is wrong with it."""
        return cls.from_dict(parse_json(text))

    def to_markdown(self) -> str:
        """Markdown for people, in which names do nothing, whatever they are."""
        from optuna_kd.cards.markdown import markdown_of

        return markdown_of(self)


def protocol_of(described: Mapping[str, Any], *, epochs: int, knowledge: str) -> dict[str, Any]:
    """Put together what makes two results comparable.

    Args:
        described: What `ImageClassification.describe` says of the task.
        epochs: Of each training.
        knowledge: How the teacher was asked; stored views repeat, and others do not.
    """
    return {**described, "epochs": epochs, "knowledge": knowledge}


def parse_json(text: str) -> Any:
    """Read JSON from anywhere.

    Raises:
        CardError: If it is none, nests without end, or has numbers that JSON does not.
    """

    def refuse(name: str) -> Any:
        raise CardError(f"This is not JSON: {name} is no number there.")

    try:
        return json.loads(text, parse_constant=refuse)
    except CardError:
        raise
    except (ValueError, RecursionError) as error:
        raise CardError(f"This is not JSON: {error}.") from None


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    names = ("optuna-kd", "optuna", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _require_card(data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise CardError(f'This is not a recipe card: it needs "format": "{FORMAT}".')
    version = data.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        todo = "Update optuna_kd to read it." if newer else "Run the search again to get a new one."
        raise CardError(f"This recipe card has version {version!r}; this optuna_kd reads version {VERSION}. {todo}")
    return require_object(data, "A recipe card", _KEYS)


def _recipe(data: object, what: str) -> Recipe:
    try:
        return Recipe.from_dict(data)  # type: ignore[arg-type]
    except RecipeError as error:
        raise CardError(f"{what}: {error}") from None


def _one_of(value: object, known: tuple[str, ...], what: str) -> str:
    text = require_text(value, what)
    if text not in known:
        raise CardError(f"{what} is one of {', '.join(known)}; got {text!r}.")
    return text


def _date(value: object) -> str:
    text = require_text(value, "date")
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise CardError(f"date is a time like {now()}; got {text!r}.") from None
    return text


def _versions(value: object) -> dict[str, str]:
    found = require_object(value, "versions")
    return {
        require_text(name, "versions"): require_text(version, f"versions.{name}") for name, version in found.items()
    }


def _hash(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


__all__ = [
    "FORMAT",
    "OUTCOMES",
    "PARTS",
    "VERSION",
    "RecipeCard",
    "installed_versions",
    "now",
    "parse_json",
    "protocol_of",
]
