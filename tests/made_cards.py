"""Recipe cards for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from optuna_kd.cards import DataFacts, MethodResult, NetworkFacts, RecipeCard, TaskFacts
from optuna_kd.recipe import Recipe

FACTS = TaskFacts(
    DataFacts("digits", 10, (1, 8, 8), 958, 239, 600),
    NetworkFacts("resnet20", 272_186, (64, 4, 4)),
    NetworkFacts("resnet8x0.125", 1_384, (8, 4, 4)),
)
LINE = "attention|kl*50 + pearson@8*5"


def make_card(line: str = LINE, **changes: Any) -> RecipeCard:
    """Give a card of three seeds; keywords replace its fields."""
    fields: dict[str, Any] = {
        "recipe": Recipe.from_string(line),
        "task": FACTS,
        "teacher_accuracy": 0.983,
        "protocol": {"data": "aa", "teacher": "bb", "student": "cc", "epochs": 15, "knowledge": "replay"},
        "part": "test",
        "result": MethodResult("searched recipe", line, (0.90, 0.92, 0.94), (0.91, 0.93, 0.95), (0.91, 0.92, 0.93)),
        "controls": (MethodResult("tuned KD", "kl@8*1", (0.88, 0.90, 0.91), (0.89, 0.90, 0.92)),),
        "verdict": "The searched recipe beats tuned KD beyond noise (+2.33 points, p = 0.02).",
        "outcome": "better",
        "runners_up": (Recipe.from_string("none|l2*5 + kl@4*1"),),
        "study": "auto-kd-digits-1",
        "study_id": "8d47",
        "method": "auto-kd",
        "date": "2026-11-22T07:26:59+00:00",
        "versions": {"python": "3.11.7", "optuna-kd": "0.1.0"},
    }
    return RecipeCard(**{**fields, **changes})


def compared_card(gain: float = 0.013, seeds: int = 10, **changes: Any) -> RecipeCard:
    """Give a card of a recipe that is `gain` above tuned KD, 0.01 above plain KD and 0.03 above labels, by seed."""
    wiggles = [0.004 * ((7 * seed) % 10 - 4.5) / 4.5 for seed in range(seeds)]
    tuned = [0.95 + wiggle for wiggle in wiggles]
    own = [value + gain + wiggle / 2 for value, wiggle in zip(tuned, wiggles[1:] + wiggles[:1], strict=True)]

    def result(method: str, recipe: str, values: list[float]) -> MethodResult:
        return MethodResult(method, recipe, tuple(values), tuple(value + 0.005 for value in values))

    controls = (
        result("labels only", "labels", [value - 0.03 - wiggle for value, wiggle in zip(own, wiggles, strict=True)]),
        result("plain KD", "kl@4*1", [value - 0.01 - wiggle / 3 for value, wiggle in zip(own, wiggles, strict=True)]),
        result("tuned KD", "kl@8*1", tuned),
    )
    return make_card(**{"result": result("searched recipe", LINE, own), "controls": controls, **changes})


def facts(**changes: Any) -> TaskFacts:
    """Give the facts of the cards' task with other ones in their place: `data_name`, `student_parameters`, ..."""
    parts: dict[str, Any] = FACTS.parts()
    for name, value in changes.items():
        part, _, field = name.partition("_")
        parts[part] = dataclasses.replace(parts[part], **{field: value})
    return TaskFacts(**parts)
