"""Full training of a recipe: what comes out, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from optuna_kd.cards import load_card
from optuna_kd.models import checksum, load_weights
from optuna_kd.recipe import Recipe
from optuna_kd.training import (
    DistillResult,
    FullRun,
    ImageClassification,
    KnowledgeMismatchError,
    StudentTraining,
    accuracy,
    distill,
    store_knowledge,
    train_student,
)
from optuna_kd.training.full import mean_and_sd

KD = Recipe.from_string("none|l2*5 + kl@4*1")


@pytest.fixture(scope="module")
def result(task: ImageClassification) -> DistillResult:
    return distill(task, KD, epochs=2, seeds=3)


def test_one_run_for_each_seed(task: ImageClassification, result: DistillResult) -> None:
    assert [run.seed for run in result.runs] == [0, 1, 2]
    assert (result.recipe, result.epochs) == (KD, 2)
    assert result.test_accuracies == [run.test_accuracy for run in result.runs]
    assert len({run.cross_entropy for run in result.runs}) == 3
    for run in result.runs:
        assert 0 <= run.val_accuracy <= 1
        assert 0 <= run.cka <= 1
        assert run.seconds > 0


def test_the_student_is_the_best_on_validation_data(task: ImageClassification, result: DistillResult) -> None:
    best = max(run.val_accuracy for run in result.runs)
    assert accuracy(task, result.student, "val") == best
    chosen = next(run for run in result.runs if run.val_accuracy == best)
    assert accuracy(task, result.student, "test") == chosen.test_accuracy


def test_validation_chooses_even_when_the_test_says_otherwise(
    task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = [task.make_student(seed) for seed in range(4)]
    scores = [(0.5, 0.9), (0.8, 0.1), (0.8, 0.95), (0.7, 0.99)]  # validation, test

    def fake(task: Any, recipe: Any, *, index: int, **_: Any) -> tuple[FullRun, Any]:
        return FullRun(index, *scores[index], 1.0, 0.5, 0.1), students[index]

    monkeypatch.setattr("optuna_kd.training.full.train_student", fake)
    seen: list[int] = []
    result = distill(task, Recipe(), epochs=1, seeds=4, on_run=lambda run: seen.append(run.seed))
    assert result.student is students[1]  # the first of the best on validation data
    assert seen == [0, 1, 2, 3]


def test_seeds_are_repeatable_and_independent_of_their_number(task: ImageClassification, result: DistillResult) -> None:
    run, student = train_student(task, KD, epochs=2, seed=0, index=1, knowledge=store_knowledge(task))
    same = result.runs[1]
    assert (run.val_accuracy, run.cross_entropy, run.cka) == (same.val_accuracy, same.cross_entropy, same.cka)
    other, _ = train_student(task, KD, epochs=2, seed=1, index=1)
    assert other.cross_entropy != run.cross_entropy
    assert checksum(student) != checksum(task.make_student(0))


def test_without_test_data_validation_is_shown(make_task: Callable[..., Any]) -> None:
    result = distill(make_task(test=None), Recipe(), epochs=1, seeds=1)
    assert result.test_accuracies == []
    assert result.runs[0].test_accuracy is None
    assert str(result).startswith("labels: validation accuracy ")


def test_the_summary_line() -> None:
    runs = tuple(FullRun(i, 0.5, test, 1.0, 0.5, 1.0) for i, test in enumerate((0.90, 0.92)))
    line = str(DistillResult(KD, 2, runs, torch.nn.Identity()))
    assert line == "none|l2*5 + kl@4*1: test accuracy 91.00 ± 1.41 % over 2 seeds"


def test_files_load_into_a_fresh_student(task: ImageClassification, result: DistillResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "runs" / "r56-r20")
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.json", "card.md", "recipe.json", "student.pt", "summary.json",
    ]  # fmt: skip
    state = torch.load(folder / "student.pt", weights_only=True)
    assert type(state) in (dict, type(result.student.state_dict()))
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in state.values())
    fresh = task.make_student(seed=99)
    fresh.load_state_dict(state)
    load_weights(fresh, folder / "student.pt")
    images = task.prepare(task.val_set.images)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(images), result.student.eval()(images))
    assert Recipe.load(folder / "recipe.json") == KD

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["task"] == task.describe()
    assert summary["layers"] == task.layers()
    assert summary["recipe"] == str(KD)
    assert [run["test_accuracy"] for run in summary["runs"]] == result.test_accuracies


def test_a_card_says_what_was_trained_on_what(task: ImageClassification, result: DistillResult, tmp_path: Path) -> None:
    card = load_card(result.save(tmp_path / "mine"))
    assert (card.recipe, card.task, card.study, card.method) == (KD, task.facts(), "mine", "distill")
    assert card.result.accuracies == tuple(result.test_accuracies)
    assert card.result.validation == tuple(run.val_accuracy for run in result.runs)
    assert card.protocol == {**task.describe(), "epochs": 2, "knowledge": "replay"}
    assert card.teacher_accuracy == accuracy(task, task.teacher, "val")
    assert (card.outcome, card.verdict, card.controls, card.part) == ("not compared", "", (), "test")


def test_what_may_be_compared_is_told_from_what_may_not(make_task: Callable[..., Any], result: DistillResult) -> None:
    def comparable(recipe: str = "labels", epochs: int = 2, **changes: Any) -> str:
        return distill(make_task(**changes), recipe, epochs=epochs, seeds=1, seed=7).to_card().comparable

    assert comparable() == comparable("kl@4*1") == result.to_card().comparable
    assert len({comparable(), comparable(epochs=1), comparable(views=1), comparable(batch_size=16)}) == 4


def test_names_are_for_cards_alone(make_task: Callable[..., Any]) -> None:
    named = make_task(teacher_name="my teacher", data_name="my digits")
    facts = named.facts()
    assert (facts.teacher.name, facts.data.name, facts.data.train) == ("my teacher", "my digits", 160)
    assert (facts.student.parameters, facts.student.layer) == (named.student_parameters, (16, 4, 4))
    assert named.describe() == make_task().describe()


def test_without_a_task_there_is_no_card(tmp_path: Path) -> None:
    result = DistillResult(KD, 2, (FullRun(0, 0.5, None, 1.0, 0.5, 1.0),), torch.nn.Identity())
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        result.to_card()
    assert not (result.save(tmp_path) / "card.json").exists()


def test_the_student_is_left_without_hooks_and_adapters(task: ImageClassification, result: DistillResult) -> None:
    assert set(result.student.state_dict()) == set(task.make_student(0).state_dict())
    assert not any(module._forward_hooks for module in result.student.modules())


def test_the_teacher_collects_no_hooks(make_task: Callable[..., Any]) -> None:
    task = make_task()

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in task.teacher.modules())

    before = hooks()
    for _ in range(3):
        train_student(task, KD, epochs=1, seed=0, index=0)
    assert hooks() <= before + 1


@pytest.mark.parametrize("arguments", [{"seeds": 0}, {"epochs": 0}])
def test_nothing_to_train_is_refused(task: ImageClassification, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 seed and 1 epoch; got seeds="):
        distill(task, KD, **arguments)


def test_knowledge_of_another_teacher_is_refused(
    make_task: Callable[..., Any], make_teacher: Callable[[int], Any]
) -> None:
    other = store_knowledge(make_task(teacher=make_teacher(1)))
    with pytest.raises(KnowledgeMismatchError, match="teacher: stored"):
        distill(make_task(), KD, epochs=1, seeds=1, knowledge=other)


def test_mean_and_sd() -> None:
    assert mean_and_sd([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_sd([1.0]) == (1.0, 0.0)


def test_deterministic_algorithms_are_used_while_training_and_no_longer(
    make_task: Callable[..., ImageClassification], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    update = StudentTraining.update

    def spy(training: StudentTraining) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        update(training)

    monkeypatch.setattr(StudentTraining, "update", spy)
    distill(make_task(deterministic=True), "labels", epochs=1, seeds=1)
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
