"""What takes the time of a training step: the data, the teacher, the student, the distiller or the optimizer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from optuna_kd.models.knowledge import Knowledge
from optuna_kd.training.trainer import StudentTraining

PARTS = ("data", "teacher", "student", "distiller", "optimizer")
WARM_UP = 3  # steps: the first ones choose kernels and allocate memory
OPERATIONS = 30  # rows of the table of operations


@dataclass(frozen=True)
class Profile:
    """The time of one training step.

    Args:
        seconds: By part: loading and augmenting a batch; the teacher's answer; forward and backward pass of the
            student; of the distiller; and clipping and step of the optimizer.
        batch: Images of a step.
        stored: Whether the teacher's answers are stored.
    """

    seconds: Mapping[str, float]
    batch: int
    stored: bool

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
        return f"{shares}; {1000 * self.total:.3g} ms for {self.batch} images, {self.batch / self.total:,.0f} a second"


def measure_parts(training: StudentTraining, steps: int = 20) -> Profile:
    """Time the parts of some steps of a fresh training, which is used up by it.

    The parts are timed apart, each waiting for the device to finish; side by side they may overlap.

    Args:
        training: Nobody else's: it is trained on the way. Its recipe needs a term.
        steps: How many are timed, after three to warm up; at most one epoch.
    """
    training.student.train()
    training.distiller.train()
    size = min(training.batch_size, len(training.indices))
    count = max(1, min(steps + WARM_UP, len(training.indices) // size))
    sums = dict.fromkeys(PARTS, 0.0)
    timed = 0
    for step in range(count):
        seconds = _step(training, step, training.indices[step * size : (step + 1) * size])
        if step >= min(WARM_UP, count - 1):
            timed += 1
            sums = {name: sums[name] + seconds[name] for name in PARTS}
    return Profile(
        {name: total / timed for name, total in sums.items()},
        size,
        training.knowledge is not None and training.knowledge.is_stored,
    )


def list_operations(training: StudentTraining, steps: int = 10) -> str:
    """Give a table of the operations that take the time of some steps of a fresh training, by torch's profiler."""
    activities = [ProfilerActivity.CPU]
    sort = "self_cpu_time_total"
    if training.task.device.type == "cuda":
        activities, sort = [*activities, ProfilerActivity.CUDA], "self_device_time_total"
    measure_parts(training, steps=1)
    with profile(activities=activities) as recorded:
        measure_parts(training, steps)
    return str(recorded.key_averages().table(sort_by=sort, row_limit=OPERATIONS))


def _step(training: StudentTraining, step: int, indices: Tensor) -> dict[str, float]:
    """Train one step in pieces; give the seconds of each part."""
    device = training.task.device
    times = [_now(device)]

    def lap() -> float:
        times.append(_now(device))
        return times[-1] - times[-2]

    found = {}
    batch = training.load(0, step, indices)
    found["data"] = lap()
    taught = training.ask_teacher(batch)
    found["teacher"] = lap()
    with training.precision.autocast():
        known = training.observer(batch.images)
    found["student"] = lap()
    # The backward pass in two: through the losses down to what the student put out, then through the student.
    features = tuple(maps.detach().requires_grad_() for maps in known.features)
    cut = Knowledge(features, known.logits.detach().requires_grad_())
    training.optimizer.zero_grad(set_to_none=True)
    torch.stack(list(training.distiller(cut, taught, batch.labels, progress=0.5).values())).sum().backward()
    found["distiller"] = lap()
    pairs = zip([*known.features, known.logits], [*cut.features, cut.logits], strict=True)
    outputs = [(output, leaf.grad) for output, leaf in pairs if leaf.grad is not None]
    torch.autograd.backward([output for output, _ in outputs], [gradient for _, gradient in outputs])
    found["student"] += lap()
    training.update()
    found["optimizer"] = lap()
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
