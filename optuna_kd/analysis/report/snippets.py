"""Ready code: train the student of a recipe, use it, and repeat the search.

Whatever a study or a card says stands in quotes: copied into a shell or a script, it does nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optuna_kd.cards import RecipeCard
from optuna_kd.recipe import Recipe, RecipeError

# Options of `optuna-kd search` that `optuna-kd distill` has as well.
_TASK = (
    "data", "teacher", "teacher_checkpoint", "student", "seed", "device", "precision", "deterministic", "max_train",
    "batch_size", "image_size",
)  # fmt: skip
_NEGATED = {"keep_knowledge": "--delete-knowledge"}  # what stands for False, where that is not simply left out
_WIDTH = 88  # characters of a line of the command line


def python_snippet(recipe: Recipe, card: RecipeCard | None = None) -> str:
    """Give the code that trains a student by a recipe, for whoever has a task."""
    epochs, seeds = _trainings(card)
    arguments = "".join(f", {name}={value}" for name, value in (("epochs", epochs), ("seeds", seeds)) if value)
    return "\n".join(
        [
            "import optuna_kd",
            "",
            "# task = optuna_kd.ImageClassification(teacher, make_student, train_set, test=test_set)",
            f"recipe = {_constructor(recipe)}",
            f"result = optuna_kd.distill(task, recipe{arguments})",
            "print(result)",
            'result.save("runs/distilled")  # student.pt, recipe.json, summary.json, card.json',
        ]
    )


def predict_snippet(folder: str) -> str:
    """Give the code that predicts with the student of a finished search."""
    return "\n".join(
        [
            "import optuna_kd",
            "",
            f"student = optuna_kd.load_student({_quoted(folder)})",
            "print(student(images).argmax(1))  # images [N, C, H, W], uint8 or in [0, 1]",
        ]
    )


def distill_command(folder: str, options: Mapping[str, Any], card: RecipeCard) -> str:
    """Give the command that trains students by the recipe in a folder.

    Args:
        folder: Of a finished search.
        options: Those of `optuna-kd search`, as the study has kept them; none for a search in Python.
        card: What was found.
    """
    chosen = {name: options[name] for name in _TASK if name in options}
    if card.recipe.student is not None and card.recipe.student.options:
        chosen.pop("student", None)  # the family that was searched; the recipe names the student
    epochs, seeds = _trainings(card)
    words = ["optuna-kd distill", f"--recipe {shlex.quote(folder)}", *_flags(chosen)]
    words += [f"--{name} {value}" for name, value in (("epochs", epochs), ("seeds", seeds)) if value]
    return _wrapped(words if options else [*words, "..."])


def search_command(options: Mapping[str, Any], study: str, storage: str) -> str:
    """Give the command that searches again, from the options that a study has kept."""
    words = ["optuna-kd search", *_flags(options)]
    return _wrapped([*words, f"--study-name {shlex.quote(study)}", f"--storage {shlex.quote(storage)}"])


def show_commands(study: str, storage: str) -> str:
    """Give the commands that show a study."""
    where = shlex.quote(storage)
    return f"optuna-kd report {shlex.quote(study)} --storage {where}\noptuna-kd dashboard --storage {where}"


def _trainings(card: RecipeCard | None) -> tuple[int | None, int | None]:
    """Give epochs and seeds of the full trainings."""
    if card is None:
        return None, None
    epochs = card.protocol.get("epochs")
    return epochs if isinstance(epochs, int) and epochs > 0 else None, len(card.result.accuracies)


def _constructor(recipe: Recipe) -> str:
    # A student by its plain name is that of the task already; only one that was searched belongs to the recipe.
    given = recipe.student is not None and not recipe.student.options
    try:
        line = (replace(recipe, student=None) if given else recipe).to_string()
        return f"optuna_kd.Recipe.from_string({_quoted(line)})"
    except RecipeError:
        # JSON has apostrophes in texts only, where it may write them in another way.
        stored = recipe.to_json().replace("'", "\\u0027")
        return f"optuna_kd.Recipe.from_json(r'''{stored}''')"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _flags(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        if not re.fullmatch(r"[a-z_]+", name) or value is None:
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is False:
            words += [_NEGATED[name]] if name in _NEGATED else []
        elif isinstance(value, str | int | float):
            words.append(f"{flag} {shlex.quote(str(value))}")
    return words


def _wrapped(words: list[str]) -> str:
    """Break a command into lines, as a shell reads them."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}"
    return " \\\n".join(lines)
