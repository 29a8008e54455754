"""CIFAR-10 in the sizes that the acceleration benchmarks have: its parts, a teacher trained on them, tasks, recipes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

from optuna_kd.data import ImageSet, load_data, stratified_split, stratified_subset
from optuna_kd.models import create_model
from optuna_kd.objective import dead_cells
from optuna_kd.recipe import ProxyConfig, Recipe, canonical
from optuna_kd.runner.teacher import cache_folder
from optuna_kd.search_space import create_space
from optuna_kd.seeds import derive_seed
from optuna_kd.training import ImageClassification, StudentTraining, TeacherKnowledge, prepare_knowledge
from optuna_kd.training.knowledge_plan import KnowledgeChoices, knowledge_bytes
from optuna_kd.training.proxy import proxy_images

CLASSES, SHAPE = 10, (3, 32, 32)
STORED = 2**36  # bytes of the teacher's answers, at most: as good as no limit
# Of the 50,000 training images. Fixed, so that a teacher and its students see images prepared alike.
NORMALIZE = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class Sizes:
    """What is trained on how much.

    Args:
        images: Training images of the students; they are some of the teacher's.
        epochs: Of a full training, of which a proxy has a share.
        teacher, student: Networks by name.
        teacher_images, teacher_epochs: What the teacher is trained on, and for how long.
        val: Images cut from the training images, which choose the recipe.
        test: Test images; read once, for a finally distilled student.
        batch_size, lr: Of teacher and students.
        views: Augmented versions of each image whose teacher outputs are stored.
    """

    images: int
    epochs: int
    teacher: str = "resnet56"
    student: str = "resnet20"
    teacher_images: int = 8_000
    teacher_epochs: int = 12
    val: int = 500
    test: int = 10_000
    batch_size: int = 32
    lr: float = 0.05
    views: int = 4

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name these sizes."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Parts:
    """The images: those of the teacher, those of the students among them, and what is held out."""

    teacher: ImageSet
    train: ImageSet
    val: ImageSet
    test: ImageSet


def load_parts(data: Path | None, sizes: Sizes) -> Parts:
    """Load CIFAR-10 from a folder (a release of it, or an image folder), or make images up where there is none.

    Args:
        data: The folder; None for images of noise around one pattern for each class.
        sizes: How many are wanted.

    Raises:
        ValueError: If the folder does not hold CIFAR-10, or holds too few images.
    """
    held = sizes.teacher_images + sizes.val
    if data is None:
        pool, test = _made_up(held, seed=0), _made_up(sizes.test, seed=1)
    else:
        splits = load_data(f"cifar10:{data}", max_train=held, cache_dir=cache_folder() / "images")
        pool, test = splits.train, splits.test
        if splits.val is not None:
            raise ValueError(f"{data} has a val/ of its own; CIFAR-10 comes as train/ and test/.")
    for name, found, wanted in (("training", len(pool), held), ("test", len(test), sizes.test)):
        if found < wanted:
            raise ValueError(f"{wanted:,} {name} images are wanted, there are {found:,}.")
    kept, val = stratified_split(pool.labels, sizes.val / held, seed=derive_seed("validation split"))
    teacher = pool.subset(kept)
    return Parts(teacher, _share(teacher, sizes.images), pool.subset(val), _share(test, sizes.test))


def _share(images: ImageSet, count: int) -> ImageSet:
    return images.subset(stratified_subset(images.labels, count / len(images), seed=derive_seed("subset")))


def _made_up(count: int, seed: int) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    patterns = torch.randint(60, 196, (CLASSES, *SHAPE), generator=torch.Generator().manual_seed(2))
    labels = torch.arange(count) % CLASSES
    noise = torch.randint(-60, 60, (count, *SHAPE), generator=draw)
    return ImageSet((patterns[labels] + noise).to(torch.uint8), labels, tuple(map(str, range(CLASSES))))


def create_task(
    parts: Parts,
    sizes: Sizes,
    teacher: nn.Module,
    *,
    device: str = "auto",
    views: int | None = None,
    precision: str = "auto",
) -> ImageClassification:
    """Give the task in which the students learn from a teacher.

    Args:
        parts: The images.
        sizes: Networks, batches and learning rate.
        teacher: The trained teacher.
        device: As in `ImageClassification`.
        views: As in `ImageClassification`; None for those of `sizes`.
        precision: As in `ImageClassification`.
    """
    return ImageClassification(
        teacher,
        network(sizes.student),
        parts.train,
        parts.val,
        parts.test,
        views=views or sizes.views,
        student_name=sizes.student,
        precision=precision,
        **_shared(sizes, device),
    )


def _shared(sizes: Sizes, device: str) -> dict[str, Any]:
    return {
        "num_classes": CLASSES,
        "normalize": NORMALIZE,
        "augment": "crop-flip",
        "batch_size": sizes.batch_size,
        "lr": sizes.lr,
        "device": device,
    }


def network(name: str) -> Callable[[], nn.Module]:
    """Give a function that makes the named network for CIFAR-10."""
    return partial(create_model, name, num_classes=CLASSES, in_channels=SHAPE[0], input_size=SHAPE[1:])


def grow_teacher(
    file: Path,
    parts: Parts,
    sizes: Sizes,
    *,
    device: str = "auto",
    deadline: float = float("inf"),
    say: Callable[[str], object] = print,
) -> nn.Module | None:
    """Train the teacher on the labels, or go on with what the file holds; it is kept there after every epoch.

    Args:
        file: Where it is kept.
        parts: The images.
        sizes: Network, images and epochs.
        device: As in `ImageClassification`.
        deadline: On the clock of `time.monotonic`; no epoch begins after it.
        say: Told of every epoch.

    Returns:
        The teacher, on the CPU; None if there was no time to finish it.
    """
    create = network(sizes.teacher)
    task = ImageClassification(create(), create, parts.teacher, parts.val, **_shared(sizes, device))
    epochs = sizes.teacher_epochs
    schedule = ProxyConfig(epochs=epochs, rungs=(epochs,))
    training = StudentTraining(task, Recipe(), schedule, seed=derive_seed("teacher"))
    start = 0
    if file.exists():
        kept = torch.load(file, map_location=task.device, weights_only=True)
        training.student.load_state_dict(kept["student"])
        training.optimizer.load_state_dict(kept["optimizer"])
        start = kept["epochs"]
    for epoch in range(start, epochs):
        if time.monotonic() > deadline:
            return None
        losses = training.train_epoch(epoch, cycle=(0, epochs))
        state = {"student": training.student.state_dict(), "optimizer": training.optimizer.state_dict()}
        _keep({**state, "epochs": epoch + 1}, file)
        say(f"Teacher {sizes.teacher}: epoch {epoch + 1} of {epochs}, loss {losses['total']:.3f}")
    training.observer.close()
    return training.student.cpu()


def teacher_file(folder: Path, sizes: Sizes, data: Path | None) -> Path:
    """Name the file of a teacher by everything that it depends on, but the images themselves."""
    own = replace(sizes, images=0, epochs=0, student="", views=0, test=0)
    return folder / f"teacher-{sizes.teacher}-{own.digest}{'-made-up' if data is None else ''}.pt"


def load_teacher(file: Path, sizes: Sizes) -> nn.Module:
    """Load a teacher that `grow_teacher` has finished."""
    teacher = network(sizes.teacher)()
    teacher.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["student"])
    return teacher


def _keep(state: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = file.with_suffix(".partial")
    torch.save(state, partial_file)
    partial_file.replace(file)


def store_answers(task: ImageClassification, proxy: ProxyConfig) -> TeacherKnowledge | None:
    """Store the teacher's answers on the images of a proxy, and no others: on the device of the task, or in memory."""
    images = proxy_images(task, proxy)[0]
    limit = STORED if len(images) == len(task.train_set) else 2 * knowledge_bytes(task, len(images))
    return prepare_knowledge(task, KnowledgeChoices(mode="replay", limit=limit), images)


def draw_recipes(task: ImageClassification, count: int, seed: int) -> list[Recipe]:
    """Draw so many different recipes, uniformly from Auto-KD's space on the maps of the task."""
    space = create_space("auto-kd").without(dead_cells(task))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    found: dict[Recipe, Recipe] = {}
    while len(found) < count:
        recipe = space.suggest(study.ask())
        found.setdefault(canonical(recipe), recipe)
    return list(found.values())


def peak_memory() -> float:
    """Give the largest resident memory of this process so far, in MB; 0 where the system does not tell.

    Of Linux alone: the peak that `resource` gives includes that of the process which started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
