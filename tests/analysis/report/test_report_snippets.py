"""The code in a report runs as it stands there, and quotes whatever a study says."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from made_cards import LINE, make_card
from report_studies import OPTIONS

from optuna_kd.analysis.report.recipe_words import describe
from optuna_kd.analysis.report.snippets import (
    distill_command,
    predict_snippet,
    python_snippet,
    search_command,
    show_commands,
)
from optuna_kd.cards import MethodResult
from optuna_kd.recipe import DistillerConfig, OpConfig, Recipe, StudentConfig, TermConfig, TrainingConfig

UGLY = "it's \"a\" '''name''' \\ \n$(touch x); `touch x`"
WHOLE = Recipe(
    DistillerConfig(
        (
            TermConfig("features", OpConfig("l2"), 5.0, (OpConfig("mask", {"ratio": 0.25}),), layer=0),
            TermConfig("embeddings", OpConfig("cosine"), 1.0),
        ),
        warmup=0.1,
        stop=0.75,
        teacher_batchnorm="train",
        normalise="initial",
    ),
    StudentConfig(UGLY, {"depth": 3}),
    TrainingConfig(64, 0.05),
)


def words_of(command: str) -> list[str]:
    return shlex.split(command.replace(" \\\n", " "))


def read(command: str) -> dict[str, Any]:
    """Let the command line read a command; give its options."""
    from optuna_kd.cli import app

    name, *arguments = words_of(command)[1:]
    context = typer.main.get_command(app).commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
    return context.params


def recipe_in(code: str) -> Recipe:
    """Run a snippet up to the line that makes the recipe."""
    names: dict[str, Any] = {}
    exec(code.partition("\nresult =")[0], names)
    found = names["recipe"]
    assert isinstance(found, Recipe)
    return found


def test_the_python_code_trains_a_student(
    task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = MethodResult("searched recipe", LINE, (0.9,), (0.9,))
    code = python_snippet(Recipe.from_string(LINE), make_card(result=result, protocol={"epochs": 1}))
    exec(code, {"task": task})
    assert {"student.pt", "recipe.json", "card.json"} <= {file.name for file in (tmp_path / "runs/distilled").iterdir()}
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe.from_string(LINE), WHOLE, dataclasses.replace(WHOLE, student=None)]
)
def test_the_python_code_makes_the_same_recipe(recipe: Recipe) -> None:
    assert recipe_in(python_snippet(recipe)) == recipe


def test_a_student_by_name_is_the_tasks_own() -> None:
    named = dataclasses.replace(Recipe.from_string(LINE), student=StudentConfig("resnet8"))
    assert recipe_in(python_snippet(named)) == Recipe.from_string(LINE)


def test_the_command_of_a_search_has_the_options_that_it_had() -> None:
    found = read(search_command(OPTIONS, "the study", "sqlite:///kd.db"))
    assert (found["study_name"], found["storage"]) == ("the study", "sqlite:///kd.db")
    for name, value in OPTIONS.items():
        assert found[name] == (Path(value) if isinstance(found[name], Path) else value), name


def test_all_options_that_a_search_keeps_are_known() -> None:
    from optuna_kd.search_options import SearchOptions

    values = {field.name: OPTIONS.get(field.name) for field in dataclasses.fields(SearchOptions)}
    assert SearchOptions(**values).to_dict().keys() == OPTIONS.keys()  # type: ignore[arg-type]


def test_the_command_that_distills_takes_data_networks_and_length() -> None:
    found = read(distill_command("runs/a b", OPTIONS, make_card()))
    assert (str(found["recipe"]), found["epochs"], found["seeds"]) == ("runs/a b", 15, 3)
    assert (found["data"], found["seed"], found["max_train"]) == ("digits", 3, 400)
    assert str(found["teacher_checkpoint"]) == "my weights.pt"
    assert "reward" not in found


def test_the_family_of_searched_students_is_no_student() -> None:
    options = {**OPTIONS, "student": "resnet"}
    searched = make_card(recipe=Recipe(student=StudentConfig("resnet", {"depth_1": 3})))
    assert read(distill_command("r", options, searched))["student"] is None
    assert read(distill_command("r", options, make_card()))["student"] == "resnet"


def test_without_options_the_rest_is_open() -> None:
    assert distill_command("r", {}, make_card()).endswith("--epochs 15 --seeds 3 ...")


def test_what_a_study_says_is_quoted() -> None:
    command = distill_command(UGLY, {"data": UGLY, "$(touch x)": 1, "teacher": ["a"]}, make_card())
    assert words_of(command)[:6] == ["optuna-kd", "distill", "--recipe", UGLY, "--data", UGLY]
    assert "$(touch x)" not in words_of(command)
    assert words_of(show_commands(UGLY, "sqlite:///x y.db"))[2:5] == [UGLY, "--storage", "sqlite:///x y.db"]
    names: dict[str, Any] = {}
    exec(
        predict_snippet(UGLY)
        .replace("import optuna_kd", "")
        .replace("optuna_kd.load_student", "str")
        .partition("\nprint")[0],
        names,
    )
    assert names["student"] == UGLY


def test_a_recipe_in_words() -> None:
    assert describe(Recipe()) == ("The student learns from the labels alone; the teacher is not used.",)
    student, start, *terms = describe(WHOLE)
    assert student.startswith("The student is it's")
    assert "\n" not in student
    assert start.endswith("and 2 terms that compare it with the teacher.")
    assert terms == [
        "The feature maps of pair 0 of the compared layers, after mask (ratio = 0.25), are compared by l2, with weight "
        "5.",
        "The embeddings (feature maps, averaged over their places) are compared by cosine, with weight 1.",
        "Over the first 10 % of the training the weights of these terms rise from 0.",
        "After 75 % of the training the teacher is not used any more.",
        "The teacher normalises with the statistics of each batch, not with those of its own training.",
        "Each term is scaled so that its gradient has length 1 at the first step.",
        "It trains with 64 images a batch and a learning rate of 0.05.",
    ]
