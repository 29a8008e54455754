"""The OptunaHub package: loads, re-exports, states its facts, and its example runs without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from optuna_kd.samplers import UniADSSampler

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGE = REPOSITORY / "samplers" / "uniads_nsgaii"


def test_the_package_loads_as_a_thin_re_export() -> None:
    optunahub = pytest.importorskip("optunahub")
    module = optunahub.load_local_module("samplers/uniads_nsgaii", registry_root=str(REPOSITORY))
    assert module.UniADSSampler is UniADSSampler
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=module.UniADSSampler(seed=0))
    study.optimize(lambda trial: [trial.suggest_float("x", -1, 1)] * 2, n_trials=5)
    assert len(study.trials) == 5


def test_the_front_matter_is_complete() -> None:
    _, front, _ = (PACKAGE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert set(facts) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert all(value.strip(" []") for value in facts.values())
    assert "sampler" in facts["tags"].strip("[]").split(", ")
    assert "MIT" in facts["license"]
    assert (PACKAGE / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_the_example_runs_without_torch() -> None:
    pytest.importorskip("optunahub")
    blocked = "import sys; sys.modules['torch'] = None; import runpy; "
    script = blocked + f"runpy.run_path({str(PACKAGE / 'example.py')!r}, run_name='__main__')"
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr
    front, weights = result.stdout.splitlines()[:-1], result.stdout.splitlines()[-1]
    assert [line.split(":")[0].split()[-1] for line in front] == ["7", "5", "3", "1"]  # a front of all depths
    assert weights.startswith("weights of 'distance'")
