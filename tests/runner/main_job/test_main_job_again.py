"""A search that is run again: it adds what is missing, and does not mix what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from main_searches import figures
from small_searches import Finished, Notes, Place, Task

from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.search import derived_name
from optuna_kd.search_space import create_space
from optuna_kd.study import StudyMismatchError, count_finished


def test_running_it_again_does_nothing_new(place: Place, finished: Finished) -> None:
    before, notes = place.counts(), Notes()
    again = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == 0
    assert notes.phases["Search"] == (4, 4)
    assert figures(again) == figures(finished[1])
    assert again.verdict == finished[1].verdict
    assert again.recipe == finished[1].recipe


def test_more_trials_add_only_what_is_missing(place: Place) -> None:
    old, notes = [trial.params for trial in place.study().trials], Notes()
    result = place.search(trials=6, progress=notes)
    assert count_finished(result.study) == len(result.study.trials) == 6
    assert [trial.params for trial in result.study.trials[:4]] == old
    assert notes.phases["Search"] == (6, 4)
    assert place.counts()["small/controls"] == 17


def test_fewer_trials_than_there_are_keep_them_all(place: Place) -> None:
    assert len(place.search(trials=2).study.trials) == 4


def test_a_budget_instead_of_trials(place: Place) -> None:
    notes = Notes()
    result = place.search(trials=None, budget=0.001, progress=notes)
    assert len(result.study.trials) == 4  # the time is over, and there are trials to choose from
    started = place.search(trials=None, budget="1s", progress=notes).study
    assert len(started.trials) >= 4


def test_a_lost_student_file_is_trained_again(place: Place, finished: Finished) -> None:
    shutil.rmtree(place.folder / "runs")
    before, notes = place.counts(), Notes()
    result = place.search(progress=notes)
    assert notes.done == 2
    assert place.counts() == before
    images = torch.ones(2, 1, 8, 8)
    assert torch.allclose(result.student(images), finished[1].student(images))


def test_a_study_is_refused_for_another_task(place: Place, make_task: Callable[..., Task]) -> None:
    other = make_task(teacher=place.task.teacher, lr=0.05)
    with pytest.raises(StudyMismatchError, match=r"lr=0\.1 .*lr=0\.05 "):
        place.search(other)
    with pytest.raises(StudyMismatchError, match="seed is 0, asked for 1"):
        place.search(seed=1)
    with pytest.raises(StudyMismatchError, match=r'"epochs": 2.*"epochs": 3'):
        place.search(proxy=ProxyConfig(epochs=3))
    with pytest.raises(StudyMismatchError, match=r"auto-kd.*feature-only"):
        place.search(space="feature-only")
    assert place.counts()["small"] == 4


def test_a_derived_name_changes_with_what_must_not_change(
    teaching_task: Task, make_task: Callable[..., Task], make_teacher: Callable[[int], Any]
) -> None:
    def name(
        task: Task = teaching_task,
        proxy: ProxyConfig | None = None,
        reward: str = "bounded",
        seed: int = 0,
        space: str = "auto-kd",
        temperatures: tuple[int, ...] | None = None,
        sampler: Any = "mcts",
    ) -> str:
        objective = DistillationObjective(task, proxy=proxy, reward=reward)
        options = {"temperatures": temperatures} if temperatures else {}
        return derived_name("kd", objective, seed, create_space(space, **options), sampler)

    names = [
        name(),
        name(make_task(teacher=teaching_task.teacher, lr=0.05)),
        name(make_task(teacher=make_teacher(7))),
        name(make_task(teacher=teaching_task.teacher, student=lambda: make_teacher(0))),
        name(proxy=ProxyConfig(epochs=3)),
        name(proxy=ProxyConfig(subset=0.5)),
        name(reward="paper"),
        name(seed=1),
        name(space="feature-only"),
        name(temperatures=(1, 4, 8, 16)),
        name(sampler="tpe"),
    ]
    assert len(set(names)) == len(names)
    assert all(one.startswith("kd-") for one in names)
    assert name() == names[0] == name(make_task(teacher=teaching_task.teacher))
    assert name(sampler=optuna.samplers.TPESampler(seed=3)) == name(sampler=optuna.samplers.TPESampler(seed=4))
