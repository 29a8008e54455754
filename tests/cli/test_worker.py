"""One more worker for a search that is under way, and what is said where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_line import Run, assert_refused
from optuna.trial import TrialState

from optuna_kd.storages import create_storage
from optuna_kd.study import COMMAND, create_study

SMALL: list[Any] = [
    "--proxy-epochs", 2, "--subset", 0.15, "--epochs", 1, "--seeds", 1, "--confirm", 0, "--max-train", 400,
    "--workers", 1, "--study-name", "joined",
]  # fmt: skip


def start(command: list[Any], folder: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "optuna_kd.cli", *map(str, command)]
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    return subprocess.Popen(arguments, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def finished(url: str) -> int:
    try:
        trials = optuna.load_study(study_name="joined", storage=url).trials
    except Exception:  # not there yet, or being written
        return 0
    return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)


def test_a_worker_joins_and_both_keep_the_total(here: Path, tmp_path: Path, taught: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    teacher = ["--teacher", "resnet8", "--teacher-checkpoint", taught]
    longer = ["--proxy-epochs", 12, "--subset", 0.4, "--trials", 60]  # than it takes the worker to start
    search = start(["search", *teacher, *SMALL, *longer, "--storage", url], here)
    end = time.monotonic() + 120
    while finished(url) < 2:
        assert search.poll() is None, search.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)
    worker = start(["worker", "--storage", url, "--study-name", "joined"], here)
    said, errors = worker.communicate(timeout=240)
    assert (worker.returncode, errors) == (0, "")
    assert "the study has 60 trials" in said
    _, errors = search.communicate(timeout=240)
    assert (search.returncode, errors) == (0, "")
    study = optuna.load_study(study_name="joined", storage=create_storage(url))
    assert finished(url) == 60
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    sessions = {trial.user_attrs["session"].split("-")[0] for trial in study.trials}
    assert sessions == {str(search.pid), str(worker.pid)}


def test_what_a_worker_cannot_join(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    create_study(storage=url, study_name="script")
    output = run("worker", "--storage", url, "--study-name", "nobody")
    assert (output.code, output.err) == (2, "Error: There is no study 'nobody' in this storage; there are: script.\n")
    output = run("worker", "--storage", url, "--study-name", "script")
    assert output.code == 2
    assert "was not begun by `optuna-kd search`" in output.err
    assert "optuna_kd.optimize(study, objective, total_trials=...)" in output.err


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "a\\b", "..", " "])
def test_names_that_leave_the_folder_are_refused(run: Run, tmp_path: Path, name: str, taught: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    teacher = ["--teacher", "resnet8", "--teacher-checkpoint", taught]
    output = run("search", *teacher, *SMALL[:-2], "--study-name", name, "--storage", url, "--trials", 1)
    assert output.code == 2
    assert "A study name is also the name of a folder" in output.err
    assert repr(name) in output.err
    optuna.create_study(storage=url, study_name=name).set_user_attr(COMMAND, {})  # as others may rename one
    output = run("worker", "--storage", url, "--study-name", name)
    assert_refused(output, "A study name is also the name of a folder", repr(name))


@pytest.mark.parametrize(("stored", "option"), [("runs", "--runs"), ("knowledge_dir", "--knowledge-dir")])
def test_stored_folders_that_lead_elsewhere_are_refused(
    run: Run, tmp_path: Path, here: Path, taught: Path, stored: str, option: str
) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    teacher = ["--teacher", "resnet8", "--teacher-checkpoint", taught, "--knowledge-dir", "knowledge"]
    assert run("search", *teacher, *SMALL, "--storage", url, "--trials", 1).code == 0
    study = optuna.load_study(study_name="joined", storage=url)
    study.set_user_attr(COMMAND, {**study.user_attrs[COMMAND], stored: "a/../../escaped"})
    command = ["worker", "--storage", url, "--study-name", "joined", "--trials", 2]
    assert_refused(run(*command), f"{option} a/../../escaped", f"Say where it is here: {option} DIR")
    assert finished(url) == 1
    output = run(*command, option, tmp_path / "given")
    assert (output.code, output.err) == (0, "")
    assert finished(url) == 2
    assert not (tmp_path / "escaped").exists()


def test_a_worker_of_a_search_without_a_total_has_to_know_when_to_end(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    create_study(storage=url, study_name="endless").set_user_attr(COMMAND, {})
    output = run("worker", "--storage", url, "--study-name", "endless")
    assert_refused(output, "The search 'endless' has no number of trials", "--timeout DURATION, or --trials TOTAL")
