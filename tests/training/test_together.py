"""Several trainings at once end as each alone, whatever becomes of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, LossRejected, StudentTraining, store_knowledge
from optuna_kd.training.lesson import Lesson, Rung
from optuna_kd.training.stacking import StackedStudents, stack_key
from optuna_kd.training.together import Attempt, learn_alone, learn_together, next_rung

Make = Callable[..., ImageClassification]
PROXY = ProxyConfig(epochs=4, rungs=(1, 2, 4))
TEXTS = ("none|l2*5 + kl@4*1", "mask>local>sample|kl*5 + pearson@4*1", "labels", "kl@4*1")


def trainings(task: ImageClassification, texts: Sequence[str] = TEXTS, **more: Any) -> list[StudentTraining]:
    return [StudentTraining(task, Recipe.from_string(text), PROXY, seed=n, **more) for n, text in enumerate(texts)]


def attempt(training: StudentTraining, until: int = 4) -> Attempt[list[Rung]]:
    """Train to a rung."""
    events, rungs = training.lessons(), []
    while (rung := (yield from next_rung(events))) is not None:
        rungs.append(rung)
        if rung.epoch == until:
            break
    return rungs


def state(training: StudentTraining) -> list[Tensor]:
    return [*training.student.state_dict().values(), *training.distiller.parameters()]


def assert_alike(one: Sequence[StudentTraining], other: Sequence[StudentTraining]) -> None:
    for mine, theirs in zip(one, other, strict=True):
        for own, wanted in zip(state(mine), state(theirs), strict=True):
            torch.testing.assert_close(own, wanted, rtol=2e-3, atol=2e-4)


class Smooth(nn.Module):
    """Has no kinks, where a difference in the last bit switches the gradient of a pixel on or off.

    And no bias before a normalisation: it has no gradient, and AdamW would make steps of the noise.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((1, 8, 1), (8, 12, 2), (12, 12, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU()]
        self.maps, self.head = nn.Sequential(*layers), nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(images).mean((2, 3)))
        return logits


@pytest.fixture
def smooth_task(make_task: Make) -> ImageClassification:
    return make_task(student=Smooth, lr=0.02)


def test_stacked_students_may_be_half_precise(make_task: Make) -> None:
    task = make_task(student=Smooth, precision="bfloat16", lr=0.02)
    alone, together = trainings(task), trainings(task)
    wanted = [list(training.run())[-1] for training in alone]
    found = dict(learn_together(map(attempt, together), most=4))
    for place, rung in enumerate(wanted):
        # Not as near as in float32: the order of sums decides what is rounded to 8 bits.
        assert found[place][-1].losses == pytest.approx(rung.losses, rel=0.05)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stacked_students_end_as_each_alone(
    make_task: Make, stored: bool, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(student=Smooth, optimizer=optimizer, lr=0.01)
    knowledge = store_knowledge(task) if stored else None
    alone, together = trainings(task, knowledge=knowledge), trainings(task, knowledge=knowledge)
    wanted = [list(training.run()) for training in alone]
    monkeypatch.setattr(Lesson, "learn", lambda _: pytest.fail("learned alone"))
    found = dict(learn_together(map(attempt, together), most=4))
    assert_alike(together, alone)
    for place, rungs in enumerate(wanted):
        assert [rung.epoch for rung in found[place]] == [1, 2, 4]
        for mine, theirs in zip(found[place], rungs, strict=True):
            assert mine.losses == pytest.approx(theirs.losses, rel=1e-2)
            assert mine.metrics.cross_entropy == pytest.approx(theirs.metrics.cross_entropy, rel=1e-2)


def test_places_of_those_that_stop_are_taken(smooth_task: ImageClassification) -> None:
    """Two places, four trainings that end at different rungs: the stack changes, and nobody notices."""
    ends = (1, 4, 2, 4)
    alone, together = trainings(smooth_task), trainings(smooth_task)
    for training, end in zip(alone, ends, strict=True):
        learn_alone(attempt(training, end))
    begun: list[int] = []

    def coming() -> Iterator[Attempt[list[Rung]]]:
        for place, training in enumerate(together):
            begun.append(place)
            yield attempt(training, ends[place])

    order = []
    for place, rungs in learn_together(coming(), most=2):
        assert isinstance(rungs, list)
        order.append((place, rungs[-1].epoch, len(begun)))
    assert order == [(0, 1, 2), (2, 2, 3), (1, 4, 4), (3, 4, 4)]
    assert_alike(together, alone)


def test_a_rejected_student_leaves_the_others_alone(
    smooth_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = trainings(smooth_task), trainings(smooth_task)
    with torch.no_grad():
        for broken in (alone[1], together[1]):
            next(broken.student.parameters()).fill_(torch.nan)
    found = dict(learn_together(map(attempt, together), most=4))
    assert isinstance(found[1], LossRejected)
    assert "non-finite" in str(found[1])
    keep = [0, 2, 3]
    for index in keep:
        learn_alone(attempt(alone[index]))
    assert_alike([together[index] for index in keep], [alone[index] for index in keep])
    with pytest.raises(LossRejected, match="non-finite"):
        learn_alone(attempt(alone[1]))


class Dropping(nn.Module):
    def __init__(self, drop: float = 0.5, width: int = 8) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(drop), nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(images).mean((2, 3)))
        return logits


def test_students_that_draw_are_trained_one_after_another(make_task: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Stacked, they could not draw what each draws alone."""
    task = make_task(student=Dropping)
    alone, together = trainings(task), trainings(task)
    for training in alone:
        list(training.run())
    caplog.set_level(logging.INFO)
    dict(learn_together(map(attempt, together), most=4))
    (message,) = [record.message for record in caplog.records]
    assert message.startswith("Students are trained one after another: RuntimeError:")
    for mine, theirs in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(state(mine), state(theirs), strict=True))


def test_a_network_that_lies_when_stacked_is_noticed(
    smooth_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacked = StackedStudents._run

    def lie(stack: StackedStudents, *arguments: Any) -> Any:
        known = stacked(stack, *arguments)
        return [type(one)(one.features, one.logits + 0.1) for one in known]

    monkeypatch.setattr(StackedStudents, "_run", lie)
    alone, together = trainings(smooth_task), trainings(smooth_task)
    for training in alone:
        list(training.run())
    dict(learn_together(map(attempt, together), most=4))
    assert_alike(together, alone)


def test_what_can_be_stacked(make_task: Make) -> None:
    one, same = trainings(make_task(student=lambda: Dropping(0.1)), TEXTS[:2])
    (drop,) = trainings(make_task(student=lambda: Dropping(0.2)), TEXTS[:1])
    (width,) = trainings(make_task(student=lambda: Dropping(0.1, 12)), TEXTS[:1])
    assert stack_key(one) == stack_key(same)
    assert len({stack_key(one), stack_key(drop), stack_key(width)}) == 3


def test_short_memory_makes_smaller_stacks(
    smooth_task: ImageClassification, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stacked, sizes = StackedStudents._run, []

    def greedy(stack: StackedStudents, images: Tensor, *arguments: Any) -> Any:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(len(images))
        return stacked(stack, images, *arguments)

    monkeypatch.setattr(StackedStudents, "_run", greedy)
    alone, together = trainings(smooth_task), trainings(smooth_task)
    for training in alone:
        list(training.run())
    dict(learn_together(map(attempt, together), most=4))
    assert [record.message for record in caplog.records] == ["Out of memory: going on with 2 students at a time."]
    assert set(sizes) == {2}
    assert_alike(together, alone)


def test_what_is_left_when_the_caller_stops_is_closed(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def watched(training: StudentTraining) -> Attempt[int]:
        try:
            yield from attempt(training)
        finally:
            closed.append(training.seed)
        return 0

    running = learn_together(map(watched, trainings(make_task())), most=4)
    monkeypatch.setattr(StudentTraining, "update", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert sorted(closed) == [0, 1, 2, 3]


def test_an_error_of_one_student_ends_that_one(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    together = trainings(make_task(student=Smooth))
    monkeypatch.setattr(together[1].distiller, "forward", lambda *_, **__: 1 / 0)
    found = dict(learn_together(map(attempt, together), most=4))
    assert isinstance(found[1], ZeroDivisionError)
    assert all(isinstance(found[index], list) for index in (0, 2, 3))
