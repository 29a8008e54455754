"""Trainings that are interrupted go on, bit for bit; a file that cannot be used costs time and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optuna_kd import stopping
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import StudentTraining, store_knowledge
from optuna_kd.training.checkpoint import Checkpoint, TrainingInterrupted
from optuna_kd.training.full import attempt_student
from optuna_kd.training.lesson import Rung
from optuna_kd.training.together import learn_alone, learn_together

PROXY = ProxyConfig(epochs=6, rungs=(2, 4, 6))
RECIPES = ["none|l2*1 + kl@4*1", "mask|l1*1 + kl@2*0.5", "kl@4*1"]


class Killed(BaseException):
    """What stands for SIGKILL here."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A function that asks trainings to stop."""
    wishes: list[bool] = []
    monkeypatch.setattr(stopping, "is_asked", lambda: bool(wishes))
    return lambda: wishes.append(True)


def train(training: StudentTraining, *, kill_after: int | None = None) -> list[Rung]:
    """Train to the end, or until the process would be killed, in the middle of the cycle after a rung."""
    rungs: list[Rung] = []
    steps = 0
    for event in training.lessons():
        if isinstance(event, Rung):
            rungs.append(event)
            continue
        if kill_after is not None and rungs and rungs[-1].epoch >= kill_after:
            steps += 1
            if steps > 3:
                raise Killed
        event.learn()
    return rungs


def tensors(training: StudentTraining) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.student.state_dict().items()}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "lr": 0.01}, {"stored": True}, {"sparsity": 0.5}],
    ids=["sgd", "adamw", "stored", "sparse"],
)
@pytest.mark.parametrize("kill_after", [2, 4])
def test_a_killed_training_goes_on_bit_for_bit(
    make_task: Callable[..., Any], tmp_path: Path, recipe: str, changes: dict[str, Any], kill_after: int
) -> None:
    changes = dict(changes)
    stored, sparsity = changes.pop("stored", False), changes.pop("sparsity", 0.0)
    task = make_task(**changes)
    knowledge = store_knowledge(task) if stored else None
    proxy = ProxyConfig(epochs=6, rungs=(2, 4, 6), sparsity=sparsity)

    def training(checkpoint: Checkpoint) -> StudentTraining:
        return StudentTraining(
            task, Recipe.from_string(recipe), proxy, seed=5, knowledge=knowledge, checkpoint=checkpoint
        )

    undisturbed = training(Checkpoint(None))
    expected = train(undisturbed)
    file = tmp_path / "trial.ckpt"
    with pytest.raises(Killed):
        train(training(Checkpoint(file)), kill_after=kill_after)
    again = training(Checkpoint(file))
    rungs = train(again)
    assert [rung.epoch for rung in rungs] == [epoch for epoch in proxy.rungs if epoch > kill_after]
    for mine, its in zip(rungs, expected[-len(rungs) :], strict=True):
        assert mine == its
    for name, value in tensors(undisturbed).items():
        assert torch.equal(value, tensors(again)[name]), name


def test_one_that_is_asked_to_stop_ends_its_epoch(task: Any, tmp_path: Path, asked: Callable[[], None]) -> None:
    recipe = Recipe.from_string(RECIPES[0])
    train(StudentTraining(task, recipe, PROXY, seed=1))
    training = StudentTraining(task, recipe, PROXY, seed=1, checkpoint=Checkpoint(tmp_path / "a.ckpt"))
    learned = 0

    def learn() -> None:
        nonlocal learned
        for event in training.lessons():
            if isinstance(event, Rung):
                continue
            event.learn()
            learned += 1
            if (event.epoch, event.step) == (2, 1):
                asked()

    with pytest.raises(TrainingInterrupted):
        learn()
    assert learned == 3 * training.steps_per_epoch  # the third epoch is over, and no rung
    assert (tmp_path / "a.ckpt").exists()


def test_it_goes_on_within_a_cycle(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_kd.training.checkpoint.EVERY", 0.0)  # after every epoch
    recipe = Recipe.from_string(RECIPES[0])
    undisturbed = StudentTraining(task, recipe, PROXY, seed=1)
    expected = train(undisturbed)
    file = tmp_path / "a.ckpt"
    first = StudentTraining(task, recipe, PROXY, seed=1, checkpoint=Checkpoint(file))
    for event in first.lessons():
        if isinstance(event, Rung):
            continue
        if event.epoch == 3:
            break
        event.learn()
    again = StudentTraining(task, recipe, PROXY, seed=1, checkpoint=Checkpoint(file))
    rungs = train(again)
    assert [rung.metrics for rung in rungs] == [rung.metrics for rung in expected[1:]]
    assert all(torch.equal(value, tensors(again)[name]) for name, value in tensors(undisturbed).items())


def test_a_full_training_goes_on_bit_for_bit(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.from_string("kl@4*1")
    arguments: dict[str, Any] = {"epochs": 4, "seed": 3, "index": 0}
    expected, student = learn_alone(attempt_student(task, recipe, **arguments))
    file = tmp_path / "full.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "is_asked", lambda: True)
        with pytest.raises(TrainingInterrupted):
            learn_alone(attempt_student(task, recipe, **arguments, checkpoint=Checkpoint(file)))
    run, again = learn_alone(attempt_student(task, recipe, **arguments, checkpoint=Checkpoint(file)))
    assert (run.val_accuracy, run.test_accuracy, run.cka) == (
        expected.val_accuracy,
        expected.test_accuracy,
        expected.cka,
    )
    for name, value in student.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not file.exists()  # it has ended


def test_students_side_by_side_go_on(task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempts(checkpoints: bool) -> list[Any]:
        return [
            attempt_student(
                task, Recipe.from_string(recipe), epochs=3, seed=3, index=index,
                checkpoint=Checkpoint(tmp_path / f"{index}.ckpt" if checkpoints else None),
            )
            for index, recipe in enumerate(RECIPES)
        ]  # fmt: skip

    expected = dict(learn_together(attempts(False), most=3))
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "is_asked", lambda: True)
        interrupted = dict(learn_together(attempts(True), most=3))
        assert [type(outcome) for outcome in interrupted.values()] == [TrainingInterrupted] * 3
    again = dict(learn_together(attempts(True), most=3))
    for place, (_run, student) in again.items():
        for name, value in expected[place][1].state_dict().items():
            assert torch.equal(value, student.state_dict()[name])


@pytest.fixture
def kept(task: Any, tmp_path: Path) -> Path:
    """A checkpoint after the first rung."""
    file = tmp_path / "folder" / "trial.ckpt"
    training = StudentTraining(
        task, Recipe.from_string("kl@4*1"), PROXY, seed=5, checkpoint=Checkpoint(file, {"trial": 7})
    )
    with pytest.raises(Killed):
        train(training, kill_after=2)
    assert file.exists()
    return file


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "altered":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "not ours":
        file.write_text("hello")


@pytest.mark.parametrize("how", ["cut short", "empty", "altered", "not ours"])
def test_a_damaged_checkpoint_is_left_aside(kept: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    damage(kept, how)
    with caplog.at_level(logging.WARNING):
        assert Checkpoint(kept, {"trial": 7}).load() is None
    assert [record.getMessage() for record in caplog.records] == [f"Starting over: the checkpoint {kept} is damaged."]


def test_a_checkpoint_of_another_training_is_left_aside(kept: Path) -> None:
    assert Checkpoint(kept, {"trial": 8}).load() is None
    assert Checkpoint(kept, {"trial": 7}).load() is not None


def test_nothing_pickled_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file with the right checksum, written by someone who wants his code to be run."""
    import hashlib
    import io
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for content in (pickle.dumps(Evil()), _saved(Evil())):
        file = tmp_path / "evil.ckpt"
        file.write_bytes(hashlib.sha256(content).digest() + content)
        with caplog.at_level(logging.WARNING):
            assert Checkpoint(file).load() is None
        assert not (tmp_path / "ran").exists()
    assert "cannot be used" in caplog.text
    torch.load(io.BytesIO(_saved(Evil())), weights_only=False)
    assert (tmp_path / "ran").exists()  # so that it would have run otherwise


def _saved(thing: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save({"identity": "x", "state": thing}, buffer)
    return buffer.getvalue()


def test_a_folder_that_cannot_be_written_is_said_once(
    task: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoint = Checkpoint(tmp_path / "file" / "a.ckpt")
    with caplog.at_level(logging.WARNING):
        rungs = train(StudentTraining(task, Recipe.from_string("kl@4*1"), PROXY, seed=5, checkpoint=checkpoint))
    assert len(rungs) == 3
    assert len(caplog.records) == 1
    assert "an interrupted training starts over" in caplog.text


def test_the_size_of_all_is_bounded(task: Any, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = kept.stat().st_size
    other = Checkpoint(kept.with_name("other.ckpt"), limit=1.5 * size)
    with caplog.at_level(logging.WARNING):
        train(StudentTraining(task, Recipe.from_string("kl@4*1"), PROXY, seed=5, checkpoint=other))
    assert "the limit of 0.0 GiB for all checkpoints is reached" in caplog.text
    assert sorted(path.name for path in kept.parent.iterdir()) == ["trial.ckpt"]


def test_it_stays_when_interrupted_and_goes_when_ended(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    for error, stays in [(TrainingInterrupted(), True), (KeyboardInterrupt(), True), (ValueError(), False)]:
        file.write_text("state")
        with pytest.raises(type(error)), Checkpoint(file).until_the_end():
            raise error
        assert file.exists() == stays
    file.write_text("state")
    with Checkpoint(file).until_the_end():
        pass
    assert not file.exists()
