"""The teacher: checked before anything is learned from it, and trained first where there is none."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from optuna_kd.data import Normalizer
from optuna_kd.durations import format_seconds
from optuna_kd.models import load_weights, unwrap
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.runner.progress import Reporter
from optuna_kd.seeds import derive_seed
from optuna_kd.training.evaluation import accuracy, teacher_accuracy
from optuna_kd.training.full import save_student
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

logger = logging.getLogger(__name__)


class TeacherError(ValueError):
    """The teacher cannot teach this task."""


def check_teacher(task: ImageClassification) -> float:
    """Measure the teacher on the validation data.

    Returns:
        Its accuracy, in [0, 1].

    Raises:
        TeacherError: If it is not clearly better than guessing the most frequent class, or its outputs are not finite.
    """
    try:
        score = teacher_accuracy(task)
    except ValueError as error:
        raise TeacherError(str(error)) from None
    count = len(task.val_set)
    chance = float(task.val_set.labels.bincount().max()) / count
    from scipy import stats  # takes a second, and only here

    better = stats.binomtest(round(score * count), count, chance, alternative="greater").pvalue < 0.025
    plain = _accuracy_without_normalisation(task)
    if plain > score + 0.05:
        logger.warning(
            "The teacher scores %.1f %% with the normalisation of this task, but %.1f %% on images that are only "
            "scaled to [0, 1]: was it trained without? Then say normalize=None.",
            100 * score, 100 * plain,
        )  # fmt: skip
    if not better and score < 1:
        raise TeacherError(
            f"The teacher scores {100 * score:.1f} % on the validation data; guessing scores {100 * chance:.1f} %. "
            "Likely reasons: it was trained with another normalisation (normalize=...), with the classes in "
            "another order, or the checkpoint belongs to other data."
        )
    return score


def _accuracy_without_normalisation(task: ImageClassification) -> float:
    prepared = task.normalizer
    task.normalizer = Normalizer.identity()
    try:
        return accuracy(task, task.teacher, "val")
    finally:
        task.normalizer = prepared


def trained_teacher(
    create: Callable[[], nn.Module],
    create_task: Callable[[nn.Module, Callable[[], nn.Module]], ImageClassification],
    *,
    name: str,
    epochs: int,
    say: Reporter,
) -> nn.Module:
    """Load a teacher from the cache, or train it on the labels first and keep it there.

    Args:
        create: Gives the untrained network.
        create_task: Gives the task for a teacher and a student; the teacher is trained as its student.
        name: Of the network, for messages and the file.
        epochs: Of its training.
        say: Told what happens.
    """
    task = create_task(create(), create)
    file = teacher_file(task, name, epochs)
    teacher = task.make_student(derive_seed("teacher"))
    if file.is_file():
        try:
            load_weights(teacher, file)
            say.note(f"Teacher {name} from {file}")
            return teacher
        except ValueError as error:
            say.note(f"The cached teacher cannot be used and is trained again: {error}")
    length = f"{epochs} epoch{'s' if epochs > 1 else ''}"
    say.note(f"Training the teacher {name} first: {length} on {len(task.train_set):,} images")
    say.phase("Teacher", epochs)
    schedule = ProxyConfig(epochs=epochs, rungs=(epochs,))
    training = StudentTraining(task, Recipe(), schedule, seed=derive_seed("teacher"))
    started = time.monotonic()
    for epoch in range(epochs):
        losses = training.train_epoch(epoch, cycle=(0, epochs))
        left = (time.monotonic() - started) / (epoch + 1) * (epochs - epoch - 1)
        say.advance(f"loss {losses['total']:.3f}", left=left)
    training.observer.close()
    teacher = unwrap(training.student).cpu()
    trained = f"Teacher trained in {format_seconds(time.monotonic() - started)}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_student(teacher.state_dict(), file)
        say.note(f"{trained}, kept in {file}")
    except OSError as error:
        say.note(f"{trained}; it cannot be kept for the next time: {error}")
    return teacher


def teacher_file(task: ImageClassification, name: str, epochs: int) -> Path:
    """Name the file in the cache of a teacher that was trained as the student of `task`."""
    described: dict[str, Any] = {
        key: value for key, value in task.describe().items() if key not in ("teacher", "teacher_layer", "test")
    }
    text = json.dumps({**described, "epochs": epochs}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return cache_folder() / "teachers" / f"{name.replace('/', '-')}-{digest}.pt"


def cache_folder() -> Path:
    """Where teachers and decoded images are kept: `$OPTUNA_KD_CACHE`, else `~/.cache/optuna_kd`."""
    given = os.environ.get("OPTUNA_KD_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "optuna_kd"
