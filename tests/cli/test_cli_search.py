"""Whole searches from the command line, small ones, in this process."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
from command_line import TINY, Run, files

import optuna_kd
from optuna_kd import commands


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
    assert "trained first, 4 epochs" in lines["Teacher"]
    assert re.search(r"about .* with 1 workers", lines["Total"])
    assert re.search(r"replay: 1 view of 320 images, .* MB in memory", lines["Knowledge"])
    assert files(here) == []
    assert not (tmp_path / "cache" / "teachers").exists()


@pytest.mark.usefixtures("quick_teacher")
def test_search_then_distill_then_export(run: Run, here: Path) -> None:
    searched = run("search", *TINY)
    assert (searched.code, searched.err) == (0, "")
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("auto-kd-digits-resnet8x0.125-")
    assert {"student.pt", "recipe.json", "summary.json"} <= {file.name for file in folder.iterdir()}
    for text in ("Estimate", "Study", "Layers", "Teacher", "labels only", "plain KD", "tuned KD", "searched recipe"):
        assert text in searched.out
    assert f"Student    runs/{folder.name}/student.pt".replace("/", os.sep) in searched.out
    assert "Dashboard  optuna-dashboard sqlite:///optuna_kd.db" in searched.out

    again = run("search", *TINY)
    assert again.code == 0
    assert "Teacher resnet8 from" in again.out
    assert "Search: 2 of 2 are there already" in again.out

    distilled = run(
        "distill", "--recipe", folder / "recipe.json", "--teacher", "resnet8", "--epochs", 1, "--seeds", 2,
        "--max-train", 400,
    )  # fmt: skip
    assert (distilled.code, distilled.err) == (0, "")
    assert files(here / "runs" / "distill") == ["recipe.json", "student.pt", "summary.json"]
    assert "over 2 seeds" in distilled.out
    student = optuna_kd.load_student(here / "runs" / "distill")
    assert student(torch.zeros(3, 1, 8, 8)).shape == (3, 10)

    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript"):
        exported = run("export", folder, "--onnx", here / "deep" / "student.onnx")
        assert exported.code == 0
        assert "images [N, C, H, W] in [0, 1] -> logits [N, K]" in exported.out
        assert (here / "deep" / "student.onnx").stat().st_size > 1000


def test_an_interrupt_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run_search", interrupt)
    output = run("search")
    assert (output.code, output.out) == (130, "")
    assert output.err == "Stopped. What is finished is kept; the same command goes on from there.\n"
