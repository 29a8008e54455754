"""A search in a process of its own that is ended in the middle, then run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_line import Run

from optuna_kd.storages import create_storage


def children_of(pid: int) -> list[int]:
    """Processes that a process started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
        except OSError:
            continue
    return found


def trials_of(database: Path) -> list[optuna.trial.FrozenTrial]:
    if not database.exists():
        return []
    try:
        return optuna.load_study(study_name="killed", storage=f"sqlite:///{database}").trials
    except Exception:  # not there yet, or being written
        return []


def command_of(database: Path, taught: Path, trials: int) -> list[Any]:
    command: list[Any] = ["search", "--teacher", "resnet8", "--teacher-checkpoint", taught, "--study-name", "killed"]
    command += ["--storage", f"sqlite:///{database}", "--proxy-epochs", 2, "--subset", 0.15, "--epochs", 1]
    return [*command, "--seeds", 1, "--confirm", 0, "--max-train", 400, "--trials", trials]


def start(command: list[Any], here: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "optuna_kd.cli", *map(str, command), "--workers", "2"],
        cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
        # A shell starts what runs in the background, these tests perhaps, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for_trials(count: int, database: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while len([trial for trial in trials_of(database) if trial.state.is_finished()]) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no trial was finished"
        time.sleep(0.2)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@needs_proc
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_search_goes_on_after_it_was_ended(
    how: signal.Signals, here: Path, tmp_path: Path, taught: Path, run: Run
) -> None:
    database = tmp_path / "kd.db"
    command = command_of(database, taught, 300)
    process = start(command, here)
    try:
        wait_for_trials(3, database, process)
        children = children_of(process.pid)
        assert len(children) >= 2
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        out, err = process.communicate(timeout=120)
        end = time.monotonic() + 5
        while alive(children) and time.monotonic() < end:
            time.sleep(0.1)
        assert alive(children) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err == "Stopped. What is finished is kept; the same command goes on from there.\n"
        assert optuna.trial.TrialState.RUNNING not in [trial.state for trial in trials_of(database)]
    assert "Traceback" not in out + err

    before = [trial for trial in trials_of(database) if trial.state.is_finished() and trial.values]
    total = len([trial for trial in trials_of(database) if trial.state.name in ("COMPLETE", "PRUNED")]) + 3
    command[-1] = total
    output = run(*command, "--workers", 1)
    assert (output.code, output.err) == (0, "")
    after = optuna.load_study(study_name="killed", storage=create_storage(f"sqlite:///{database}")).trials
    assert len([trial for trial in after if trial.state.name in ("COMPLETE", "PRUNED")]) == total
    assert [(after[trial.number].params, after[trial.number].value) for trial in before] == [
        (trial.params, trial.value) for trial in before
    ]
    assert (here / "runs" / "killed" / "student.pt").exists()


@needs_proc
def test_workers_that_are_stopped_are_replaced(here: Path, tmp_path: Path, taught: Path) -> None:
    database, total = tmp_path / "kd.db", 24
    process = start(command_of(database, taught, total), here)
    try:
        wait_for_trials(3, database, process)
        for child in children_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        _, err = process.communicate(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (0, "")
    states = [trial.state.name for trial in trials_of(database)]
    assert len([state for state in states if state in ("COMPLETE", "PRUNED")]) == total
    assert {"RUNNING", "WAITING"}.isdisjoint(states)
