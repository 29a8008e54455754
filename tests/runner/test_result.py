"""The verdict, and the choice of the student: what needs no search."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_searches import Task

from optuna_kd.analysis.statistics import Comparison
from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED, judge, outcome_of
from optuna_kd.cards import OUTCOMES, load_card
from optuna_kd.recipe import Recipe, StudentConfig
from optuna_kd.runner.result import conclude
from optuna_kd.study import create_study


def compared(difference: float, p: float, n: int = 10) -> Comparison:
    return Comparison("other", difference, 0.01, n, p, p, 0.012)


def test_the_outcome_is_what_the_verdict_comes_to() -> None:
    found = {
        (0.02, 0.01): "better", (-0.02, 0.01): "worse", (0.02, 0.2): "level", (-0.02, 0.2): "level",
    }  # fmt: skip
    for (difference, p), outcome in found.items():
        assert outcome_of(compared(difference, p), same_recipe=False) == outcome
        assert outcome in OUTCOMES
    assert outcome_of(compared(0.02, 0.01), same_recipe=True) == "level"
    assert outcome_of(compared(0.02, 1.0, n=1), same_recipe=False) == "one seed"


@pytest.mark.parametrize(
    ("tuned", "plain", "labels", "expected"),
    [
        ((0.02, 0.01), (0.03, 0.01), (0.04, 0.01), "beats tuned KD beyond noise.*and plain KD and labels only as well"),
        ((0.02, 0.01), (0.01, 0.30), (0.04, 0.01), "beats tuned KD beyond noise.*but not plain KD;"),
        ((0.02, 0.01), (0.01, 0.30), (-0.1, 0.01), "beats tuned KD.*but not plain KD or labels only;"),
        ((-0.02, 0.01), (0.03, 0.01), (0.04, 0.01), r"is worse than tuned KD \(-2\.00 points.*Use tuned KD\."),
        ((0.02, 0.20), (0.03, 0.01), (0.04, 0.01), r"does not beat tuned KD beyond noise \(\+2\.00 points, p = 0\.2"),
        ((-0.02, 0.20), (0.03, 0.01), (0.04, 0.01), "does not beat tuned KD beyond noise"),
    ],
)
def test_the_verdict(tuned: Any, plain: Any, labels: Any, expected: str) -> None:
    comparisons = {TUNED: compared(*tuned), PLAIN: compared(*plain), LABELS: compared(*labels)}
    verdict = judge(comparisons)
    assert re.search(expected, verdict)
    assert "10 seeds can show differences from 1.20 points on" in verdict
    assert "Holm" in verdict


def test_the_verdict_with_one_seed_and_with_one_recipe() -> None:
    comparisons = {name: compared(0.02, 1.0, n=1) for name in (TUNED, PLAIN, LABELS)}
    assert "+2.00 points from tuned KD, with one seed: nothing can be said" in judge(comparisons)
    assert "the same recipe" in judge(comparisons, same_recipe=True)


def test_the_verdict_with_too_few_seeds_names_no_impossible_difference() -> None:
    few = {name: dataclasses.replace(compared(0.02, 0.5, n=2), detectable=1.4) for name in (TUNED, PLAIN, LABELS)}
    assert "2 seeds are too few to show a difference" in judge(few)


def run(seed: int, validation: float, test: float | None) -> dict[str, Any]:
    return {
        "seed": seed,
        "val_accuracy": validation,
        "test_accuracy": test,
        "cross_entropy": 1.0,
        "cka": 0.5,
        "seconds": 1.0,
    }


def test_the_student_is_chosen_on_validation_data_alone(teaching_task: Task, tmp_path: Path) -> None:
    for seed in range(3):
        torch.save(teaching_task.make_student(seed).state_dict(), tmp_path / f"{seed}.pt")
    methods = {LABELS: Recipe(), PLAIN: Recipe.from_string("kl@4*1")}
    methods |= {TUNED: Recipe.from_string("kl@2*5"), SEARCHED: Recipe.from_string("none|l2*5 + kl@4*1")}
    scores = [(0.5, 0.9), (0.7, 0.1), (0.6, 0.8)]
    records = {method: [run(seed, *score) for seed, score in enumerate(scores)] for method in methods}
    study = create_study(storage=None, study_name="s")
    result = conclude(
        study,
        teaching_task,
        methods,
        records,
        tmp_path / "out",
        student_file=lambda index: tmp_path / f"{index}.pt",
        teacher=0.9,
        epochs=1,
        student_config=StudentConfig("resnet8"),
    )
    expected = teaching_task.make_student(1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in result.student.state_dict().items())
    assert result.rows[-1].accuracies == (0.9, 0.1, 0.8)
    assert result.recipe.student == StudentConfig("resnet8")
    assert Recipe.load(tmp_path / "out" / "recipe.json") == result.recipe
    card = load_card(tmp_path / "out")
    assert card.runners_up == ()  # nothing was searched here
    assert (card.teacher_accuracy, card.protocol["epochs"]) == (0.9, 1)
