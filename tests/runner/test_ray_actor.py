"""What a worker on Ray does in its process, looked at without Ray."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from optuna.pruners import NopPruner
from small_searches import Task

from optuna_kd import DistillationObjective, ProxyConfig, create_study, stopping
from optuna_kd.recipe import Recipe
from optuna_kd.runner.jobs import WorkerSpec, run_full, run_trials, train_all
from optuna_kd.runner.ray_actor import RayWorker
from optuna_kd.storages import this_process
from optuna_kd.training.knowledge_file import fingerprint
from optuna_kd.training.offline import store_knowledge

pytestmark = pytest.mark.usefixtures("quiet_optuna")
PROXY = ProxyConfig(epochs=1, rungs=(1,), subset=0.5)


@pytest.fixture
def worker() -> Iterator[RayWorker]:
    before = list(logging.getLogger("optuna_kd").handlers)
    yield RayWorker()
    logging.getLogger("optuna_kd").handlers[:] = before


@pytest.fixture
def spec(task: Task, tmp_path: Path) -> WorkerSpec:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = create_study(storage=url, study_name="s", seed=3, sampler="random")
    DistillationObjective(task, proxy=PROXY).bind(study)
    return WorkerSpec(
        task=task, objective=DistillationObjective, options={"proxy": PROXY}, knowledge=None, storage=url,
        study_name="s", sampler="random", pruner=NopPruner(), seed=3, session="this-run",
        checkpoints=tmp_path / "runs" / "checkpoints",
    )  # fmt: skip


def test_a_worker_sees_the_folder_of_this_run_and_no_other(worker: RayWorker, task: Task, tmp_path: Path) -> None:
    mark, file = tmp_path / ".run", tmp_path / "knowledge.bin"
    sight = worker.look(mark, "this-run", None, "")
    assert (sight.process, sight.results, sight.knowledge) == (this_process(), False, True)
    mark.write_text("an earlier run")
    assert not worker.look(mark, "this-run", None, "").results
    mark.write_text("this-run")
    assert worker.look(mark, "this-run", None, "").results
    assert not worker.look(tmp_path, "this-run", None, "").results
    store_knowledge(task).save(file)
    content = fingerprint(file)
    assert worker.look(mark, "this-run", file, content).knowledge
    assert not worker.look(mark, "this-run", tmp_path / "elsewhere.bin", content).knowledge
    file.write_bytes(b"something else of this name")
    assert not worker.look(mark, "this-run", file, content).knowledge


def test_trials_are_the_same_with_knowledge_that_travelled(
    worker: RayWorker, spec: WorkerSpec, task: Task, tmp_path: Path, one_thread: None
) -> None:
    store_knowledge(task).save(tmp_path / "knowledge.bin")
    content = np.fromfile(tmp_path / "knowledge.bin", np.uint8)
    worker.begin(spec, 1, None, True, content)
    answer = worker.run(run_trials, (2, 2, 1))
    assert answer.error is None
    url = f"sqlite:///{tmp_path / 'other.db'}"
    other = create_study(storage=url, study_name="s", seed=3, sampler="random")
    DistillationObjective(task, proxy=PROXY).bind(other)
    here = dataclasses.replace(spec, storage=url, knowledge=str(tmp_path / "knowledge.bin"))
    expected = run_trials(here(), 2, 2, 1)
    assert [result["values"] for result in answer.result] == [result["values"] for result in expected]  # type: ignore[index]
    assert [result["recipe"] for result in answer.result] == [result["recipe"] for result in expected]  # type: ignore[index]


@pytest.mark.parametrize("sees", [True, False])
def test_students_travel_where_the_folder_is_not_seen(
    worker: RayWorker, spec: WorkerSpec, tmp_path: Path, sees: bool
) -> None:
    file = tmp_path / "runs" / "students" / "a.pt"
    worker.begin(spec, 1, None, sees, None)
    job = (train_all, ([(run_full, (Recipe(), 1, 0, str(file)))],))
    answer = worker.run(*job)
    assert answer.error is None
    assert file.exists() == sees
    if sees:
        assert answer.files == {}
        state = torch.load(file, weights_only=True)
    else:
        assert not (tmp_path / "runs").exists()
        assert list(answer.files) == [str(file)]
        (tmp_path / "arrived.pt").write_bytes(answer.files[str(file)])
        state = torch.load(tmp_path / "arrived.pt", weights_only=True)
        assert worker.run(lambda _: None, ()).files == {}  # only once
    assert set(state) == set(spec.task.make_student(0).state_dict())


def test_a_worker_that_cannot_begin_lets_its_jobs_tell(worker: RayWorker, spec: WorkerSpec) -> None:
    worker.begin(dataclasses.replace(spec, study_name="another"), 1, None, True, None)
    answer = worker.run(lambda _: None, ())
    assert isinstance(answer.error, KeyError)
    assert "Traceback" in answer.error.__notes__[0]


def test_what_goes_wrong_comes_back_with_its_trace(worker: RayWorker, spec: WorkerSpec) -> None:
    def fail(_: object) -> None:
        logging.getLogger("optuna_kd.somewhere").warning("There is no room on %s.", "disk")
        logging.getLogger("optuna_kd.somewhere").info("All is well.")
        raise ZeroDivisionError("of my own")

    worker.begin(spec, 1, None, True, None)
    answer = worker.run(fail, ())
    assert isinstance(answer.error, ZeroDivisionError)
    assert "in fail" in answer.error.__notes__[0]
    assert answer.said == ("There is no room on disk.",)
    assert worker.run(lambda _: 3, ()).said == ()


def test_a_wish_to_stop_ends_trainings(worker: RayWorker, spec: WorkerSpec) -> None:
    worker.begin(spec, 1, None, True, None)
    try:
        worker.stop()
        assert stopping.is_asked()
        assert worker.run(run_trials, (2, 2, 1)).result == []  # no trial begins
    finally:
        stopping._asked.clear()
