"""Workers on Ray: what comes back, what becomes of the jobs of one that is gone, and what is sent where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_ray import FakeRay, OtherDeath, RayActorError, Unfinished
from optuna.pruners import NopPruner
from small_searches import Notes

from optuna_kd import DistillationObjective, stopping
from optuna_kd.runner import ray_workers
from optuna_kd.runner.jobs import WorkerSpec
from optuna_kd.runner.ray_actor import Answer
from optuna_kd.runner.ray_workers import MARK, RayWorkerError, RayWorkers, Share
from optuna_kd.runner.workers import RESTARTS, Job, WorkersDiedError

SHARE = Share(address=None, cpus=0.5, gpus=0, threads=1, device=None)


class Office(RayWorkers):
    """Workers on a Ray without processes, and what they told."""

    def __init__(self, ray: FakeRay, folder: Path, count: int = 2, share: Share = SHARE, **changes: Any) -> None:
        self.ray, self.notes, self.requeued = ray, Notes(), list[str]()
        spec = WorkerSpec(
            task=None, objective=DistillationObjective, options={}, knowledge=None, storage="sqlite:///kd.db",
            study_name="s", sampler="random", pruner=NopPruner(), seed=0, session="this-run", checkpoints=None,
        )  # type: ignore[arg-type]  # fmt: skip
        spec = dataclasses.replace(spec, **changes)
        super().__init__(spec, count, share, folder=folder, requeue=self.requeued.append, say=self.notes)

    def results(self, *jobs: Callable[..., Any]) -> list[Any]:
        return [
            outcome.error or outcome.result for outcome in self.run([Job(str(n), job) for n, job in enumerate(jobs)])
        ]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_workers, "connected", fake.connected)
    return fake


@pytest.fixture
def office(ray: FakeRay, tmp_path: Path) -> Iterator[Office]:
    with Office(ray, tmp_path) as office:
        yield office


def test_jobs_run_with_their_arguments_and_exceptions_come_back(office: Office) -> None:
    jobs = [Job(str(by), lambda actor, by: 6 / by, (by,)) for by in (0, 2, 3)]
    outcomes = {outcome.key: outcome for outcome in office.run(jobs)}
    assert isinstance(outcomes["0"].error, ZeroDivisionError)
    assert [outcomes[key].result for key in "023"] == [None, 3.0, 2.0]
    assert set(office.ray.ran) == {0, 1}


def test_what_each_worker_is_given(ray: FakeRay, tmp_path: Path) -> None:
    share = Share(address="there:6379", cpus=2.0, gpus=0.25, threads=2, device="cuda")
    with Office(ray, tmp_path, 3, share) as office:
        assert ray.connections == []  # not before there is a job
        assert office.results() == []
        assert ray.connections == []
        assert office.results(lambda actor: "fine") == ["fine"]
        assert ray.connections == [("there:6379", 6.0)]
        assert (ray.options["num_cpus"], ray.options["num_gpus"], ray.options["max_restarts"]) == (2.0, 0.25, 0)
        assert ray.options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"
        (spec, threads, device, sees_results, knowledge) = ray.actors[0].begun or ()
        assert (spec.session, threads, device, sees_results, knowledge) == ("this-run", 2, "cuda", True, None)
        assert (tmp_path / MARK).read_text() == "this-run"
    assert ray.connections == []
    assert all(actor.is_killed for actor in ray.actors)
    assert not (tmp_path / MARK).exists()


def test_jobs_are_drawn_one_by_one(office: Office) -> None:
    drawn, finished = [], 0

    def jobs() -> Iterator[Job]:
        for n in range(6):
            drawn.append(n)
            yield Job(str(n), lambda _: None)

    for _ in office.run(jobs()):
        finished += 1
        assert len(drawn) <= finished + 2
    assert finished == 6


def test_a_worker_that_is_gone_takes_no_other_along(office: Office) -> None:
    deaths: list[int] = []

    def die_once(actor: Any) -> str:
        if not deaths:
            deaths.append(actor.number)
            raise RayActorError("killed")
        return f"done after {actor.number}"

    assert sorted(office.results(die_once, lambda _: "b", lambda _: "c")) == ["b", "c", "done after 1"]
    assert office.requeued == ["machine/0"]
    assert [actor.is_killed for actor in office.ray.actors] == [True, False, False]
    assert sorted(office.results(*[lambda actor: actor.number] * 2)) == [1, 2]  # one has come in its place


@pytest.mark.parametrize("death", [RayActorError, OtherDeath])
def test_a_job_that_dies_each_time_ends_the_run_whatever_else_finishes(office: Office, death: type[Exception]) -> None:
    ran: list[str] = []

    def work(_: object, name: str) -> str:
        ran.append(name)
        if name == "0":
            raise death("killed")
        return "fine"

    with pytest.raises(WorkersDiedError, match=r"killed 4 times during the same.*memory\. Use fewer workers"):
        list(office.run(Job(str(n), work, (str(n),)) for n in range(1000)))
    assert ran.count("0") == len(office.requeued) == RESTARTS + 1


def test_workers_that_die_as_they_start_end_the_run(office: Office) -> None:
    office.ray.dead_at_start = range(1000)
    with pytest.raises(WorkersDiedError, match=f"killed {2 * RESTARTS + 1} times as they started.*it never began"):
        office.results(lambda _: "never")
    assert office.requeued == []  # they had no trials


def test_some_that_die_as_they_start_are_replaced(office: Office) -> None:
    office.ray.dead_at_start = (0, 1, 2)
    assert office.results(lambda _: "fine", lambda _: "fine") == ["fine", "fine"]


def test_those_that_have_begun_work_while_others_wait_for_room(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.ray.without_room = (1,)
    monkeypatch.setattr(ray_workers, "PATIENCE", 0.0)
    share = dataclasses.replace(SHARE, cpus=1.0)
    monkeypatch.setattr(office, "share", share)
    assert office.results(*[lambda actor: actor.number] * 3) == [0, 0, 0]
    (line,) = [line for line in office.notes.lines if line.startswith("Waiting")]
    assert line == (
        "Waiting    2 of 2 workers have not begun after 0 s. Each takes 1 CPU and 0 GPU; 0.5 and 0 are free in the "
        "Ray cluster"
    )


def test_the_wish_to_stop_reaches_those_who_train(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def train(_: object) -> None:
        asked.append(True)
        raise Unfinished

    monkeypatch.setattr(stopping, "is_asked", lambda: len(asked) == 2)
    assert office.results(train, train) == ["stopped", "stopped"]
    assert [actor.stops for actor in office.ray.actors] == [1, 1]


def test_nobody_replaces_a_worker_that_dies_while_all_stop(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def die(_: object) -> None:
        asked.append(True)
        raise RayActorError("killed")

    monkeypatch.setattr(stopping, "is_asked", lambda: bool(asked))
    assert office.results(die) == []
    assert len(office.ray.actors) == 2
    assert len(office.requeued) == 1


def test_what_cannot_begin_elsewhere_says_so(office: Office) -> None:
    office.ray.cannot_begin = ModuleNotFoundError("No module named 'mine'")
    with pytest.raises(RayWorkerError, match="cannot begin on its machine: No module named 'mine'"):
        office.results(lambda _: "never")


def test_what_cannot_be_sent_back_fails_its_job_alone(office: Office) -> None:
    office.ray.cannot_travel = "a lock"
    assert [type(result) for result in office.results(lambda _: "a lock", lambda _: "fine")] == [TypeError, str]


def test_warnings_of_workers_are_said_once_and_their_files_written(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "students" / "a.pt"
    answer = Answer("fine", files={str(file): b"weights"}, said=("No room.", "No room."))
    assert office.results(lambda _: answer, lambda _: answer) == ["fine", "fine"]
    assert file.read_bytes() == b"weights"
    assert office.notes.lines.count("No room.") == 1
    assert [path.name for path in file.parent.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("sees", [True, False])
def test_knowledge_travels_once_and_only_to_those_who_do_not_see_it(ray: FakeRay, tmp_path: Path, sees: bool) -> None:
    file = tmp_path / "knowledge.bin"
    file.write_bytes(b"what the teacher said")
    ray.sees = sees
    with Office(ray, tmp_path, knowledge=str(file)) as office:
        office.results(*[lambda _: None] * 4)
    specs = [sent for sent in ray.sent if isinstance(sent, WorkerSpec)]
    arrays = [sent for sent in ray.sent if isinstance(sent, np.ndarray)]
    assert [spec.knowledge for spec in specs] == [None]
    told = [actor.begun[-1] for actor in ray.actors if actor.begun]
    if sees:
        assert arrays == []
        assert told == [str(file)] * 2
    else:
        assert [array.tobytes() for array in arrays] == [b"what the teacher said"]
        assert all(knowledge is arrays[0] for knowledge in told)
        assert sum(line.startswith("Folder") for line in office.notes.lines) == 1


def test_knowledge_that_is_too_large_to_travel(ray: FakeRay, tmp_path: Path) -> None:
    file = tmp_path / "knowledge.bin"
    file.write_bytes(b"a lot")
    ray.sees, ray.is_full = False, True
    with Office(ray, tmp_path, knowledge=str(file)) as office, pytest.raises(ValueError, match="--knowledge-dir"):
        office.results(lambda _: None)


def test_gpus_that_are_not_there(ray: FakeRay, tmp_path: Path) -> None:
    share = dataclasses.replace(SHARE, gpus=0.25)
    with Office(ray, tmp_path, share=share) as office, pytest.raises(ValueError, match=r"needs 0\.25 GPUs.* finds 0"):
        office.results(lambda _: None)
    ray.resources = {"GPU": 1.0}
    with Office(ray, tmp_path, share=share) as office:
        assert office.results(lambda _: "fine") == ["fine"]
