"""Whole searches from the command line, small ones, in this process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
from pathlib import Path

import optuna
import pytest
import torch
from command_line import TINY, Run, files

import optuna_kd
from optuna_kd import commands, stopping
from optuna_kd.cards import load_card


@pytest.mark.usefixtures("quick_teacher")
def test_a_dry_run_writes_nothing(run: Run, here: Path, tmp_path: Path) -> None:
    output = run("search", *TINY, "--dry-run")
    assert (output.code, output.err) == (0, "")
    lines = {line.split()[0]: line for line in output.out.splitlines()}
    assert list(lines) == [
        "Data", "Layers", "Space", "Proxy", "Teacher", "Controls", "Trials", "Confirm", "Full", "Total", "Knowledge",
    ]  # fmt: skip
    assert "10 classes" in lines["Data"]
    assert "recipes" in lines["Space"]
    assert lines["Proxy"].endswith("1 epochs, rungs [1], subset 0.1, batches of 8")  # 32 images are too few anyway
    assert "trained first, 4 epochs" in lines["Teacher"]
    assert re.search(r"about .* with 1 workers", lines["Total"])
    assert re.search(r"replay: 1 view of 320 images, .* MB in memory", lines["Knowledge"])
    assert files(here) == []
    assert not (tmp_path / "cache" / "teachers").exists()


@pytest.mark.usefixtures("quick_teacher")
def test_search_then_distill_then_export(run: Run, here: Path) -> None:
    searched = run("search", *TINY)
    assert (searched.code, searched.err) == (0, "")
    artifacts, folder = sorted((here / "runs").iterdir())
    assert artifacts.name == "artifacts"
    assert any(file.read_bytes() == (folder / "student.pt").read_bytes() for file in artifacts.iterdir())
    assert folder.name.startswith("auto-kd-digits-resnet8x0.125-")
    assert {"student.pt", "recipe.json", "summary.json"} <= {file.name for file in folder.iterdir()}
    assert "Proxies    batches of 8, not 64, for more steps: 4\n" in searched.out
    for text in ("Estimate", "Study", "Layers", "Teacher", "labels only", "plain KD", "tuned KD", "searched recipe"):
        assert text in searched.out
    assert f"Student    runs/{folder.name}/student.pt".replace("/", os.sep) in searched.out
    assert "Dashboard  optuna-kd dashboard\n" in searched.out  # all defaults

    again = run("search", *TINY)
    assert again.code == 0
    assert "Teacher resnet8 from" in again.out
    assert "Search: 2 of 2 are there already" in again.out

    distilled = run(
        "distill", "--recipe", folder / "card.json", "--teacher", "resnet8", "--epochs", 1, "--seeds", 2,
        "--max-train", 400,
    )  # fmt: skip
    assert (distilled.code, distilled.err) == (0, "")
    assert files(here / "runs" / "distill") == ["card.json", "card.md", "recipe.json", "student.pt", "summary.json"]
    assert "over 2 seeds" in distilled.out
    found, again = load_card(folder), load_card(here / "runs" / "distill")
    assert (found.comparable, found.task) == (again.comparable, again.task)  # the same trainings, with other seeds
    assert found.task.data.name == "digits"
    assert (found.task.teacher.name, found.task.student.name) == ("resnet8", "resnet8x0.125")
    listed = run("zoo")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.count(f"comparable {found.comparable[:6]}") == 1  # one table, with both
    assert folder.name in listed.out
    student = optuna_kd.load_student(here / "runs" / "distill")
    assert student(torch.zeros(3, 1, 8, 8)).shape == (3, 10)

    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript"):
        exported = run("export", folder, "--onnx", here / "deep" / "student.onnx")
        assert exported.code == 0
        assert "images [N, C, H, W] in [0, 1] -> logits [N, K]" in exported.out
        assert (here / "deep" / "student.onnx").stat().st_size > 1000


def test_a_warm_start_from_nowhere_costs_no_teacher(run: Run, here: Path, tmp_path: Path) -> None:
    output = run("search", *TINY, "--warm-start", "nowhere")
    assert output.code == 2
    assert output.err.startswith("Error: There is nothing to begin with called 'nowhere'")
    assert not (tmp_path / "cache" / "teachers").exists()
    assert not (here / "runs").exists()


@pytest.mark.usefixtures("quick_teacher")
def test_a_search_begins_with_a_recipe_file(run: Run, here: Path) -> None:
    recipe = optuna_kd.Recipe.from_string("mask|kl*5 + kl@4*1")
    recipe.save(here / "mine.json")
    output = run("search", *TINY, "--warm-start", "mine.json", "--warm-start", "auto")
    assert (output.code, output.err) == (0, "")
    assert "Warm start 1 recipe from mine.json, of unknown distance" in output.out
    (study,) = [
        study for study in optuna.get_all_study_summaries("sqlite:///optuna_kd.db") if "/" not in study.study_name
    ]
    trials = optuna.load_study(study_name=study.study_name, storage="sqlite:///optuna_kd.db").trials
    assert trials[0].user_attrs["recipe"] == str(recipe)
    assert "warm_start" not in study.user_attrs["optuna_kd_command"]  # workers have no use for it


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_an_interrupt_is_said_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, ctrl_c: None, how: signal.Signals, code: int, times: int
) -> None:
    """Not while it can go on later, once while it can, or twice."""

    def interrupt(*_: object) -> None:
        with stopping.on_signals(lambda line: None) if times else contextlib.nullcontext():
            for _ in range(times or 1):
                os.kill(os.getpid(), how)
            stopping.check()

    monkeypatch.setattr(commands, "run_search", interrupt)
    output = run("search")
    assert (output.code, output.out) == (code, "")
    assert output.err == "Stopped. What is finished is kept; the same command goes on from there.\n"
