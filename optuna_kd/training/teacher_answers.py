"""What the teacher is asked before a search: the pixels of every view, in chunks, and its answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optuna_kd.training.task import ImageClassification

CHUNK = 256  # images per forward pass of the teacher


@dataclass(frozen=True)
class Answer:
    """What the teacher says about one chunk of images.

    Args:
        prefix: Of the arrays that it belongs to: "" for training images, "val_" for validation images.
        row: The first of its rows there; training images are stored view by view.
        features: Maps [B, C, H, W], float32, on the device of the teacher.
        logits: [B, K], likewise.
    """

    prefix: str
    row: int
    features: Tensor
    logits: Tensor


def teacher_answers(task: ImageClassification, indices: Tensor, views: Sequence[int | None]) -> Iterator[Answer]:
    """Ask the teacher about some training images in some views, then about all validation images.

    Args:
        task: The task.
        indices: [N], which training images.
        views: Which views; None stands for the clean images.

    Raises:
        ValueError: If the outputs of the teacher are not finite.
    """
    parts = chunks(len(indices))
    for number, view in enumerate(views):
        batches = [indices[part] for part in parts]
        for part, batch, (raw, _) in zip(parts, batches, task.train_set.read_ahead(batches), strict=True):
            images = task.prepare(raw) if view is None else prepare_view(task, view, batch, raw)
            yield _ask(task, "", number * len(indices) + part.start, images)
    everything = torch.arange(len(task.val_set))
    parts = chunks(len(everything))
    for part, (raw, _) in zip(parts, task.val_set.read_ahead([everything[part] for part in parts]), strict=True):
        yield _ask(task, "val_", part.start, task.prepare(raw))


def _ask(task: ImageClassification, prefix: str, row: int, images: Tensor) -> Answer:
    known = task.teacher_knowledge(images)
    answer = Answer(prefix, row, known.features[0].float(), known.logits.float())
    require_finite(answer.features, answer.logits)
    return answer


def require_finite(maps: Tensor, logits: Tensor) -> None:
    """Refuse what a teacher gives, if anything of it is not finite.

    Raises:
        ValueError: Saying what.
    """
    for name, tensor in (("maps", maps), ("logits", logits)):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"The {name} of the teacher are not finite; check its weights and normalisation.")


def view_images(task: ImageClassification, view: int, indices: Tensor) -> Tensor:
    """Give prepared training images [B, C, H, W] in one view: the same pixels every time, for any batching."""
    return prepare_view(task, view, indices, task.train_set.batch(indices)[0])


def prepare_view(task: ImageClassification, view: int, indices: Tensor, raw: Tensor) -> Tensor:
    """Turn training images, as they are stored or read ahead, into what the networks see of them in one view.

    Args:
        task: The task.
        view: Which view.
        indices: [B], which images they are.
        raw: [B, C, H, W], on any device; the result is on that of the task.
    """
    if task.augmentation.is_identity:
        return task.prepare(raw)
    params = task.view_table(view)[indices]
    return task.augmentation.hide(task.prepare(task.augmentation.apply(raw, params)), params)


def clean_images(task: ImageClassification, indices: Tensor) -> Tensor:
    """Give prepared training images [B, C, H, W] as they are, without augmentation."""
    return task.prepare(task.train_set.batch(indices)[0])


def chunks(count: int) -> list[slice]:
    """Cut `count` images into ranges for forward passes; no range is left with less than 4 images."""
    starts = list(range(0, count, CHUNK))
    if len(starts) > 1 and count - starts[-1] < 4:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]
