"""What takes the time of a training step: the data, the teacher, the student, the distiller or the optimizer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from optuna_kd.models.knowledge import Knowledge
from optuna_kd.training.lesson import Batch
from optuna_kd.training.memory import is_out_of_memory
from optuna_kd.training.stacking import StackedStudents, stack_key
from optuna_kd.training.trainer import StudentTraining

PARTS = ("data", "teacher", "student", "distiller", "optimizer")
WARM_UP = 3  # steps: the first ones choose kernels and allocate memory
OPERATIONS = 30  # rows of the table of operations
Student = Callable[[Sequence[Batch]], list[Knowledge]]


@dataclass(frozen=True)
class Profile:
    """The time of one training step.

    Args:
        seconds: By part: loading and augmenting a batch; the teacher's answer; forward and backward pass of the
            student; of the distiller; and clipping and step of the optimizer.
        batch: Images of a step.
        stored: Whether the teacher's answers are stored.
        students: That take the step side by side, each with a batch of its own.
    """

    seconds: Mapping[str, float]
    batch: int
    stored: bool
    students: int = 1

    @property
    def total(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def shares(self) -> dict[str, float]:
        """The share of each part, the largest first."""
        return {name: seconds / self.total for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])}

    def __str__(self) -> str:
        shares = ", ".join(
            f"{name} {100 * share:.0f} %{' (stored)' if name == 'teacher' and self.stored else ''}"
            for name, share in self.shares.items()
        )
        images = f"{self.students} x {self.batch}" if self.students > 1 else str(self.batch)
        speed = self.students * self.batch / self.total
        return f"{shares}; {1000 * self.total:.3g} ms for {images} images, {speed:,.0f} a second"


def measure_parts(trainings: Sequence[StudentTraining], steps: int = 20) -> Profile:
    """Time the parts of some steps of fresh trainings side by side, which are used up by it.

    The parts are timed apart, each waiting for the device to finish; side by side they may overlap.

    Args:
        trainings: At least one, nobody else's: they are trained on the way. Their recipes need a term.
        steps: How many are timed, after three to warm up; at most one epoch.
    """
    first = trainings[0]
    for training in trainings:
        training.student.train()
        training.distiller.train()
    size = min(first.batch_size, len(first.indices))
    count = max(1, min(steps + WARM_UP, len(first.indices) // size))
    sums = dict.fromkeys(PARTS, 0.0)
    timed = 0
    student = _student_of(trainings, first.indices[:size])
    for step in range(count):
        seconds = _step(trainings, student, step, first.indices[step * size : (step + 1) * size])
        if step >= min(WARM_UP, count - 1):
            timed += 1
            sums = {name: sums[name] + seconds[name] for name in PARTS}
    return Profile(
        {name: total / timed for name, total in sums.items()},
        size,
        first.knowledge is not None and first.knowledge.is_stored,
        len(trainings),
    )


def list_operations(trainings: Sequence[StudentTraining], steps: int = 10) -> str:
    """Give a table of the operations that take the time of some steps of fresh trainings, by torch's profiler."""
    activities = [ProfilerActivity.CPU]
    sort = "self_cpu_time_total"
    if trainings[0].task.device.type == "cuda":
        activities, sort = [*activities, ProfilerActivity.CUDA], "self_device_time_total"
    measure_parts(trainings, steps=1)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports a GPU that is not there as an error
    with profile(activities=activities) as recorded:
        measure_parts(trainings, steps)
    return str(recorded.key_averages().table(sort_by=sort, row_limit=OPERATIONS))


def _student_of(trainings: Sequence[StudentTraining], indices: Tensor) -> Student:
    """Give the forward pass of all students: as one stacked network where they can be stacked, else one by one."""
    if len(trainings) > 1 and len({stack_key(training) for training in trainings}) == 1:
        try:
            stack = StackedStudents(trainings)
            stack.check(torch.stack([training.load(0, 0, indices).images for training in trainings]))
        except Exception as error:  # as in a search, where such students are trained one after another
            if is_out_of_memory(error):
                raise
        else:
            return lambda batches: stack(torch.stack([batch.images for batch in batches]))

    def each(batches: Sequence[Batch]) -> list[Knowledge]:
        known = []
        for training, batch in zip(trainings, batches, strict=True):
            with training.precision.autocast():
                known.append(training.observer(batch.images))
        return known

    return each


def _step(trainings: Sequence[StudentTraining], student: Student, step: int, indices: Tensor) -> dict[str, float]:
    """Train one step in pieces; give the seconds of each part."""
    device = trainings[0].task.device
    times = [_now(device)]

    def lap() -> float:
        times.append(_now(device))
        return times[-1] - times[-2]

    found = {}
    batches = [training.load(0, step, indices) for training in trainings]
    found["data"] = lap()
    taught = [training.ask_teacher(batch) for training, batch in zip(trainings, batches, strict=True)]
    found["teacher"] = lap()
    known = student(batches)
    found["student"] = lap()
    # The backward pass in two: through the losses down to what the students put out, then through the students.
    cuts = [
        Knowledge(tuple(maps.detach().requires_grad_() for maps in own.features), own.logits.detach().requires_grad_())
        for own in known
    ]
    losses: list[Tensor] = []
    for training, cut, told, batch in zip(trainings, cuts, taught, batches, strict=True):
        training.optimizer.zero_grad(set_to_none=True)
        losses += training.distiller(cut, told, batch.labels, progress=0.5).values()
    torch.stack(losses).sum().backward()
    found["distiller"] = lap()
    pairs = [
        pair
        for own, cut in zip(known, cuts, strict=True)
        for pair in zip([*own.features, own.logits], [*cut.features, cut.logits], strict=True)
    ]
    outputs = [(output, leaf.grad) for output, leaf in pairs if leaf.grad is not None]
    torch.autograd.backward([output for output, _ in outputs], [gradient for _, gradient in outputs])
    found["student"] += lap()
    for training in trainings:
        training.update()
    found["optimizer"] = lap()
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
