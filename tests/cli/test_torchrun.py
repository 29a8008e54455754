"""`torchrun` starts the command several times, and one student comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import optuna_kd

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_two(*arguments: str) -> list[str]:
    """Start two processes; give the lines that they printed."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*TORCHRUN, *arguments], env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_two_processes_distil_one_student(here: Path) -> None:
    recipe = optuna_kd.Recipe.from_string("none|l2*2 + kl@4*1")
    recipe.save("recipe.json")
    options = ["--teacher", "resnet8", "--max-train", "400", "--epochs", "2", "--seeds", "2", "--out", "out"]
    lines = run_two("-m", "optuna_kd.cli", "distill", "--recipe", "recipe.json", *options)
    for start in ("Training the teacher resnet8 first: 30 epochs", "Full training 2/2", "Student    "):
        assert sum(line.startswith(start) for line in lines) == 1, lines
    files = ["card.json", "card.md", "recipe.json", "student.pt", "summary.json"]
    assert sorted(file.name for file in (here / "out").iterdir()) == files
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert [run["seed"] for run in summary["runs"]] == [0, 1]
    student = optuna_kd.load_student("out")
    assert student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_two_processes_train_the_trials_of_a_study() -> None:
    example = Path(__file__).parents[2] / "examples" / "trials_on_several_processes.py"
    (line,) = run_two(str(example))
    assert line.startswith("2 processes, 4 trials, best ")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is Linux")
def test_no_thread_of_the_process_group_is_left(tmp_path: Path) -> None:
    """One that still runs when Python ends aborts the process, now and then."""
    script = tmp_path / "join.py"
    script.write_text(
        "import os\n"
        "from optuna_kd.training import join_ranks\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count()\n"
        "with join_ranks() as ranks:\n"
        "    agreed, inside = ranks.agree(lambda: 'yes'), count()\n"
        "if ranks.leads:\n"
        "    print(agreed, inside > before, count() == before)\n"
    )
    assert run_two(str(script)) == ["yes True True"]
