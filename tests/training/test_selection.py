"""The student of the best epoch by validation data: which epochs count, and that it is the student it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training.evaluation import accuracy
from optuna_kd.training.full import train_student
from optuna_kd.training.selection import Selection
from optuna_kd.training.trainer import StudentTraining

KD = Recipe.from_string("kl@4*1")


class Scored(nn.Module):
    """A network whose accuracy is what its one weight says."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


def watch(selection: Selection, scores: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> Scored:
    student = Scored()
    monkeypatch.setattr("optuna_kd.training.selection.accuracy", lambda task, model, part: float(model.weight.item()))
    for epoch, score in scores.items():
        student.weight.data.fill_(score)
        selection.after_epoch(student, epoch)
    return student


def test_the_best_of_the_last_quarter_is_kept_and_of_equal_ones_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    selection = Selection(None, 12)  # type: ignore[arg-type]
    scores = dict.fromkeys(range(1, 13), 0.25) | {3: 1.0, 9: 0.9, 10: 0.5, 11: 0.75, 12: 0.75}
    last = watch(selection, scores, monkeypatch)
    assert selection.epoch == 11  # 9 comes before the last quarter
    last.weight.data.fill_(0.0)
    assert selection.student(last).weight.item() == 0.75
    assert last.weight.item() == 0.0


@pytest.mark.parametrize(("epochs", "looked_at"), [(1, {1}), (2, {2}), (4, {4}), (5, {4, 5}), (8, {7, 8})])
def test_how_many_epochs_are_looked_at(epochs: int, looked_at: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for best in range(1, epochs + 1):
        selection = Selection(None, epochs)  # type: ignore[arg-type]
        watch(selection, {epoch: float(epoch == best) for epoch in range(1, epochs + 1)}, monkeypatch)
        seen |= {best} if selection.epoch == best else set()
    assert seen == looked_at


def test_one_that_goes_on_knows_what_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Selection(None, 8), Selection(None, 8)  # type: ignore[arg-type]
    watch(first, {7: 0.75}, monkeypatch)
    second.load_state_dict(first.state_dict())
    last = watch(second, {8: 0.5}, monkeypatch)
    assert second.epoch == 7
    assert second.student(last).weight.item() == 0.75


def test_its_student_has_the_accuracy_by_which_it_was_chosen(task: Any) -> None:
    selection = Selection(task, 8)
    training = StudentTraining(task, KD, ProxyConfig(epochs=8, rungs=(8,)), seed=3, selection=selection)
    for _ in training.run():
        pass
    training.observer.close()
    assert selection.epoch in (7, 8)
    chosen = accuracy(task, selection.student(training.student), "val")
    assert chosen == selection.state_dict()["accuracy"]
    assert chosen >= accuracy(task, training.student, "val")


def test_a_full_training_reports_both_students(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = train_student(task, KD, epochs=4, seed=0, index=0)
    assert plain.selected_epoch == 4  # the only one of the last quarter
    assert plain.selected_test_accuracy == plain.test_accuracy
    scores = iter([0.9, 0.1])
    monkeypatch.setattr("optuna_kd.training.selection.accuracy", lambda *_: next(scores))
    run, student = train_student(task, KD, epochs=5, seed=0, index=0)
    assert run.selected_epoch == 4
    assert run.test_accuracy == accuracy(task, student, "test")
    assert run.selected_test_accuracy is not None


def test_without_test_data_there_is_an_epoch_and_no_accuracy(make_task: Any) -> None:
    run, _ = train_student(make_task(test=None), KD, epochs=1, seed=0, index=0)
    assert (run.selected_epoch, run.selected_test_accuracy) == (1, None)
