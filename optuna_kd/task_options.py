"""From the options of a command to its task: the data, what suits them, the teacher and the student."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from optuna_kd.data import DataSplits, load_data
from optuna_kd.models import check_input, create_model, create_student, load_weights, student_name
from optuna_kd.recipe import StudentConfig
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.teacher import cache_folder, trained_teacher
from optuna_kd.training.task import ImageClassification, resolve_device


@dataclass(frozen=True)
class Defaults:
    """Models and budgets that suit a data set."""

    teacher: str
    student: str
    teacher_epochs: int
    proxy_epochs: int
    epochs: int
    seeds: int
    batch_size: int
    subset: float


# On the digits the student has 1,384 parameters and some 200 steps: little enough that teaching matters.
DIGITS = Defaults("resnet20", "resnet8x0.125", 30, proxy_epochs=8, epochs=15, seeds=10, batch_size=64, subset=1.0)
# Of searched students, where a name is the family: on the digits its widths are a quarter of the published ones.
FAMILY, DIGITS_WIDTH, SEARCHED_SEEDS = "resnet", 0.25, 5
# So that the first of its four rungs, an eighth of the epochs, is no coin toss.
SEARCHED_PROXY_EPOCHS = 12
NATURAL = Defaults("resnet20", "resnet8", 30, proxy_epochs=12, epochs=30, seeds=3, batch_size=128, subset=0.2)
MANY_IMAGES = 10_000  # above which a CPU gets a third of the epochs by default
PROXY_IMAGES = 1_000  # below which a proxy is not cut by default: it would rank noise
# Below which the batches of a proxy are halved by default. What that brings, in `benchmarks/README.md`.
PROXY_STEPS, SMALLEST_BATCH = 100, 8


def suitable_defaults(options: TaskOptions, splits: DataSplits) -> Defaults:
    """Choose what suits data and device; every part can be given on the command line."""
    if splits.name == "digits":
        return DIGITS
    images = training_images(splits)
    defaults = dataclasses.replace(NATURAL, subset=max(NATURAL.subset, min(1.0, PROXY_IMAGES / images)))
    if images > MANY_IMAGES and resolve_device(options.device).type == "cpu":
        return dataclasses.replace(defaults, teacher_epochs=10, epochs=10)
    return defaults


def suitable_batch(epochs: int, images: int, batch_size: int) -> int | None:
    """Give the batch size of a proxy that would have too few steps with that of the task; None if it has enough."""
    smaller = batch_size
    while epochs * max(1, images // smaller) < PROXY_STEPS and smaller >= 2 * SMALLEST_BATCH:
        smaller //= 2
    return smaller if smaller < batch_size else None


def training_images(splits: DataSplits) -> int:
    """Count the images that are left to train on; without validation data a fifth of them is held out."""
    return round(len(splits.train) * (1.0 if splits.val is not None else 0.8))


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options that make a task."""

    data: str
    teacher: str | None
    teacher_checkpoint: Path | None
    student: str | None
    device: str
    epochs: int | None
    seeds: int | None
    max_train: int | None
    batch_size: int | None
    image_size: int | None
    seed: int
    precision: str = "auto"
    deterministic: bool = False
    config: StudentConfig | None = None  # the student of a recipe

    @property
    def chooses_student(self) -> bool:
        """Whether the search chooses the student."""
        return False

    @property
    def teacher_name(self) -> str:
        """The teacher, by name."""
        return self.teacher or NATURAL.teacher

    @property
    def student_name(self) -> str:
        """The student, by name; of searched students, their family."""
        default = FAMILY if self.chooses_student else (DIGITS if self.data == "digits" else NATURAL).student
        return self.student or (student_name(self.config) if self.config else default)


def load_splits(options: TaskOptions) -> DataSplits:
    """Load the data of a task."""
    cache = cache_folder() / "images"
    return load_data(options.data, image_size=options.image_size, max_train=options.max_train, cache_dir=cache)


def create_task(
    options: TaskOptions,
    splits: DataSplits,
    *,
    say: Reporter,
    before_training: Callable[[], object] = lambda: None,
) -> ImageClassification:
    """Create the task of a command: load or train the teacher, name the student.

    `before_training` is called when all options are known to fit, before a teacher is trained for nothing.
    """
    factory = network_factory(options.teacher_name, splits)
    # A student that is unknown or does not fit must not cost a trained teacher.
    if not options.chooses_student:
        check_input(network_factory(options.student_name, splits)(), splits.shape[0], splits.shape[1:])
    if options.teacher_checkpoint is not None:
        teacher = factory()
        load_weights(teacher, options.teacher_checkpoint)
        say.note(f"Teacher {options.teacher_name} from {options.teacher_checkpoint}")
    else:

        def as_student(network: nn.Module, student: Callable[[], nn.Module]) -> ImageClassification:
            task = teacher_task(options, splits, network, student)
            before_training()
            return task

        teacher = trained_teacher(
            factory,
            as_student,
            name=options.teacher_name,
            epochs=suitable_defaults(options, splits).teacher_epochs,
            say=say,
        )
    return new_task(options, splits, teacher)


def teacher_task(
    options: TaskOptions, splits: DataSplits, teacher: nn.Module, student: Callable[[], nn.Module]
) -> ImageClassification:
    """Give the task in which a teacher is trained as the student; its name does not depend on who learns from it."""
    return new_task(
        dataclasses.replace(options, student=options.teacher_name), splits, teacher, student, augment="auto"
    )


def new_task(
    options: TaskOptions,
    splits: DataSplits,
    teacher: nn.Module,
    student: Callable[..., nn.Module] | None = None,
    augment: str | None = None,
) -> ImageClassification:
    """Give the task of a teacher; its student is that of the options, or made by `student`."""
    return ImageClassification(
        teacher,
        student or (_students(splits) if options.chooses_student else network_factory(options.student_name, splits)),
        splits.train,
        splits.val,
        splits.test,
        num_classes=splits.num_classes,
        augment=augment or splits.augment,
        batch_size=options.batch_size or suitable_defaults(options, splits).batch_size,
        device=options.device,
        precision=options.precision,
        deterministic=options.deterministic,
        student_name=options.student_name,
        teacher_name=options.teacher_name,
        data_name=splits.name,
    )


def network_factory(name: str, splits: DataSplits) -> Callable[[], nn.Module]:
    """Give a function that makes the named network for the images and classes of the data."""
    channels, height, width = splits.shape
    return functools.partial(
        create_model,
        name,
        num_classes=splits.num_classes,
        in_channels=channels,
        input_size=(height, width),
    )


def _students(splits: DataSplits) -> Callable[[StudentConfig], nn.Module]:
    channels, height, width = splits.shape
    return functools.partial(
        create_student, num_classes=splits.num_classes, in_channels=channels, input_size=(height, width)
    )
