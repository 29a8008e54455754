"""What is to be distilled: a teacher, students, data, and how they are prepared."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from optuna_kd.cards import DataFacts, NetworkFacts, TaskFacts
from optuna_kd.data import (
    AUGMENTATIONS,
    ImageSet,
    Normalizer,
    StreamingSet,
    as_image_set,
    create_augmentation,
    make_resident,
    stratified_split,
)
from optuna_kd.models import check_input, checksum, count_parameters, evaluating, find_layer, student_label, unwrap
from optuna_kd.models.knowledge import FrozenTeacher, Observer, TappedLayer, logits_of
from optuna_kd.recipe import Recipe, StudentConfig
from optuna_kd.registry import suggest_name
from optuna_kd.rewards import MinibatchCKA
from optuna_kd.seeds import derive_seed
from optuna_kd.training.precision import Precision, choose_precision
from optuna_kd.training.randomness import seeded

logger = logging.getLogger(__name__)

OPTIMIZERS = ("sgd", "adamw")
STATISTICS_IMAGES = 2000  # of a data set that does not fit into memory, from which mean and deviation are taken
UNSCALED = 20.0  # of floating images: standardised ones stay far below
_SEEDING = threading.Lock()  # threads of one study share the random generators that user factories draw from


class ImageClassification:
    """A classification task: any teacher, any student, data as data sets or arrays.

    Args:
        teacher: The trained network; it is frozen here. Called with normalised images [N, C, H, W], it
            returns logits [N, K].
        student: Called without arguments, it returns a fresh student with the same input and classes. Or it takes
            a `StudentConfig` and returns that student: then the search chooses it, and `with_student` gives the
            task with one of them.
        train: A map-style data set of (image, label), or arrays (images, labels). A data set with random
            transforms of its own is read anew in every epoch and asks the teacher online.
        val: Like `train`. None cuts a stratified part from `train`. Validation data choose the recipe.
        test: Like `train`; read once, for the final result.
        num_classes: K; None takes it from the labels.
        normalize: "auto" standardises uint8 images with the statistics of `train` and leaves floats alone;
            a pair (mean, std), per channel, in units of images in [0, 1]; None only scales uint8 to [0, 1].
            It has to be what the teacher was trained with.
        augment: "none", "shift", "crop-flip", "shift-cutout", "crop-flip-cutout", or "auto": crop-flip for colour
            images of 16 pixels and more, else shift. Data sets with random transforms of their own are not augmented
            again.
        batch_size: Images per step.
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        lr: Peak learning rate; each cosine cycle starts there.
        weight_decay: L2 penalty.
        teacher_layer: Name of the teacher's module whose output maps [N, C, H, W] are compared; None finds it by a
            dry run (the last block that is at least 4x4; see `layers`).
        student_layer: Name of the student's, likewise.
        val_share: The part of `train` that becomes `val` when there is none; in (0, 1).
        views: Augmented versions of each image whose teacher outputs are stored; epoch e shows view
            e mod `views`. Without augmentation there is one.
        device: "auto", "cpu", "cuda", ...
        precision: Of the students' training: "float32", "tf32", "bfloat16", or "auto": bfloat16 where the device and
            the network gain from it, see `choose_precision`. Weights, losses, scores and stored knowledge are float32.
        deterministic: Use deterministic algorithms wherever torch has them, and float32.
        student_name: Name of the student in tables and recipe files; None takes it from its class.
        teacher_name: Name of the teacher in recipe cards; None likewise.
        data_name: Name of the data set in recipe cards.
        cache_dir: Folder in which decoded images of data sets are kept for the next time, see `as_image_set`.

    Raises:
        ValueError: For data, layers, sizes or class counts that do not fit together.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: Callable[[], nn.Module] | Callable[[StudentConfig], nn.Module],
        train: Any,
        val: Any = None,
        test: Any = None,
        *,
        num_classes: int | None = None,
        normalize: Literal["auto"] | tuple[Sequence[float], Sequence[float]] | None = "auto",
        augment: str = "auto",
        batch_size: int = 128,
        optimizer: str = "sgd",
        lr: float = 0.1,
        weight_decay: float = 5e-4,
        teacher_layer: str | None = None,
        student_layer: str | None = None,
        val_share: float = 0.2,
        views: int = 8,
        device: str = "auto",
        precision: str = "auto",
        deterministic: bool = False,
        student_name: str | None = None,
        teacher_name: str | None = None,
        data_name: str = "data",
        cache_dir: str | Path | None = None,
    ) -> None:
        if not isinstance(teacher, nn.Module):
            raise ValueError(f"teacher is a torch.nn.Module; got {type(teacher).__name__}.")
        if isinstance(student, nn.Module) or not callable(student):
            raise ValueError(
                "student is a function that returns a fresh network, because every trial trains a new one; "
                f"got {type(student).__name__}. Pass `lambda: MyStudent(...)`."
            )
        if optimizer not in OPTIMIZERS:
            raise suggest_name("optimizer", optimizer, OPTIMIZERS)
        if augment != "auto" and augment not in AUGMENTATIONS:
            raise suggest_name("augmentation", augment, ["auto", *AUGMENTATIONS])
        for name, value, kind in (("batch_size", batch_size, int), ("lr", lr, int | float), ("views", views, int)):
            if not isinstance(value, kind) or not value > 0:
                whole = "a whole number" if kind is int else "a number"
                raise ValueError(f"{name} must be {whole} > 0; got {value!r}.")
        self.batch_size, self.optimizer, self.lr, self.weight_decay = batch_size, optimizer, lr, weight_decay
        self.device = resolve_device(device)
        if self.device.type == "meta":
            raise ValueError("The device 'meta' has shapes and no numbers: nothing can be trained on it.")
        self.precision, self.deterministic = precision, deterministic
        self.precision_of(teacher)  # a wrong one is refused here
        self._student_factory = student
        self.teacher_name, self.data_name = teacher_name or type(unwrap(teacher)).__name__, data_name

        self.train_set = as_image_set(train, cache_dir=cache_dir)
        self.test_set = as_image_set(test, cache_dir=cache_dir) if test is not None else None
        if val is not None:
            self.val_set = as_image_set(val, cache_dir=cache_dir)
        else:
            kept, cut = stratified_split(self.train_set.labels, val_share, seed=derive_seed("validation split"))
            self.train_set, self.val_set = self.train_set.subset(kept), self.train_set.subset(cut)
        self.num_classes = self._count_classes(num_classes)
        self.image_shape: tuple[int, int, int] = self.train_set.shape

        self.normalizer = self._create_normalizer(normalize)
        self.augmentation = create_augmentation("none" if self.is_streaming else augment, self.image_shape)
        self._view_table: tuple[int, Tensor] | None = None
        self.views = 1 if self.augmentation.name == "none" and not self.is_streaming else views

        self._check(teacher, "teacher")
        self.teacher_layer = _tap(teacher, self._example, teacher_layer, "teacher")
        self._place(teacher)
        self.student_config: StudentConfig | None = None
        self.student_name = student_name or _name_of(student)
        self._wanted_layer = student_layer
        self.is_open = _takes_config(student)
        if not self.is_open:
            self._set_student(cast(Callable[[], nn.Module], student), student_name)
        if self.is_streaming:
            logger.warning(
                "The training data change between two reads (random transforms of their own): the teacher is "
                "asked online in every step. Pass plain images and augment=... to store its outputs once."
            )

    def __repr__(self) -> str:
        parts = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        sizes = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if part is not None)
        return f"<{type(self).__name__}: {sizes}; {self.num_classes} classes; {self.layers()}>"

    @property
    def is_streaming(self) -> bool:
        """Whether the training images change between two reads, so that no view of them can be stored."""
        return isinstance(self.train_set, StreamingSet) and self.train_set.is_random

    def with_student(self, student: StudentConfig) -> ImageClassification:
        """Give the task with one of the students that its factory builds; everything else is shared.

        Raises:
            ValueError: If the factory cannot build it, it does not take the images, or has other outputs.
        """
        if not self.is_open:
            raise ValueError(
                "This task has one student. For a search that chooses it, pass a function that takes a StudentConfig "
                "as `student`."
            )
        closed = copy.copy(self)
        closed.is_open, closed.student_config = False, student
        factory = cast(Callable[[StudentConfig], nn.Module], self._student_factory)
        closed._set_student(functools.partial(factory, student), student_label(student))
        return closed

    def draft_student(self, student: StudentConfig) -> nn.Module:
        """Build one of the students of an open task to look at what it costs; `with_student` checks it as well."""
        return cast(Callable[[StudentConfig], nn.Module], self._student_factory)(student)

    def for_recipe(self, recipe: Recipe) -> ImageClassification:
        """Give the task with the student of a recipe; a task with one student is taken as it is.

        Raises:
            ValueError: If the student is still to be chosen, and the recipe has none, or one that cannot be built.
        """
        if not self.is_open:
            return self
        if recipe.student is None:
            raise ValueError(f"The student of this task is to be chosen, but the recipe {recipe} names none.")
        return self.with_student(recipe.student)

    def move_to(self, device: str) -> None:
        """Put teacher and images on another device, where they are trained on from now on.

        What "auto" precision was on another kind of device it stays: it is part of what a study is about.

        Raises:
            ValueError: If there is no such device.
        """
        target = resolve_device(device)
        if target.type != self.device.type and self.precision == "auto":
            chosen = self.precision_of(self.teacher).name if self.is_open else self._student_precision
            if chosen == "float32" or not self.is_open:  # of open tasks a study knows only what was asked for by name
                self.precision = chosen
        self.device = target
        self._place(self.teacher)

    def make_student(self, seed: int) -> nn.Module:
        """Create a fresh student whose initial weights depend on `seed` alone.

        Raises:
            ValueError: If the task has no single student, or its factory returns something else.
        """
        if self.is_open:
            raise ValueError("The student of this task is still to be chosen: use task.with_student(config).")
        with _SEEDING, seeded(seed):
            student = cast(Callable[[], nn.Module], self._student_factory)()
        if not isinstance(student, nn.Module):
            raise ValueError(f"student has to return a torch.nn.Module; it returned {type(student).__name__}.")
        return student

    def precision_of(self, model: nn.Module) -> Precision:
        """Give the precision in which a student, or a teacher that is asked online, runs."""
        return choose_precision(self.precision, self.device, model, deterministic=self.deterministic)

    def settings(self) -> AbstractContextManager[None]:
        """Put the settings of torch that go with the precision in place for this process, and restore them.

        Searches and `distill` do so; around `study.optimize` it is for you to decide.
        """
        return self.precision_of(self.teacher).settings()

    def view_table(self, view: int) -> Tensor:
        """Give the augmentation of every training image in one view [N, 3]: the same in every process."""
        if self._view_table is None or self._view_table[0] != view:
            drawn = self.augmentation.draw(len(self.train_set), seed=derive_seed("view", view))
            self._view_table = (view, drawn)
        return self._view_table[1]

    def prepare(self, images: Tensor) -> Tensor:
        """Turn raw images into what the networks see."""
        return self.normalizer(images.to(self.device))

    def teacher_knowledge(self, images: Tensor) -> Any:
        """Ask the frozen teacher for its knowledge of prepared images [N, C, H, W]."""
        return self.frozen_teacher(images)

    def observe(self, student: nn.Module) -> Observer:
        """Wrap a student so that a call gives its `Knowledge`, with gradients."""
        return Observer(student, [self.student_layer.name])

    def layers(self) -> str:
        """Say which maps are compared, in one line."""

        def show(layer: TappedLayer) -> str:
            return f"{layer.name} [{', '.join(map(str, layer.shape))}]"

        student = "one for each student" if self.is_open else show(self.student_layer)
        return f"teacher {show(self.teacher_layer)} -> student {student}"

    def preprocessing(self) -> dict[str, Any]:
        """Describe normalisation and augmentation."""
        return {
            "normalize": self.normalizer.describe(),
            "augment": self.augmentation.describe(),
            "views": self.views,
        }

    def describe(self) -> dict[str, Any]:
        """Everything that must not change inside a study, as plain JSON."""
        # Of students still to be chosen each has its own; then only what was asked for by name counts.
        precision = self.precision if self.is_open else self._student_precision
        return {
            **({} if precision in ("auto", "float32") else {"precision": precision}),
            "data": self.train_set.checksum,
            "validation": self.val_set.checksum,
            "test": self.test_set.checksum if self.test_set is not None else "none",
            "classes": self.num_classes,
            "teacher": checksum(self.teacher),
            "teacher_layer": self.teacher_layer.name,
            "student": self.student_name if self.is_open else f"{self.student_name} {self._student_digest}",
            "student_layer": self._wanted_layer or "found" if self.is_open else self.student_layer.name,
            "preprocessing": self.preprocessing(),
            "optimizer": f"{self.optimizer} lr={self.lr:g} wd={self.weight_decay:g} batch={self.batch_size}",
        }

    def facts(self) -> TaskFacts:
        """Say what is distilled, for recipe cards and for comparing tasks."""
        test = 0 if self.test_set is None else len(self.test_set)
        data = DataFacts(
            self.data_name, self.num_classes, self.image_shape, len(self.train_set), len(self.val_set), test
        )
        teacher = NetworkFacts(self.teacher_name, count_parameters(self.teacher), self.teacher_layer.shape)
        if self.is_open:
            return TaskFacts(data, teacher, NetworkFacts(self.student_name))
        return TaskFacts(
            data, teacher, NetworkFacts(self.student_name, self.student_parameters, self.student_layer.shape)
        )

    def _place(self, teacher: nn.Module) -> None:
        self.train_set = make_resident(self.train_set, self.device)
        self.val_set = make_resident(self.val_set, self.device)
        self.teacher = teacher.to(self.device)
        self.frozen_teacher = FrozenTeacher(self.teacher, [self.teacher_layer.name])
        half = self.precision_of(teacher).name == "bfloat16"
        self.online_teacher = FrozenTeacher(self.teacher, [self.teacher_layer.name], fold=half)

    def _set_student(self, factory: Callable[[], nn.Module], name: str | None) -> None:
        """Take a student factory; build one, check it, and find its layer."""
        self._student_factory = factory
        fresh = self.make_student(seed=0)
        self.student_name = name or type(unwrap(fresh)).__name__
        self._check(fresh, "student")
        self.student_layer = _tap(fresh, self._example, self._wanted_layer, "student")
        self._student_precision = self.precision_of(fresh).name
        self.student_parameters = sum(parameter.numel() for parameter in fresh.parameters())
        self._student_digest = hashlib.sha256(repr(fresh).encode()).hexdigest()[:16]

    @property
    def _example(self) -> Tensor:
        return torch.zeros(2, *self.image_shape)

    def _check(self, model: nn.Module, role: str) -> None:
        try:
            check_input(model.cpu(), self.image_shape[0], self.image_shape[1:])
        except ValueError as error:
            raise ValueError(f"The {role} does not take these images: {error}") from None
        classes = _output_classes(model, self._example)
        if classes != self.num_classes:
            missing = " No image has class 0: do the labels start at 1?" if self._starts_late() else ""
            raise ValueError(
                f"The {role} has {classes} outputs, but the data have {self.num_classes} classes. Give the "
                f"{role} {self.num_classes} outputs, or say num_classes={classes} if the labels stop short."
                f"{missing}"
            )

    def _count_classes(self, given: int | None) -> int:
        parts = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        found = {name: part.num_classes for name, part in parts.items() if part is not None}
        classes = max(found.values()) if given is None else given
        if classes < 2:
            source = "the data have" if given is None else "num_classes is"
            raise ValueError(f"Classification needs at least 2 classes; {source} {classes}.")
        for name, part in parts.items():
            if part is None:
                continue
            low, high = int(part.labels.min()), int(part.labels.max())
            if low < 0 or high >= classes:
                raise ValueError(
                    f"The labels of {name} go from {low} to {high}; with {classes} classes they must be in "
                    f"0..{classes - 1}."
                )
            if part.shape != self.train_set.shape:
                raise ValueError(
                    f"The images of {name} are {list(part.shape)} (C, H, W), those of train "
                    f"{list(self.train_set.shape)}; they must agree."
                )
        if len(self.val_set) < MinibatchCKA.MINIMUM:
            raise ValueError(
                f"The validation part has {len(self.val_set)} images; at least {MinibatchCKA.MINIMUM} are needed to "
                "compare representations, and some hundred to tell recipes apart."
            )
        return classes

    def _check_scale(self) -> None:
        """Say so where floating images look as if nobody had scaled them."""
        some = self.train_set.batch(torch.arange(min(len(self.train_set), 64)))[0]
        if (largest := float(some.abs().max())) > UNSCALED:
            logger.warning(
                "The images are floats up to %g, and floats are taken as they are. If the teacher was trained on "
                "scaled ones, scale these, give them as uint8, or pass normalize=(mean, std).",
                largest,
            )

    def _starts_late(self) -> bool:
        return int(self.train_set.labels.min()) > 0

    def _create_normalizer(self, normalize: Any) -> Normalizer:
        if normalize == "auto":
            if isinstance(self.train_set, ImageSet) and self.train_set.images.dtype == torch.uint8:
                return Normalizer.fit(self.train_set.images)
            if isinstance(self.train_set, StreamingSet) and self.train_set.holds_bytes:
                sample = torch.linspace(0, len(self.train_set) - 1, min(STATISTICS_IMAGES, len(self.train_set)))
                return Normalizer.fit(self.train_set.batch(sample.long())[0])
            self._check_scale()
            return Normalizer.identity()
        if normalize is None:
            return Normalizer.identity()
        try:
            mean, std = normalize
            normalizer = Normalizer(tuple(map(float, mean)), tuple(map(float, std)))
        except (TypeError, ValueError):
            raise ValueError(
                f'normalize is "auto", None or a pair (mean, std) of one value per channel; got {normalize!r}.'
            ) from None
        channels = self.train_set.shape[0]
        if len(normalizer.mean) != channels or len(normalizer.std) != channels:
            raise ValueError(f"normalize has {len(normalizer.mean)} channels, the images have {channels}.")
        return normalizer


def resolve_device(device: str) -> torch.device:
    """Turn "auto" or a device name into a usable device, or say why it is none."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.zeros(1, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")  # the rest may list everything that torch has
        raise ValueError(f"The device {device!r} cannot be used here: {reason}.") from None
    return resolved


def _tap(model: nn.Module, example: Tensor, name: str | None, role: str) -> TappedLayer:
    if name is None:
        layer = find_layer(model, example)
    else:
        try:
            with evaluating(model), torch.no_grad(), Observer(model, [name]) as observer:
                channels, height, width = observer(example).features[0].shape[1:]
        except TypeError as error:
            raise ValueError(f"{role}_layer={name!r} cannot be tapped: {error}") from None
        layer = TappedLayer(name, (channels, height, width))
    if min(layer.shape[1:]) < 4:
        logger.warning(
            "The tapped map of the %s, %s %s, is smaller than 4x4: part of the search space cannot teach there "
            "and is left out. Choose an earlier layer with %s_layer=...",
            role, layer.name, list(layer.shape), role,
        )  # fmt: skip
    return layer


def _takes_config(student: Callable[..., nn.Module]) -> bool:
    """Whether a student factory has to be given something: the `StudentConfig`."""
    try:
        parameters = inspect.signature(student).parameters.values()
    except (TypeError, ValueError):  # some callables have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


def _name_of(student: Callable[..., nn.Module]) -> str:
    plain = student.func if isinstance(student, functools.partial) else student
    return getattr(plain, "__qualname__", type(plain).__name__)


def _output_classes(model: nn.Module, example: Tensor) -> int:
    with evaluating(model), torch.no_grad():
        try:
            return logits_of(model(example)).shape[1]
        except TypeError as error:
            raise ValueError(str(error)) from None
