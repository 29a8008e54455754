"""The trials of workers that are gone: queued again, and nobody else's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from small_searches import Notes, Task

from optuna_kd import DistillationObjective, ProxyConfig, create_study
from optuna_kd.runner.crew import Setup, crew
from optuna_kd.runner.jobs import SESSION, WorkerSpec
from optuna_kd.runner.plan import Plan
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.storing import Storing
from optuna_kd.runner.workers import Outcome
from optuna_kd.storages import OWNER, claim_trial, create_storage

pytestmark = pytest.mark.usefixtures("quiet_optuna")
FIRST, SECOND, STRANGER = "elsewhere/1/1", "elsewhere/2/1", "elsewhere/3/1"  # processes that cannot be seen from here


class NoTeam:
    """Workers that do nothing; the test says what becomes of them."""

    def __init__(self, spec: WorkerSpec, requeue: Callable[[str | None], None]) -> None:
        self.spec, self.requeue = spec, requeue
        self.is_stopped = False

    def __enter__(self) -> NoTeam:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, jobs: object) -> Iterator[Outcome]:
        return iter(())

    def stop(self) -> None:
        self.is_stopped = True


class NoEngine:
    """Gives a `NoTeam`."""

    team_given: NoTeam

    def check(self, *_: object) -> None:
        pass

    def team(self, spec: WorkerSpec, workers: int, **given: Any) -> NoTeam:
        self.team_given = NoTeam(spec, given["requeue"])
        return self.team_given


@pytest.fixture
def setup(task: Task, tmp_path: Path) -> Setup:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = create_study(storage=url, study_name="s", seed=0, sampler="random")
    return Setup(
        task=task, teacher=0.9, objective=DistillationObjective(task, proxy=ProxyConfig(epochs=1, rungs=(1,))),
        study=study, plan=Plan(), storage=create_storage(url), shared=url, sampler="random", seed=0,
        storing=Storing("online"), folder=tmp_path / "runs" / "s", say=SilentReporter(), student_config=None,
        engine=NoEngine(),
    )  # fmt: skip


def states(setup: Setup) -> list[str]:
    return [trial.state.name for trial in setup.study.trials]


def start(setup: Setup, owner: str, session: str) -> None:
    """Start a trial as a worker does."""
    trial = claim_trial(setup.study, None)
    assert trial is not None
    trial.set_user_attr(SESSION, session)
    trial.storage.set_trial_system_attr(trial._trial_id, OWNER, owner)


def test_only_the_trials_of_a_worker_that_is_gone_run_again(setup: Setup) -> None:
    with crew(setup) as run:
        team = setup.engine.team_given  # type: ignore[attr-defined]
        assert run.workers is team
        for owner in (FIRST, SECOND, FIRST, STRANGER):
            start(setup, owner, "another run" if owner == STRANGER else team.spec.session)
        team.requeue(FIRST)
        assert states(setup) == ["FAIL", "RUNNING", "FAIL", "RUNNING", "WAITING", "WAITING"]
        team.requeue("elsewhere/9/1")
        assert states(setup).count("RUNNING") == 2
        team.requeue(None)  # of all of this run
        assert states(setup)[:4] == ["FAIL", "FAIL", "FAIL", "RUNNING"]
        assert states(setup)[4:] == ["WAITING"] * 3


def test_what_is_open_when_a_run_breaks_off_runs_again(setup: Setup) -> None:
    with pytest.raises(KeyboardInterrupt), crew(setup):  # noqa: PT012 - what happens inside is the case
        team = setup.engine.team_given  # type: ignore[attr-defined]
        start(setup, FIRST, team.spec.session)
        start(setup, STRANGER, "another run")
        raise KeyboardInterrupt
    assert team.is_stopped
    assert states(setup) == ["FAIL", "RUNNING", "WAITING"]
    assert setup.study.trials[2].system_attrs["failed_trial"] == 0
    assert setup.study.trials[1].state == TrialState.RUNNING
    assert team.spec.checkpoints == setup.folder / "checkpoints"
    assert team.spec.checkpoints.is_absolute()


@pytest.mark.parametrize(("workers", "hints"), [(4, 0), (5, 1)])
def test_more_workers_than_sqlite_serves_well(setup: Setup, workers: int, hints: int) -> None:
    notes = Notes()
    with crew(dataclasses.replace(setup, plan=Plan(workers=workers), say=notes)):
        pass
    said = [line for line in notes.lines if line.startswith("Storage ")]
    assert len(said) == hints
    assert all("more than 4 workers wait for one another in SQLite; PostgreSQL" in line for line in said)


def test_what_a_proxy_lacks(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_kd.runner.crew.show_storage", lambda storage: "grpc://host:13000")
    notes = Notes()
    with crew(dataclasses.replace(setup, plan=Plan(workers=5), say=notes)):
        pass
    (said,) = [line for line in notes.lines if line.startswith("Storage ")]
    assert "missed after two minutes" in said
