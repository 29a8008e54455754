"""What a finished search leaves: a student, a table, files, and studies beside its own."""

from __future__ import annotations

import contextlib
import html
import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from main_searches import figures
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from rich.console import Console
from small_searches import Finished, Notes, Place

from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED
from optuna_kd.recipe import Recipe
from optuna_kd.runner import search as front_door
from optuna_kd.runner.controls import control_recipes, kd_grid
from optuna_kd.runner.jobs import SESSION
from optuna_kd.study import best_recipe, count_finished

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def text_of(table: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_search_ends_with_a_student_and_a_table(finished: Finished) -> None:
    place, result, _ = finished
    assert [row.method for row in result.rows] == ["teacher", LABELS, PLAIN, TUNED, SEARCHED]
    assert [row.recipe for row in result.rows[:3]] == [None, str(Recipe()), "kl@4*1"]
    assert [len(row.accuracies) for row in result.rows] == [1, 2, 2, 2, 2]
    assert all(0 <= value <= 1 for row in result.rows for value in row.accuracies)
    assert all(row.latency_ms > 0 for row in result.rows)
    assert {row.parameters for row in result.rows[1:]} == {place.task.student_parameters}
    assert result.rows[0].parameters > place.task.student_parameters
    assert set(result.comparisons) == {LABELS, PLAIN, TUNED}
    assert result.part == "test"
    assert result.directory == place.folder / "runs" / "small"
    assert result.verdict.endswith(".")
    assert result.study.study_name == "small"
    assert not result.student.training
    assert result.recipe.distiller == best_recipe(result.study).distiller


def test_the_table_can_be_printed(finished: Finished) -> None:
    result = finished[1]
    shown = text_of(result.table())
    assert "Test accuracy after the last epoch, mean ± sd over 2 seeds" in shown
    for row in result.rows:
        mean = 100 * sum(row.accuracies) / len(row.accuracies)
        assert any(row.method in line and f"{mean:.2f}" in line for line in shown.splitlines()), row.method
    assert f"\n{SEARCHED}: {result.rows[-1].recipe}\n" in str(result)  # in one line, to be copied
    assert f"{finished[0].task.student_parameters:,}" in shown


def test_the_files_are_plain(finished: Finished, tmp_path: Path) -> None:
    place, result, _ = finished
    weights = torch.load(result.directory / "student.pt", weights_only=True)
    student = place.task.make_student(seed=9)
    student.load_state_dict(weights)
    images = torch.zeros(2, 1, 8, 8)
    assert torch.equal(student.eval()(images), result.student(images))
    assert Recipe.load(result.directory / "recipe.json") == result.recipe

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["study"] == "small"
    assert summary["verdict"] == result.verdict
    assert [row["method"] for row in summary["table"]] == [row.method for row in result.rows]
    assert {method: len(runs) for method, runs in summary["runs"].items()} == dict.fromkeys(
        (LABELS, PLAIN, TUNED, SEARCHED), 2
    )
    assert summary["images"] == {"train": 160, "validation": 40, "test": 100}
    assert set(summary["versions"]) == {"python", "optuna-kd", "optuna", "torch", "torchvision"}
    copied = result.save(tmp_path / "elsewhere")
    assert sorted(file.name for file in copied.iterdir()) == [
        "card.json", "card.md", "recipe.json", "report.html", "report.md", "student.pt", "summary.json",
    ]  # fmt: skip


def test_the_report_lies_beside_the_results(finished: Finished) -> None:
    _, result, notes = finished
    page = result.directory / "report.html"
    assert f"Report     {page}" in notes.lines
    assert result.verdict in html.unescape(page.read_text(encoding="utf-8"))
    assert f'optuna_kd.load_student("runs/{result.study.study_name}")' in page.with_suffix(".md").read_text("utf-8")


def test_a_report_that_cannot_be_written_is_a_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no figure")

    monkeypatch.setattr("optuna_kd.reporting.build_report", fail)
    notes = Notes()
    result = place.search(progress=notes)
    assert "Report     could not be written (RuntimeError: no figure); `optuna-kd report` tries again" in notes.lines
    assert result.verdict


def test_the_student_is_the_one_with_the_best_validation_accuracy(
    finished: Finished,
) -> None:
    _, result, _ = finished
    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    runs = summary["runs"][SEARCHED]
    best = max(runs, key=lambda run: run["val_accuracy"])
    digest = Recipe(result.recipe.distiller).digest
    kept = result.directory / "students" / f"{digest}-1-{best['seed']}.pt"
    assert kept.read_bytes() == (result.directory / "student.pt").read_bytes()


def test_controls_and_confirmation_are_never_trials_of_the_study(
    finished: Finished,
) -> None:
    place, result, notes = finished
    counts = place.counts()
    assert set(counts) == {"small", "small/controls", "small/confirmation", "small/full"}
    assert counts["small"] == 4
    assert count_finished(result.study) == 4
    assert all(trial.params for trial in result.study.trials)
    assert counts["small/controls"] == 17 == len(control_recipes(result.study)) == 1 + len(kd_grid(result.study))
    assert counts["small/confirmation"] in (2, 3, 4)  # 2 recipes and 2 points of the grid; one may be both
    assert counts["small/full"] in (6, 8)  # plain KD may be the best of the grid
    assert notes.phases["Controls"] == (17, 0)
    assert notes.phases["Search"] == (4, 0)
    assert notes.done == sum(counts.values())
    assert any(line.startswith("Teacher    ") and "validation accuracy" in line for line in notes.lines)
    assert any(line.startswith("Layers     teacher layer") for line in notes.lines)


def test_nothing_that_is_stored_is_larger_than_64_kilobytes(finished: Finished) -> None:
    columns = {
        "trial_user_attributes": "value_json",
        "trial_system_attributes": "value_json",
        "study_user_attributes": "value_json",
        "study_system_attributes": "value_json",
        "trial_params": "distribution_json",
    }
    with contextlib.closing(sqlite3.connect(finished[0].folder / "kd.db")) as connection:
        for table, column in columns.items():
            query = f"SELECT COUNT(*), MAX(LENGTH(CAST({column} AS BLOB))) FROM {table}"
            count, longest = connection.execute(query).fetchone()
            assert count, table
            assert longest < 65_536, table


def test_students_that_beat_their_teacher_without_it_bring_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "check_teacher", lambda task: 0.0)
    notes = Notes()
    place.search(progress=notes)
    (warning,) = [line for line in notes.lines if line.startswith("Warning")]
    assert "never saw the teacher" in warning
    assert "the teacher 0.00 %" in warning
    monkeypatch.setattr(front_door, "check_teacher", lambda task: 1.0)
    notes = Notes()
    place.search(progress=notes)
    assert not any(line.startswith("Warning") for line in notes.lines)


def test_two_processes_end_like_one(finished: Finished, empty: Place) -> None:
    result = empty.search(workers=2, pruner=NopPruner())
    counts = empty.counts()
    assert (counts["small"], counts["small/controls"]) == (4, 17)
    assert {trial.state for trial in result.study.trials} <= set(FINISHED)
    assert figures(result)[:3] == figures(finished[1])[:3]  # teacher, labels only, plain KD
    sessions = {trial.user_attrs[SESSION] for trial in result.study.trials}
    assert len(sessions) == 1
