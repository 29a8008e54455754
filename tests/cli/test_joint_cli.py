"""The command line for student and recipe together: one line for what is wrong, and a whole search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from command_line import TINY, Run, files

import optuna_kd
from optuna_kd.models import count_parameters, create_student
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import Recipe
from optuna_kd.storages import create_storage

pytestmark = pytest.mark.usefixtures("quick_teacher")

JOINT: list[Any] = ["--method", "uniads", *TINY]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ("--method uniadz", ["'uniadz'", "uniads"]),
        ("--student resnet8", ["'resnet8'", "resnet, wrn"]),
        ("--student resnet8 --dry-run", ["'resnet8'", "resnet, wrn"]),
        ("--space auto-kd", ["uniads", "--space auto-kd"]),
        ("--temperatures 1,4", ["--temperatures"]),
        ("--chain 4", ["--chain", "3"]),
        ("--chain 2 --method auto-kd", ["--chain", "--method uniads"]),
        ("--objectives error,flops --method auto-kd", ["--objectives", "--method uniads"]),
        ("--objectives cross_entropy", ["two different objectives"]),
        ("--objectives cross_entropy,size", ["'size'", "parameters"]),
        ("--objectives parameters,flops", ["quality"]),
        ("--objectives cross_entropy,budget_gap", ["budget"]),
        ("--max-params 0", ["max_params", "> 0"]),
        ("--max-latency-ms -1", ["latency_ms", "> 0"]),
        ("--budget-params 0", ["budget", "> 0"]),
        ("--max-params 1000 --method auto-kd", ["max_params", "one student"]),
        ("--reward accuracy", ["accuracy", "no reward"]),
        ("--sampler mcts", ["objective"]),
        ("--sampler uniad", ["'uniad'", "uniads"]),
        ("--space uniads --method auto-kd", ["uniads"]),
    ],
)
def test_wrong_options_get_one_line(run: Run, here: Path, tmp_path: Path, arguments: str, texts: list[str]) -> None:
    output = run("search", *JOINT, *arguments.split())
    assert output.code == 2
    (line,) = output.err.splitlines()
    assert line.startswith("Error: ")
    assert [text for text in texts if text not in line] == []
    assert output.out == ""
    assert files(here) == []
    assert not list((tmp_path / "cache").rglob("*.pt"))  # no teacher was trained for it


def test_objectives_may_be_written_with_spaces(run: Run) -> None:
    output = run("search", *JOINT, "--objectives", "error, flops", "--dry-run")
    assert (output.code, output.err) == (0, "")


@pytest.mark.parametrize(
    "option", ["objectives", "max-params", "max-flops", "max-latency-ms", "budget-params", "chain"]
)
def test_every_option_has_help(run: Run, option: str) -> None:
    shown = " ".join(run("search", "--help").out.replace("│", " ").split())
    described = shown.partition(f"--{option} ")[2].split(" --")[0]
    assert "uniads" in described
    assert len(described.split()) >= 5


def test_spaces_shows_the_joint_space_and_the_named_recipes(run: Run, here: Path) -> None:
    shown = run("spaces")
    assert (shown.code, shown.err) == (0, "")
    for text in ("uniads", "21,790,457,856 recipes", "softmax_HW", "row_pearson", *RECIPES):
        assert text in shown.out
    assert files(here) == []


def test_a_dry_run_writes_nothing(run: Run, here: Path, tmp_path: Path) -> None:
    output = run("search", *JOINT, "--student", "wrn", "--chain", 2, "--dry-run")
    assert (output.code, output.err) == (0, "")
    lines = {line.split()[0]: line for line in output.out.splitlines()}
    assert {
        "Data",
        "Layers",
        "Space",
        "Proxy",
        "Teacher",
        "Controls",
        "Trials",
        "Confirm",
        "Full",
        "Total",
        "Knowledge",
    } <= set(lines)
    assert "208,791,583,326,208 recipes" in lines["Space"]  # with chains of two
    assert "4 methods x 1 seeds x 1 epochs" in lines["Full"]
    assert files(here) == []
    assert not (tmp_path / "cache" / "teachers").exists()


def test_search_then_distill(run: Run, here: Path) -> None:
    searched = run("search", *JOINT, "--storage", "sqlite:///kd.db", "--max-params", 90_000)
    assert (searched.code, searched.err) == (0, "")
    (folder,) = (here / "runs").glob("uniads-*")
    assert folder.name.startswith("uniads-digits-resnet-")
    for text in ("Estimate", "Pareto front", "The knee of the front", "labels only", "tuned KD", "searched recipe"):
        assert text in searched.out
    assert f"Front      runs/{folder.name}/front" in searched.out
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["front"]) >= 1
    for row in summary["front"]:
        student = optuna_kd.load_student(folder / row["folder"])
        assert student(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
        assert count_parameters(student) == row["costs"]["parameters"] <= 90_000
    knee = Recipe.load(folder / "recipe.json")
    assert knee.student is not None
    assert knee.student.options["base_width"] == 0.25  # a quarter of the published widths, on digits
    (name,) = [name for name in optuna.get_all_study_names("sqlite:///kd.db") if "/" not in name]
    assert name == folder.name
    study = optuna.load_study(study_name=name, storage=create_storage("sqlite:///kd.db"))
    assert study.metric_names == ["cross_entropy", "parameters"]
    assert len(study.trials) == 2

    again = run("search", *JOINT, "--storage", "sqlite:///kd.db", "--max-params", 90_000)
    assert again.code == 0
    assert "Search: 2 of 2 are there already" in again.out

    distilled = run("distill", "--recipe", folder / "recipe.json", "--teacher", "resnet8", "--epochs", 1, "--seeds", 1,
                    "--max-train", 400)  # fmt: skip
    assert (distilled.code, distilled.err) == (0, "")
    student = optuna_kd.load_student(here / "runs" / "distill")
    built = create_student(knee.student, num_classes=10, in_channels=1, input_size=8)
    assert count_parameters(student) == count_parameters(built)


def test_a_recipe_by_name(run: Run, here: Path) -> None:
    arguments = ["--teacher", "resnet8", "--epochs", 1, "--seeds", 1, "--max-train", 100, "--batch-size", 16]
    output = run("distill", "--recipe", "uniads-resnet56", *arguments)
    assert (output.code, output.err) == (0, "")
    student = optuna_kd.load_student(here / "runs" / "distill")
    config = RECIPES["uniads-resnet56"].student
    assert config is not None
    wanted = create_student(config, num_classes=10, in_channels=1, input_size=8)
    assert count_parameters(student) == count_parameters(wanted)
    # With another student the recipe is its.
    output = run("distill", "--recipe", "uniads-resnet56", *arguments, "--student", "resnet8x0.25", "--out", "other")
    assert output.code == 0
    assert count_parameters(optuna_kd.load_student(here / "other")) < 10_000
    assert str(Recipe.load(here / "other" / "recipe.json").student) == "resnet8x0.25"


def test_an_unknown_recipe_gets_one_line(run: Run, here: Path) -> None:
    output = run("distill", "--recipe", "uniads-resnet65")
    assert output.code == 2
    (line,) = output.err.splitlines()
    assert "uniads-resnet65" in line
    assert files(here) == []
