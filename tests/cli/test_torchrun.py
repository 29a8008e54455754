"""`torchrun` starts the command several times, and one student comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import optuna_kd


def test_two_processes_distil_one_student(here: Path) -> None:
    recipe = optuna_kd.Recipe.from_string("none|l2*2 + kl@4*1")
    recipe.save("recipe.json")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--teacher", "resnet8", "--max-train", "400", "--epochs", "2", "--seeds", "2", "--out", "out"]
    done = subprocess.run(
        [*torchrun, "-m", "optuna_kd.cli", "distill", "--recipe", "recipe.json", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for start in ("Training the teacher resnet8 first: 30 epochs", "Full training 2/2", "Student    "):
        assert sum(line.startswith(start) for line in lines) == 1, lines
    assert sorted(file.name for file in (here / "out").iterdir()) == ["recipe.json", "student.pt", "summary.json"]
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert [run["seed"] for run in summary["runs"]] == [0, 1]
    student = optuna_kd.load_student("out")
    assert student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
