"""The recipe card of a finished search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.study import Study

from optuna_kd.cards import MethodResult, RecipeCard, protocol_of
from optuna_kd.recipe import Recipe, canonical
from optuna_kd.study import CARD, KNOWLEDGE, STUDY_ID, good_recipes, settings_of
from optuna_kd.training.task import ImageClassification

RUNNERS_UP = 9


def card_of_search(
    study: Study,
    task: ImageClassification,
    recipe: Recipe,
    records: Mapping[str, tuple[Recipe, Sequence[Mapping[str, Any]]]],
    searched: str,
    *,
    teacher: float,
    epochs: int,
    verdict: str = "",
    outcome: str = "not compared",
) -> RecipeCard:
    """Make the card of a recipe that a search has found.

    Args:
        study: The searched study.
        task: What was distilled, with its student.
        recipe: The recipe, with its student where that has a name.
        records: Recipe and full trainings of each method, over the same seeds.
        searched: Which of the methods is the recipe's.
        teacher: Accuracy of the teacher on the validation data.
        epochs: Of each training.
        verdict: One sentence.
        outcome: What it comes to.
    """
    part = "test" if task.test_set is not None else "validation"
    results = {name: _result(name, part, *found) for name, found in records.items()}
    others = [other for other in good_recipes(study, RUNNERS_UP + 1) if canonical(other) != canonical(recipe)]
    return RecipeCard(
        recipe=recipe,
        task=task.facts(),
        teacher_accuracy=teacher,
        protocol=protocol_of(task.describe(), epochs=epochs, knowledge=study.user_attrs.get(KNOWLEDGE, "")),
        part=part,
        result=results.pop(searched),
        controls=tuple(results.values()),
        verdict=verdict,
        outcome=outcome,
        runners_up=tuple(others[:RUNNERS_UP]),
        study=study.study_name,
        study_id=study.user_attrs.get(STUDY_ID, ""),
        method=settings_of(study)["method"],
    )


def publish(study: Study, card: RecipeCard) -> None:
    """Keep the card with the study, so that whoever opens its storage finds it."""
    study.set_user_attr(CARD, card.to_dict())


def _result(method: str, part: str, recipe: Recipe, runs: Sequence[Mapping[str, Any]]) -> MethodResult:
    validation = tuple(run["val_accuracy"] for run in runs)
    accuracies = tuple(run["test_accuracy"] for run in runs) if part == "test" else validation
    # Trainings of an earlier version did not look.
    looked = part == "test" and all("selected_test_accuracy" in run for run in runs)
    selected = tuple(run["selected_test_accuracy"] for run in runs) if looked else ()
    return MethodResult(method, str(replace(recipe, student=None)), accuracies, validation, selected)
