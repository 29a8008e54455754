"""A search for student and recipe that is run again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import optuna
import pytest
import torch
from joint_searches import FAMILY
from small_searches import Finished, Notes, Place

from optuna_kd.search_space import UniADSSpace
from optuna_kd.study import StudyMismatchError


def test_running_it_again_does_nothing_new(place: Place, finished: Finished) -> None:
    before, notes = place.counts(), Notes()
    again = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == 0
    assert (again.recipe, again.knee, again.verdict) == (finished[1].recipe, finished[1].knee, finished[1].verdict)
    assert [(row.method, row.accuracies) for row in again.rows] == [
        (row.method, row.accuracies) for row in finished[1].rows
    ]
    assert [dataclasses.replace(row, folder=None) for row in again.front] == [
        dataclasses.replace(row, folder=None) for row in finished[1].front
    ]


def test_more_trials_go_on_and_the_front_on_disk_is_that_of_the_study(place: Place) -> None:
    old = [trial.params for trial in place.study().trials]
    stale = place.folder / "runs" / "small" / "front"
    # A better and smaller student than all others: the front is another one, with one row.
    study = place.study()
    best = min(study.trials, key=lambda trial: trial.user_attrs.get("parameters", 1e9))
    attributes = {**best.user_attrs, "parameters": 1.0}
    study.add_trial(
        optuna.trial.create_trial(
            values=[0.001, 1.0], params=best.params, distributions=best.distributions, user_attrs=attributes
        )
    )
    result = place.search(trials=7)
    assert [trial.params for trial in result.study.trials[:5]] == old
    assert len(result.study.trials) == 7
    assert [row.trial for row in result.front] == [5]
    assert [folder.name for folder in stale.iterdir()] == ["trial-5"]


def test_a_lost_student_of_the_front_is_trained_again(place: Place, finished: Finished) -> None:
    shutil.rmtree(place.folder / "runs")
    before, notes = place.counts(), Notes()
    result = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == len(result.front) + 1  # the knee has two seeds, the first of them is that of the front
    for old, new in zip(finished[1].front, result.front, strict=True):
        assert old.folder is not None
        assert new.folder is not None
        first, second = (torch.load(row / "student.pt", weights_only=True) for row in (old.folder, new.folder))
        assert all(torch.allclose(first[key], second[key]) for key in first)


def test_two_searches_of_one_seed_are_equal(finished: Finished, tmp_path: Path) -> None:
    place, result, _ = finished
    memory = place.search(storage=None, directory=tmp_path)
    for one, other in zip(result.study.trials, memory.study.trials, strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
    assert [row.accuracies for row in memory.rows] == [row.accuracies for row in result.rows]
    assert memory.recipe == result.recipe


def test_the_study_is_refused_with_other_limits_or_objectives(place: Place) -> None:
    for changes, message in (
        ({"max_params": 9000}, "9000"),
        ({"objectives": ("error", "parameters")}, "objectives is"),
        ({"seed": 1}, "seed is 0, asked for 1"),
        ({"space": UniADSSpace(student=FAMILY)}, "space is"),
    ):
        with pytest.raises(StudyMismatchError, match=message):
            place.search(**changes)
    assert place.counts()["small"] == 5


def test_results_of_a_study_in_another_database_are_set_aside(place: Place) -> None:
    before = json.loads((place.folder / "runs" / "small" / "summary.json").read_text(encoding="utf-8"))
    notes = Notes()
    place.search(storage=f"sqlite:///{place.folder / 'other.db'}", seed=1, progress=notes)
    kept = place.folder / "runs" / f"small.{before['study_id']}"
    assert json.loads((kept / "summary.json").read_text(encoding="utf-8")) == before
    after = json.loads((place.folder / "runs" / "small" / "summary.json").read_text(encoding="utf-8"))
    assert after["study_id"] != before["study_id"]
    assert (after["seed"], after["trials"]["finished"]) == (1, 5)
    assert any(str(kept) in line for line in notes.lines)
