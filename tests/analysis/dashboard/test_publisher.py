"""When a study is published by itself: seldom, and never to the harm of the search."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import Study

from optuna_kd.analysis.dashboard import Publisher, publishing
from optuna_kd.storages import create_storage, open_to_read
from optuna_kd.study import optimize

pytestmark = pytest.mark.usefixtures("quiet_optuna")


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """Takes so many seconds to publish, and remembers when it did what."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.calls = clock, list[tuple[float, int, bool]]()
        self.takes = {False: 0.2, True: 4.0}
        self.error: Exception | None = None

    def __call__(self, study: Study, *, whole: bool) -> None:
        self.calls.append((round(self.clock.now, 2), len(study.trials), whole))
        self.clock.now += self.takes[whole]
        if self.error is not None:
            raise self.error
        count = len(study.trials)
        before = study._storage.get_study_system_attrs(study._study_id).get(publishing.PUBLISHED, {})
        told = {**before, "finished": count, **({"whole": count} if whole else {})}
        study._storage.set_study_system_attr(study._study_id, publishing.PUBLISHED, told)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake(clock)
    monkeypatch.setattr(publishing, "_publish", fake)
    return fake


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return optuna.create_study(storage=create_storage(f"sqlite:///{tmp_path / 'kd.db'}"), study_name="kd")


def add(study: Study, count: int = 1) -> None:
    study.add_trials([optuna.create_trial(value=1.0) for _ in range(count)])


def run(study: Study, publisher: Publisher, clock: Clock, trials: int, seconds: float) -> None:
    for _ in range(trials):
        clock.now += seconds
        add(study)
        publisher(study, study.trials[-1])


def test_it_takes_two_per_cent_of_the_time(study: Study, clock: Clock, fake: Fake) -> None:
    publisher = Publisher(clock=clock)
    run(study, publisher, clock, 120, 12.0)
    spent = {whole: sum(fake.takes[kind] for _, _, kind in fake.calls if kind is whole) for whole in (False, True)}
    assert spent[False] <= 0.01 * clock.now
    assert spent[True] <= 0.01 * clock.now
    first_whole = next(call for call in fake.calls if call[2])
    assert 500 <= first_whole[0] < 530  # five seconds were expected
    assert fake.calls[0][0] == 60.0  # half a second
    assert len([call for call in fake.calls if call[2]]) == 3  # and from then on four, each time
    # Never twice about the same trials, and seldom where there are many.
    counts = [trials for _, trials, _ in fake.calls]
    assert all(after >= max(1.05 * before, before + 1) for before, after in itertools.pairwise(counts))


def test_a_slow_one_waits_longer(study: Study, clock: Clock, fake: Fake) -> None:
    fake.takes = {False: 30.0, True: 300.0}
    publisher = Publisher(clock=clock)
    run(study, publisher, clock, 40, 60.0)
    assert [call[2] for call in fake.calls] == [False, True]  # the first times: nobody knew how long they take


def test_the_last_state_is_published_once(study: Study, clock: Clock, fake: Fake) -> None:
    publisher, other = Publisher(clock=clock), Publisher(clock=clock)
    add(study, 7)
    publisher.finish(study)
    assert fake.calls == [(0.0, 7, False)]  # what needs a fit would take more than a twentieth of the time
    other.finish(study)  # as another process would
    assert len(fake.calls) == 1
    publisher.finish(study, before=lambda: fake.calls.append((0.0, 0, False)))
    assert len(fake.calls) == 3  # files came, so there is something new
    clock.now = 1000.0
    add(study)
    publisher.finish(study)
    assert fake.calls[-1] == (1000.0, 8, True)
    add(study)
    Publisher(clock=clock).catch_up(study)
    assert fake.calls[-1][1:] == (9, True)


def test_another_process_that_was_faster_is_enough(study: Study, clock: Clock, fake: Fake) -> None:
    publishers = [Publisher(clock=clock) for _ in range(4)]
    for _ in range(60):
        clock.now += 5.0
        add(study)
        for publisher in publishers:
            publisher(study)
    counts = [trials for _, trials, _ in fake.calls]
    assert counts == sorted(set(counts))
    assert len(counts) > 10


def test_a_failure_is_said_once_and_ends_nothing(study: Study, clock: Clock, fake: Fake) -> None:
    said: list[str] = []
    fake.error = OSError("No space left on device")
    publisher = Publisher(said.append, clock=clock)
    run(study, publisher, clock, 50, 10.0)
    publisher.finish(study, before=lambda: 1 / 0)
    assert len(said) == 1
    assert said[0].startswith("The dashboard shows nothing new: sqlite:///")
    assert said[0].endswith("kd.db cannot be written: No space left on device.")
    assert len(fake.calls) > 3  # it tries again
    assert 0.2 * len(fake.calls) < 0.02 * clock.now  # as seldom as if it worked


def test_a_read_only_storage_and_one_that_knows_no_attributes(
    study: Study, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    add(study)
    read_only = optuna.load_study(study_name="kd", storage=open_to_read(f"sqlite:///{tmp_path / 'kd.db'}"))
    Publisher(said.append, clock=clock).finish(read_only)
    assert "readonly" in said.pop()

    def refuse(*_: Any) -> None:
        raise NotImplementedError("no attributes here")

    monkeypatch.setattr(type(study._storage), "get_study_system_attrs", refuse)
    Publisher(said.append, clock=clock).finish(study)
    assert said == ["The dashboard shows nothing new: no attributes here."]


def test_workers_and_memory_publish_nothing(study: Study, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = optuna.create_study()
    add(memory)
    Publisher().finish(memory)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
    add(study)
    Publisher().finish(study)
    assert fake.calls == []


def test_a_journal_gets_the_last_state_only(tmp_path: Path, clock: Clock, fake: Fake) -> None:
    study = optuna.create_study(storage=create_storage(f"journal:///{tmp_path / 'kd.log'}"))
    publisher = Publisher(clock=clock)
    run(study, publisher, clock, 20, 1000.0)
    assert fake.calls == []
    publisher.finish(study)
    assert len(fake.calls) == 1


@pytest.mark.parametrize(("publish", "told"), [(True, [False, True]), (False, [])])
def test_optimize_publishes_at_its_end(
    study: Study, monkeypatch: pytest.MonkeyPatch, publish: bool, told: list[bool]
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(Publisher, "__call__", lambda self, study, trial=None: calls.append(False))
    finish: Callable[..., None] = lambda self, study, before=None: calls.append(True)  # noqa: E731
    monkeypatch.setattr(Publisher, "finish", finish)
    optimize(study, lambda trial: trial.suggest_float("x", 0, 1), total_trials=1, publish=publish)
    assert calls == told
