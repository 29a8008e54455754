"""What a finished search leaves: a front, a table for its knee, files, and studies beside its own."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from joint_searches import CONTROLS, build, student
from small_searches import Finished

import optuna_kd
from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED
from optuna_kd.models import count_parameters
from optuna_kd.recipe import Recipe
from optuna_kd.runner.controls import control_recipes
from optuna_kd.runner.joint_job import knee_sentence
from optuna_kd.runner.result import FrontRow
from optuna_kd.study import best_recipe, front, recipe_of


def test_a_search_ends_with_a_front_and_a_table_for_its_knee(finished: Finished) -> None:
    place, result, notes = finished
    study = place.study()
    trials = front(study)
    assert sorted(row.trial for row in result.front) == sorted(trial.number for trial in trials)
    assert len(result.front) >= 2
    sizes = [row.costs["parameters"] for row in result.front]
    assert sizes == sorted(sizes)
    assert [row.values["cross_entropy"] for row in result.front] == sorted(
        (row.values["cross_entropy"] for row in result.front), reverse=True
    )  # larger is better, or it would not be on the front
    assert result.recipe == recipe_of(study, trials[0]) == best_recipe(study)
    assert [row.method for row in result.rows] == ["teacher", LABELS, PLAIN, TUNED, SEARCHED]
    assert result.recipe.student is not None
    knee = count_parameters(build(result.recipe.student))
    assert {row.parameters for row in result.rows[1:]} == {knee}  # all methods train the knee's student
    assert count_parameters(result.student) == knee
    assert f"{knee:,} parameters (trial {trials[0].number})" in result.knee
    assert any(line.startswith("Tried      5 students and recipes") for line in notes.lines)
    assert any("one for each student" in line for line in notes.lines)


def test_every_row_of_the_front_was_trained_and_kept(finished: Finished) -> None:
    place, result, _ = finished
    images = torch.ones(3, 1, 8, 8)
    for row in result.front:
        assert row.folder == result.directory / "front" / f"trial-{row.trial}"
        assert sorted(file.name for file in row.folder.iterdir()) == [
            "card.json", "card.md", "recipe.json", "student.pt", "summary.json",
        ]  # fmt: skip
        assert Recipe.load(row.folder / "recipe.json") == row.recipe
        loaded = optuna_kd.load_student(row.folder)
        assert loaded(images).shape == (3, 10)
        assert count_parameters(loaded) == row.costs["parameters"]
        summary = json.loads((row.folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["runs"][0]["val_accuracy"] == row.val_accuracy
        assert 0 <= (row.test_accuracy or 0) <= 1
        labels = place.task.val_set.labels
        hits = (loaded(place.task.val_set.batch(torch.arange(len(labels)))[0]).argmax(1) == labels).float().mean()
        assert float(hits) == pytest.approx(row.val_accuracy)
    assert torch.equal(optuna_kd.load_student(result.directory)(images), result.student(place.task.prepare(images)))


def test_what_is_printed(finished: Finished) -> None:
    result = finished[1]
    shown = str(result)
    assert "Pareto front" in shown
    assert all(f"{row.costs['parameters']:,.0f}" in shown for row in result.front)
    (marked,) = [line for line in shown.splitlines() if line.strip().startswith("* ")]
    assert f"{result.rows[-1].parameters:,}" in marked
    assert shown.endswith(result.verdict)
    assert result.knee in shown
    first = result.options[0]
    (line,) = [line for line in shown.splitlines() if line.split()[:2] == [first.parameter, str(first.option)]]
    assert line.split()[2:] == [str(first.visits), str(first.failures), f"{first.weight:.2f}"]
    assert result.options[-1].weight >= 0.5 > first.weight
    assert shown.index("draws least") < shown.index("Test accuracy")


def test_every_option_is_counted(finished: Finished) -> None:
    result = finished[1]
    tried = [trial.params["width"] for trial in result.study.trials]
    counted = {row.option: row for row in result.options if row.parameter == "width"}
    assert {option: row.visits for option, row in counted.items()} == {
        option: tried.count(option) for option in sorted(set(tried))
    }
    assert all(0 <= row.failures <= row.visits for row in result.options)
    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    assert summary["options"] == [dataclasses.asdict(row) for row in result.options]


def test_the_files_are_plain(finished: Finished) -> None:
    result = finished[1]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["knee"] == result.knee
    assert [row["trial"] for row in summary["front"]] == [row.trial for row in result.front]
    assert [Recipe.from_dict(row["recipe"]) for row in summary["front"]] == [row.recipe for row in result.front]
    assert all((result.directory / row["folder"] / "student.pt").is_file() for row in summary["front"])
    assert {method: len(runs) for method, runs in summary["runs"].items()} == dict.fromkeys(
        (LABELS, PLAIN, TUNED, SEARCHED), 2
    )
    assert Recipe.load(result.directory / "recipe.json") == result.recipe


def test_controls_and_trainings_are_never_trials_of_the_study(finished: Finished) -> None:
    place, result, notes = finished
    counts = place.counts()
    assert set(counts) == {"small", "small/controls", "small/confirmation", "small/full"}
    assert counts["small"] == 5
    assert all(trial.params for trial in result.study.trials)
    assert counts["small/controls"] == CONTROLS == len(control_recipes(result.study))
    assert counts["small/confirmation"] == 2
    assert notes.done == sum(counts.values())
    assert notes.phases["Front"] == (len(result.front), 0)
    assert notes.phases["Search"] == (5, 0)


def row(trial: int, parameters: float, error: float, width: float) -> FrontRow:
    return FrontRow(
        trial,
        Recipe(student=student(width=width)),
        {"error": error, "parameters": parameters},
        {"parameters": parameters},
    )


def test_the_sentence_about_the_knee() -> None:
    rows = [row(7, 1000, 0.5, 0.5), row(3, 20_000, 0.25, 1.0), row(4, 300_000, 0.2, 2.0)]
    told = [knee_sentence(rows, one.recipe, ["error", "parameters"]) for one in rows]
    assert "20,000 parameters (trial 3)" in told[1]
    assert "the next smaller one (1,000) changes its error by +0.25" in told[1]
    assert "the next larger one (300,000) changes its error by -0.05" in told[1]
    assert "smaller" not in told[0]
    assert "larger" not in told[2]
    assert "next" not in knee_sentence(rows[:1], rows[0].recipe, ["error", "parameters"])


def test_the_sentence_about_the_knee_compares_qualities() -> None:
    rows = [row(7, 1000, 0.5, 0.5), row(3, 20_000, 0.25, 1.0)]
    assert "changes its error by -0.25" in knee_sentence(rows, rows[0].recipe, ["parameters", "error"])
