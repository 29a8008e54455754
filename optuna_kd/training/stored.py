"""Stored knowledge: what the teacher said before the search, handed out batch by batch during it.

Storing only saves time. Where it was not possible, knowledge of the same mode holds nothing and asks the teacher
about the same pixels in every step, so trainings with either of them compare.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from optuna_kd.models.knowledge import Knowledge
from optuna_kd.training.alignment import align_maps
from optuna_kd.training.knowledge_file import (
    DamagedFileError,
    KnowledgeWriter,
    NotStoredError,
    read_knowledge_bytes,
    read_knowledge_file,
)
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import clean_images, view_images


class KnowledgeMismatchError(ValueError):
    """Stored knowledge belongs to another teacher, split or preprocessing."""


@dataclass(frozen=True)
class TeacherKnowledge:
    """Replay: what the teacher says about every view of the training images and about the validation images.

    Without any rows it asks the teacher whenever it is asked.

    Args:
        task: The task.
        key: What it belongs to: teacher, layer, data, preprocessing.
        features: Maps of the training views [V, N, C, H, W].
        logits: Logits of the training views [V, N, K].
        val_features: Maps of the validation images [M, C, H, W].
        val_logits: Logits of the validation images [M, K].
        rows: Where the outputs for each training image stand [images], -1 for those that it is not about; None if it
            is about all.
        figures: What was measured when it was stored: `rounding`, ‖rounded − exact‖ / ‖exact‖ of the maps in half
            precision; for `AlignedKnowledge` what `AlignmentError` holds.
        file: Where it is mapped from, if it is.
        is_temporary: Whether this file is deleted on `close`, or when the knowledge is let go.
    """

    mode: ClassVar[str] = "replay"

    task: ImageClassification
    key: Mapping[str, str]
    features: Tensor
    logits: Tensor
    val_features: Tensor
    val_logits: Tensor
    rows: Tensor | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    file: Path | None = None
    is_temporary: bool = False

    def __post_init__(self) -> None:
        if self.is_temporary and self.file is not None:
            object.__setattr__(self, "_deletion", weakref.finalize(self, _delete, self.file, os.getpid()))

    @property
    def views(self) -> int | None:
        """V, the number of views: epoch e shows view e mod V. None if every epoch shows a new one."""
        return len(self.logits)

    @property
    def is_stored(self) -> bool:
        """Whether anything is stored; else the teacher is asked in every step."""
        return len(self.val_logits) > 0

    def covers(self, indices: Tensor) -> bool:
        """Tell whether this is about all these training images."""
        return self.rows is None or bool((self.rows[indices] >= 0).all())

    def batch(self, view: int, indices: Tensor, device: torch.device) -> Knowledge:
        """Give the knowledge of some images [B] in one view."""
        if not self.is_stored:
            return self._ask(view_images(self.task, view, indices), device)
        return self._rows_of(view, indices, device)

    def validation(self, indices: Tensor, device: torch.device) -> Knowledge:
        """Give the knowledge of some validation images [B]."""
        if not self.is_stored:
            return self._ask(self.task.prepare(self.task.val_set.batch(indices)[0]), device)
        return Knowledge(
            (self.val_features[indices].to(device, torch.float32),),
            self.val_logits[indices].to(device, torch.float32),
        )

    def check(self, task: ImageClassification) -> None:
        """Refuse knowledge that was made for something else.

        Raises:
            KnowledgeMismatchError: Naming both sides of every difference.
        """
        wanted = knowledge_key(task)
        differences = [
            f"{name}: stored {self.key.get(name)!r}, asked for {value!r}"
            for name, value in wanted.items()
            if self.key.get(name) != value
        ]
        if differences:
            raise KnowledgeMismatchError(
                "This teacher knowledge belongs to something else. "
                + "; ".join(differences)
                + ". Store it again for this task."
            )

    def unstored(self) -> Self:
        """Give the same with nothing stored."""
        return replace(
            self,
            features=self.features[:, :0],
            logits=self.logits[:, :0],
            val_features=self.val_features[:0],
            val_logits=self.val_logits[:0],
            file=None,
            is_temporary=False,
        )

    def save(self, path: str | Path) -> None:
        """Write to one file, atomically: in float32, or as it is where it is mapped from a file.

        Raises:
            OSError: If it cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            if self.file is not None:
                shutil.copyfile(self.file, partial)
            else:
                self._write(partial)
            partial.replace(path)
        except NotStoredError as error:
            raise OSError(f"Cannot write {path}: {error}") from None
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, source: str | Path | np.ndarray, task: ImageClassification) -> TeacherKnowledge:
        """Map a file of either kind of knowledge into memory, or take its content; workers on one machine share it.

        Args:
            source: The file, or its content [bytes].
            task: The task.

        Raises:
            KnowledgeMismatchError: If it belongs to another teacher, split or preprocessing.
            ValueError: If it is no such file, cut short or altered.
        """
        path = None if isinstance(source, np.ndarray) else Path(source)
        try:
            description, arrays = (
                read_knowledge_file(path) if path is not None else read_knowledge_bytes(np.asarray(source))
            )
        except (OSError, DamagedFileError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path or 'What came'} holds no teacher knowledge that `save` wrote: {reason}.") from None
        return knowledge_from(task, description, arrays, file=path)

    def close(self) -> None:
        """Delete the file if it was to be kept for this time only; what is mapped can still be used."""
        if self.is_temporary:
            self._deletion()  # type: ignore[attr-defined]

    def _ask(self, images: Tensor, device: torch.device) -> Knowledge:
        known = self.task.teacher_knowledge(images)
        return Knowledge((known.features[0].to(device, torch.float32),), known.logits.to(device, torch.float32))

    def _rows_of(self, view: int, indices: Tensor, device: torch.device) -> Knowledge:
        if self.rows is not None:
            indices = self.rows[indices]
        return Knowledge(
            (self.features[view, indices].to(device, torch.float32),),
            self.logits[view, indices].to(device, torch.float32),
        )

    def _write(self, path: Path) -> None:
        # Views and images become one dimension, the rows of the file.
        arrays = {"features": self.features.flatten(0, 1), "logits": self.logits.flatten(0, 1)}
        arrays |= {"val_features": self.val_features, "val_logits": self.val_logits}
        arrays |= {} if self.rows is None else {"rows": self.rows}
        shapes = {name: tuple(tensor.shape) for name, tensor in arrays.items()}
        description = {"mode": self.mode, "key": dict(self.key), "views": len(self.logits)}
        writer = KnowledgeWriter(path, shapes, (), {**self.figures, **description})
        try:
            for name, tensor in arrays.items():
                writer.write(name, 0, tensor)
            writer.close()
        finally:
            writer.abandon()


@dataclass(frozen=True)
class AlignedKnowledge(TeacherKnowledge):
    """Aligned: what the teacher says about the clean images, moved and mirrored with them. Approximate.

    `features` and `logits` hold one view, V = 1. Every epoch shows a new view; its logits are those of the clean
    image. `figures` say how far off that is, see `optuna_kd.training.alignment.AlignmentError`.
    """

    mode: ClassVar[str] = "aligned"

    @property
    def views(self) -> None:
        """Every epoch shows a new view."""
        return None

    def batch(self, view: int, indices: Tensor, device: torch.device) -> Knowledge:
        """Give the knowledge of some images [B] in one view."""
        if self.is_stored:
            clean = self._rows_of(0, indices, device)
        else:
            clean = self._ask(clean_images(self.task, indices), device)
        moves, (_, height, width) = self.task.view_table(view)[indices], self.task.image_shape
        maps = align_maps(clean.features[0], moves, self.task.augmentation.pad, (height, width))
        return Knowledge((maps,), clean.logits)


def knowledge_from(
    task: ImageClassification, description: Mapping[str, Any], arrays: Mapping[str, Tensor], **more: Any
) -> TeacherKnowledge:
    """Put arrays together whose rows are views and images, view by view.

    Args:
        task: The task.
        description: `mode`, `key` and `views`; all else are figures.
        arrays: By name; `rows` may be missing, and all others be without rows.
        **more: Other arguments of the class.

    Raises:
        KnowledgeMismatchError: If they belong to another teacher, split or preprocessing.
    """
    figures = dict(description)
    mode, key, views = figures.pop("mode"), figures.pop("key"), figures.pop("views")
    fields: dict[str, Any] = {name: arrays[name] for name in ("val_features", "val_logits", "rows") if name in arrays}
    for name in ("features", "logits"):
        fields[name] = arrays[name].unflatten(0, (views, len(arrays[name]) // views))
    kind = AlignedKnowledge if mode == "aligned" else TeacherKnowledge
    knowledge = kind(task=task, key=key, **fields, figures=figures, **more)
    knowledge.check(task)
    return knowledge


def knowledge_key(task: ImageClassification) -> dict[str, str]:
    """Say what stored knowledge depends on."""
    described = task.describe()
    return {
        "teacher": f"{described['teacher']} at {described['teacher_layer']}",
        "split": f"train {described['data']}, validation {described['validation']}",
        "preprocessing": json.dumps(described["preprocessing"], sort_keys=True),
    }


def _delete(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked process has inherited the order, but not the file
        path.unlink(missing_ok=True)
