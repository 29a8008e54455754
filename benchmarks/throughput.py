"""Images per second of one distillation step: ours against a plain loop as public repositories write it.

Claims, for ResNet-110 to ResNet-20 on 32x32 images in batches of 64, with the same models and the same loss: on two CPU
cores at least 3.5 times as many with the teacher stored, and at least 1.3 times with the teacher asked in every step;
on a GPU at least 10 times with the teacher stored.

    python benchmarks/throughput.py --data DIR

The plain loop is in `plain_loop.py`. It gets the number of worker processes with which it is fastest here (0, 2 or 8: 8
and 2 are what the repositories have), and every side its best number of threads, one or as many as `--processes` says.
They take turns; every turn warms up and then times the same number of steps, and the ratios are those of turns
next to each other. That all compute the same loss of a batch is checked first. Where ours chooses bfloat16 by itself,
it is measured in float32 too, which is what the plain loop has. The images are those of CIFAR-10 if
`--data` names their folder, else random ones of the same size, which cost PIL the same. The teacher is not trained:
that makes no difference to the time.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gauge_report import estimate, print_claims, surroundings, with_bound
from plain_loop import PilImages, PlainLoop, load_batches
from torch import Tensor, nn

from optuna_kd.data import ImageSet, load_data
from optuna_kd.models import create_model
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.seeds import derive_seed
from optuna_kd.training import ImageClassification, StudentTraining, TeacherKnowledge, store_knowledge
from optuna_kd.training.profile import measure_parts

RECIPE = Recipe.from_string("none|l2*1 + kl@4*1")
EPOCHS = 10_000  # more than are trained
WORKERS = (0, 2, 8)
WARM_UP = 3  # steps; the batches that the workers of the plain loop have ready come on top
LEAST_REPEATS = 5
TOLERANCE = {"float32": 1e-3, "tf32": 1e-2, "bfloat16": 3e-2}  # of the loss of one batch
CLAIMS = {"cpu": {"stored": 3.5, "online": 1.3}, "cuda": {"stored": 10.0}}
RESULT = Path(__file__).parent / "results" / "throughput.json"


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    teacher: str = "resnet110"
    student: str = "resnet20"
    batch: int = 64
    images: int = 2_048
    views: int = 2  # of each image that are stored: more would only take longer to store
    steps: int = 30


QUICK = Sizes("resnet14", "resnet8", batch=16, images=64, views=1, steps=2)


def run(
    *, seeds: int, processes: int, out: Path, quick: bool, data: Path | None, device: str = "auto"
) -> dict[str, Any]:
    """Measure, and write the report.

    Args:
        seeds: Turns of each side; at least 5, unless `quick`.
        processes: Threads that a side may have.
        out: The result file.
        quick: A few steps of small networks, to see that it runs.
        data: Folder of CIFAR-10 images; None for random ones.
        device: Where both train.
    """
    sizes, repeats = (QUICK, 2) if quick else (Sizes(), max(LEAST_REPEATS, seeds))
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(processes)
    torch.backends.cudnn.benchmark = True  # as the repositories have it
    try:
        task = create_task(sizes, data, device)
        started = time.perf_counter()
        knowledge = store_knowledge(task)
        storing = time.perf_counter() - started
        plain, ours = PlainSide(task, sizes), our_sides(task, create_task(sizes, data, device, "float32"), knowledge)
        for side in ours.values():
            check_same_loss(plain, side)
        sides: dict[str, Side] = {"plain": plain, **ours}
        tuned = {name: side.tune(sizes.steps // 3 or 1, sorted({1, processes})) for name, side in sides.items()}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(repeats):
            for name in list(sides) if repeat % 2 == 0 else list(reversed(sides)):
                rates[name].append(sides[name].images_per_second(sizes.steps))
                print(f"{repeat + 1}/{repeats} {name}: {rates[name][-1]:,.0f} images a second", flush=True)
        parts = {name: str(measure_parts([side.begin()], sizes.steps)) for name, side in ours.items()}
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
    ratios = {name: [own / other for own, other in zip(rates[name], rates["plain"], strict=True)] for name in ours}
    content = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "device": describe_device(task.device),
        "threads_at_most": processes,
        "images": "CIFAR-10" if data else "random, of the size of CIFAR-10's",
        "sizes": vars(sizes),
        "recipe": str(RECIPE),
        "repeats": repeats,
        "tuned": tuned,
        "images_per_second": {name: estimate(found) for name, found in rates.items()},
        "times_the_plain_loop": {name: with_bound(found) for name, found in ratios.items()},
        "storing": {"seconds": round(storing, 1), "images": sizes.images * sizes.views},
        "precision": {name: side.precision for name, side in ours.items()},
        "parts": parts,
        "claims": check_claims(task.device.type, ratios),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def create_task(sizes: Sizes, data: Path | None, device: str, precision: str = "auto") -> ImageClassification:
    if data is not None:
        everything = load_data(f"cifar10:{data}", max_train=sizes.images)
        train, classes = everything.train, everything.num_classes
    else:
        generator, classes = torch.Generator().manual_seed(0), 10
        pixels = torch.randint(256, (sizes.images, 3, 32, 32), dtype=torch.uint8, generator=generator)
        train = ImageSet(pixels, torch.arange(sizes.images) % classes)
    teacher, student = (
        functools.partial(create_model, name, num_classes=classes) for name in (sizes.teacher, sizes.student)
    )
    torch.manual_seed(0)
    return ImageClassification(
        calibrated(teacher(), train), student, train, train.subset(range(sizes.batch)), num_classes=classes,
        augment="crop-flip", batch_size=sizes.batch, lr=0.05, views=sizes.views, device=device, precision=precision,
    )  # fmt: skip


def our_sides(
    task: ImageClassification, in_float32: ImageClassification, knowledge: TeacherKnowledge
) -> dict[str, OurSide]:
    """Give our ways to train, as they come; and in float32, where that is another way."""
    sides = {"stored": OurSide(task, knowledge), "online": OurSide(task, None)}
    if sides["online"].precision != "float32":
        sides |= {"stored, float32": OurSide(in_float32, knowledge), "online, float32": OurSide(in_float32, None)}
    return sides


@torch.no_grad()
def calibrated(network: nn.Module, images: ImageSet) -> nn.Module:
    """Give an untrained network the statistics of its maps, without which they would grow from block to block."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(images.images[:256].float() / 128 - 1)
    return network


@dataclass(frozen=True)
class Choice:
    """How a side runs.

    Args:
        threads: Of torch.
        workers: Processes that load the images.
    """

    threads: int = 1
    workers: int = 0

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.workers} workers"


class Side(ABC):
    """One way to take training steps."""

    workers: tuple[int, ...] = (0,)

    def __init__(self, task: ImageClassification) -> None:
        self.task, self.choice = task, Choice()

    @abstractmethod
    def turn(self, steps: int) -> float:
        """Warm up, take so many steps, and give the images per second."""

    def images_per_second(self, steps: int) -> float:
        """Take a turn."""
        torch.set_num_threads(self.choice.threads)
        return self.turn(steps)

    def tune(self, steps: int, threads: Sequence[int]) -> dict[str, Any]:
        """Choose the way to run in which it is fastest; give what was tried."""
        tried = {}
        for choice in itertools.starmap(Choice, itertools.product(threads, self.workers)):
            self.choice = choice
            tried[choice] = self.images_per_second(steps)
        self.choice = max(tried, key=lambda choice: tried[choice])
        return {
            "chosen": str(self.choice),
            "images_per_second_tried": {str(choice): round(rate, 1) for choice, rate in tried.items()},
        }


class OurSide(Side):
    """Steps of `StudentTraining`."""

    def __init__(self, task: ImageClassification, knowledge: TeacherKnowledge | None) -> None:
        super().__init__(task)
        self.knowledge = knowledge
        training = self.begin()
        self.precision = training.precision.name
        self.steps = self._endless(training)

    def begin(self) -> StudentTraining:
        """Begin a training."""
        return StudentTraining(self.task, RECIPE, ProxyConfig(epochs=EPOCHS), seed=0, knowledge=self.knowledge)

    def turn(self, steps: int) -> float:
        """Go on with the training."""
        return timed(self.steps, WARM_UP, steps, self.task)

    def loss_of(self, indices: Tensor) -> tuple[float, Tensor, Tensor]:
        """Give the loss of a batch of a fresh student, and the prepared images and labels."""
        training = self.begin()
        batch = training.load(0, 0, indices)
        with torch.no_grad():
            with training.precision.autocast():
                known = training.observer(batch.images)
            terms = training.distiller(known, training.ask_teacher(batch), batch.labels)
        return float(sum(terms.values())), batch.images, batch.labels

    @staticmethod
    def _endless(training: StudentTraining) -> Iterator[object]:
        for epoch in itertools.count():
            yield from training.steps(epoch, (0, EPOCHS))


class PlainSide(Side):
    """Steps of the plain loop."""

    workers = WORKERS

    def __init__(self, task: ImageClassification, sizes: Sizes) -> None:
        super().__init__(task)
        self.images = PilImages(task.train_set, task.normalizer)
        teacher = create_model(sizes.teacher, num_classes=task.num_classes)
        teacher.load_state_dict(task.teacher.state_dict())
        student = task.make_student(derive_seed(0, "student"))  # the same initial weights as ours
        models = teacher.to(task.device), student.to(task.device)
        self.loop = PlainLoop(*models, lr=task.lr, weight_decay=task.weight_decay)

    def turn(self, steps: int) -> float:
        """Start the workers anew, so that they rest while others have their turn."""
        # They prefetch two batches each, before anything is timed: those are used up first.
        warm_up = WARM_UP + 2 * self.choice.workers
        batches = load_batches(self.images, self.task.batch_size, warm_up + steps, self.choice.workers)
        return timed((self.loop.step(*batch) for batch in batches), warm_up, steps, self.task)


def timed(steps: Iterator[object], warm_up: int, count: int, task: ImageClassification) -> float:
    """Take steps to warm up and then `count` more; give the images per second of the latter."""
    for _ in itertools.islice(steps, warm_up):
        pass
    started = now(task.device)
    for _ in itertools.islice(steps, count):
        pass
    return count * task.batch_size / (now(task.device) - started)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def check_same_loss(plain: PlainSide, ours: OurSide) -> None:
    """Refuse to compare sides that do not compute the same."""
    own, images, labels = ours.loss_of(torch.arange(plain.task.batch_size))
    with torch.no_grad():
        theirs = float(plain.loop.loss(images.contiguous(), labels))
    is_rough = ours.task.device.type == "cuda"  # torch lets convolutions use TF32 there, on both sides
    tolerance = max(TOLERANCE[ours.precision], TOLERANCE["tf32"] if is_rough else 0.0)
    if not math.isclose(own, theirs, rel_tol=tolerance):
        raise SystemExit(f"The losses of one batch differ: ours is {own:.6g}, that of the plain loop {theirs:.6g}.")


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.backends.cpu.get_cpu_capability()}"


def check_claims(device: str, ratios: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Hold the claims for a kind of device against what was measured."""
    claims = []
    for name, least in CLAIMS.get(device, {}).items():
        found = with_bound(ratios[name])
        text = f"{device}: images a second with the teacher {name} >= {least:g} times those of the plain loop"
        claims.append({"claim": text, **found, "met": found["mean"] >= least})
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 images")
    parser.add_argument("--seeds", type=int, default=7, help="turns of each side (7)")
    parser.add_argument("--processes", type=int, default=2, help="threads (2)")
    parser.add_argument("--device", default="auto", help="where both train (auto)")
    parser.add_argument("--quick", action="store_true", help="a few steps of small networks, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    content = run(**vars(parser.parse_args()))
    for name, found in content["times_the_plain_loop"].items():
        print(f"{name}: {content['parts'][name]}; {found['mean']:.2f} times the plain loop")
    print_claims(content["claims"])


if __name__ == "__main__":
    main()
