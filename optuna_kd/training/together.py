"""Several trainings at once: their students run as one stacked network, and each learns by its own distiller.

A small student keeps no processor busy: most of a step is the overhead of its many small operations. Students of the
same layers can share that overhead, with their parameters stacked along a new first dimension and one operation for all
of them (`torch.func.vmap`). Everything else stays as in a training of its own: seeds, batches, distiller, optimizer,
rungs. So the results agree with training them one after another, up to floating-point noise.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from optuna_kd.distillers import DeadTermError
from optuna_kd.training.lesson import Batch, Lesson, Rung
from optuna_kd.training.memory import is_out_of_memory, release_memory
from optuna_kd.training.randomness import seeded
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.stacking import NotStackableError, StackedStudents, stack_key
from optuna_kd.training.trainer import StudentTraining

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Attempt = Generator[Lesson, None, Result]
"""Gives the lessons of one training, each to be learned before the next is asked for, and returns what came of it.

What goes wrong in a lesson is thrown into it there, so that it can tell what that means.
"""


def next_rung(events: Iterator[Lesson | Rung]) -> Generator[Lesson, None, Rung | None]:
    """Pass on the lessons of a training up to its next rung, and return that; None at its end.

    Args:
        events: `StudentTraining.lessons()`.
    """
    for event in events:
        if isinstance(event, Rung):
            return event
        yield event
    return None


def learn_alone(attempt: Attempt[Result]) -> Result:
    """Learn the lessons of one training, and give its result."""
    ((_, outcome),) = learn_together([attempt], most=1)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def learn_together(attempts: Iterable[Attempt[Result]], most: int) -> Iterator[tuple[int, Result | Exception]]:
    """Learn the lessons of several trainings side by side; a new one begins when another has ended.

    Args:
        attempts: The trainings, asked for one by one as places get free.
        most: How many are trained at a time.

    Returns:
        For each, as it ends: its place among `attempts`, and its result or what it raised.
    """
    coming = enumerate(attempts)
    seats: dict[int, _Seat[Result]] = {}
    classroom = _Classroom()
    try:
        while True:
            while len(seats) < most and (new := next(coming, None)) is not None:
                place, attempt = new
                seats[place] = _Seat(attempt)
                if not seats[place].move_on():
                    yield place, seats.pop(place).outcome
            if not seats:
                return
            errors = classroom.learn([seat.lesson for seat in seats.values()])
            for place, seat in list(seats.items()):
                if not seat.move_on(errors.get(seat.lesson)):
                    yield place, seats.pop(place).outcome
    finally:
        for seat in seats.values():
            seat.attempt.close()


class _Seat(Generic[Result]):
    """One training that is under way."""

    lesson: Lesson
    outcome: Result | Exception

    def __init__(self, attempt: Attempt[Result]) -> None:
        self.attempt = attempt

    def move_on(self, error: Exception | None = None) -> bool:
        """Go to the next lesson, if there is one; `error` is what went wrong in the last."""
        try:
            self.lesson = next(self.attempt) if error is None else self.attempt.throw(error)
        except StopIteration as stop:
            self.outcome = stop.value
        except Exception as raised:
            self.outcome = raised
        else:
            return True
        return False


class _Classroom:
    """Learns the lessons of one step: those of students with the same layers together, the others one by one."""

    def __init__(self) -> None:
        self._most: int | None = None  # students in a stack, where memory is short
        self._keys: WeakKeyDictionary[StudentTraining, Hashable] = WeakKeyDictionary()
        self._stacks: dict[Hashable, StackedStudents] = {}
        self._checked: set[Hashable] = set()
        self._refused: set[Hashable] = set()

    def learn(self, lessons: Sequence[Lesson]) -> dict[Lesson, Exception]:
        """Take the step of each lesson; give what went wrong, by lesson."""
        errors: dict[Lesson, Exception] = {}
        for key, group in self._groups(lessons).items():
            size = self._most or len(group)
            for start in range(0, len(group), size):
                errors |= self._learn_group(key, start, group[start : start + size])
        return errors

    def _groups(self, lessons: Sequence[Lesson]) -> dict[Hashable, list[Lesson]]:
        groups: dict[Hashable, list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            training = lesson.training
            if training not in self._keys:
                self._keys[training] = stack_key(training)
            key = (self._keys[training], len(lesson.indices))
            is_single = key in self._refused or training.pieces > 1 or training.ranks.size > 1
            groups[lesson if is_single else key].append(lesson)
        return groups

    def _learn_group(self, key: Hashable, start: int, group: list[Lesson]) -> dict[Lesson, Exception]:
        if len(group) > 1:
            try:
                return _learn_stacked(self._stack(key, start, group), group)
            except NotStackableError as error:
                logger.info("Students are trained one after another: %s.", error)
                self._refused.add(key)
            except Exception as error:
                if is_out_of_memory(error):
                    self._most = len(group) // 2
                    logger.warning("Out of memory: going on with %d students at a time.", self._most)
                else:  # of one of them: alone, it ends that one
                    logger.info("Students are trained one after another: %s: %s", type(error).__name__, error)
                    self._refused.add(key)
        if self._most is not None and len(group) > self._most:
            self._stacks.clear()
            release_memory()  # here, where the error does not hold the tensors any more
            return self.learn(group)
        errors: dict[Lesson, Exception] = {}
        for lesson in group:
            try:
                lesson.learn()
            except Exception as error:
                errors[lesson] = error
        return errors

    def _stack(self, key: Hashable, start: int, group: list[Lesson]) -> StackedStudents:
        trainings = tuple(lesson.training for lesson in group)
        stack = self._stacks.get((key, start))
        if stack is None or stack.trainings != trainings:
            stack = self._stacks[key, start] = StackedStudents(trainings)
        if key not in self._checked:
            stack.check(torch.stack([_load(lesson).images for lesson in group]))
            self._checked.add(key)
        return stack


def _learn_stacked(stack: StackedStudents, group: Sequence[Lesson]) -> dict[Lesson, Exception]:
    """Take the steps of students with the same layers, in one forward and one backward pass."""
    batches = [_load(lesson) for lesson in group]
    known = stack(torch.stack([batch.images for batch in batches]))
    terms: dict[Lesson, dict[str, Tensor]] = {}
    errors: dict[Lesson, Exception] = {}
    for lesson, batch, knowledge in zip(group, batches, known, strict=True):
        try:
            with seeded(lesson.seed()):  # of terms that draw; students that do are not stacked
                terms[lesson] = lesson.training.compare(batch, knowledge, lesson.progress)
        except (LossRejected, DeadTermError) as error:
            errors[lesson] = error
    totals = [torch.stack(list(own.values())).sum() for own in terms.values()]
    sizes = torch.stack(totals).tolist() if totals else []  # waits for the device once, and not once a student
    kept = []
    for (lesson, own), total, size in zip(terms.items(), totals, sizes, strict=True):
        try:
            lesson.training.refuse(own, size)
        except LossRejected as error:
            errors[lesson] = error
        else:
            kept.append(total)
            lesson.terms = {name: value.detach() for name, value in {**own, "total": total}.items()}
            lesson.training.optimizer.zero_grad(set_to_none=True)
    if kept:
        torch.stack(kept).sum().backward()
    for lesson in group:
        if lesson not in errors:
            lesson.training.update()
    return errors


def _load(lesson: Lesson) -> Batch:
    return lesson.training.load(lesson.epoch, lesson.step, lesson.indices, lesson.raw)
