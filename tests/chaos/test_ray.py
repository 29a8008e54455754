"""Ray on one machine: a worker is killed, a search is stopped, and the program that started it all is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from digits_search import NAME
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.storages import OWNER, create_storage, is_gone, original_number

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.chaos,
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
]

SCRIPT = Path(__file__).with_name("digits_search.py")
TOTAL = 12
LIMIT = 600  # seconds for a search
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Search:
    """A search in a process, and a process group, of its own."""

    def __init__(self, folder: Path, *arguments: Any) -> None:
        folder.mkdir()
        self.folder, self.url = folder, f"sqlite:///{folder / 'kd.db'}"
        command = [sys.executable, str(SCRIPT), self.url, str(folder / "runs"), *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # A shell starts what runs in the background, these tests perhaps, with Ctrl-C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def trials(self, name: str = NAME) -> list[FrozenTrial]:
        """Give the trials of a study; none while there is no such study."""
        with contextlib.suppress(Exception):
            return optuna.load_study(study_name=name, storage=create_storage(self.url)).trials
        return []

    def wait_for_a_rung(self) -> FrozenTrial:
        """Wait until a worker is in the middle of a trial; give that."""
        end = time.monotonic() + LIMIT
        while True:
            for trial in self.trials():
                if trial.state == TrialState.RUNNING and trial.intermediate_values:
                    return trial
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; give the exit code and what it said."""
        said, errors = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said, errors

    def workers(self) -> set[str]:
        """Name the processes that have run trials."""
        return {str(trial.system_attrs[OWNER]) for trial in self.trials() if OWNER in trial.system_attrs}

    def folders(self) -> list[Path]:
        """Give the folders of its Ray that are still there."""
        owner = f"/{self.process.pid}/"
        return [file.parent for file in Path("/tmp").glob("optuna_kd-ray-*/owner") if owner in file.read_text()]

    def remove(self) -> None:
        """End what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Search]]:
    searches: list[Search] = []
    yield searches
    for search in searches:
        search.remove()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """The same search without Ray and undisturbed: one for all, because a trial depends on its number alone."""
    search = Search(tmp_path_factory.mktemp("alone") / "local", "local", 1, TOTAL)
    try:
        assert search.end()[0] == 0
        yield search
    finally:
        search.remove()


def process_of(trial: FrozenTrial) -> int:
    return int(str(trial.system_attrs[OWNER]).split("/")[1])


@pytest.mark.parametrize("apart", [False, True])
def test_a_killed_worker_is_replaced_and_its_trial_equals_an_undisturbed_one(
    started: list[Search], alone: Search, tmp_path: Path, apart: bool
) -> None:
    ray = Search(tmp_path / "ray", "ray", 4, TOTAL, *(["apart"] if apart else []))
    started.append(ray)
    victim = ray.wait_for_a_rung()
    assert len(ray.folders()) == 1
    os.kill(process_of(victim), signal.SIGKILL)
    code, said, errors = ray.end()
    assert (code, errors) == (0, ""), said
    assert "Starting   4 workers on Ray of this machine, each with 0.5 CPU" in said
    assert len(said.splitlines()) < 30  # Ray has said nothing itself
    assert ray.folders() == []
    assert all(map(is_gone, ray.workers()))
    assert len(ray.workers()) >= 4

    trials = ray.trials()
    assert len([trial for trial in trials if trial.state in FINISHED]) == TOTAL
    assert {trial.state for trial in trials} <= {*FINISHED, TrialState.FAIL}  # nobody is RUNNING or WAITING
    assert trials[victim.number].state == TrialState.FAIL
    assert sorted(original_number(trial) for trial in trials if trial.state in FINISHED) == list(range(TOTAL))

    twins = {trial.number: trial for trial in alone.trials()}
    for trial in trials:
        if trial.state in FINISHED:
            twin = twins[original_number(trial)]
            assert (trial.params, trial.values) == (twin.params, twin.values)
            assert trial.intermediate_values == twin.intermediate_values
    for name, least in (("controls", 17), ("full", 2)):  # of the full trainings labels and plain KD at least
        one, other = (
            {trial.user_attrs["key"]: trial.values for trial in search.trials(f"{NAME}/{name}")}
            for search in (ray, alone)
        )
        common = set(one) & set(other)
        assert len(common) >= least
        assert {key: one[key] for key in common} == {key: other[key] for key in common}
    assert torch.load(ray.folder / "runs" / NAME / "student.pt", weights_only=True)
    assert not list((ray.folder / "runs" / NAME).glob(".*"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_search_that_is_ended_leaves_no_worker(how: signal.Signals, started: list[Search], tmp_path: Path) -> None:
    search = Search(tmp_path / "ray", "ray", 2, TOTAL)
    started.append(search)
    search.wait_for_a_rung()
    if how == signal.SIGINT:
        os.killpg(search.process.pid, how)  # as a terminal does
    else:
        search.process.send_signal(how)
    code, said, errors = search.end()
    end = time.monotonic() + 10
    while not all(map(is_gone, search.workers())) and time.monotonic() < end:
        time.sleep(0.1)
    assert all(map(is_gone, search.workers()))
    if how == signal.SIGKILL:
        return
    assert code != 0
    assert "Stopping   as soon as the epochs that are running are over" in said
    assert "Stopped" in errors.splitlines()[-1]
    assert TrialState.RUNNING not in [trial.state for trial in search.trials()]
    assert TrialState.WAITING in [trial.state for trial in search.trials()]
    assert list((search.folder / "runs" / NAME / "checkpoints").glob("*.ckpt"))  # from where they go on
    assert search.folders() == []
