"""Whether to store the teacher's knowledge, of what, and where: decided, and told, before anything is computed."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from optuna_kd.registry import suggest_name
from optuna_kd.training.stored import knowledge_key
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import CHUNK

LIMIT = 2 * 2**30  # bytes that are stored without asking
MODES = ("auto", "replay", "aligned", "online")
PLACES = ("auto", "memory", "device", "disk")
HEADER = 2**14  # bytes that header and alignment of a file take at most, for images of up to 100 channels
DEVICE_SHARE = 0.5  # of the free memory of a device; the students need the rest


@dataclass(frozen=True)
class KnowledgePlan:
    """What is to be stored, where, what it takes and from when on it saves time.

    Args:
        mode: "replay", "aligned" or "online".
        place: "memory", "device" or "disk"; "" for online.
        images: Which training images [N]; None for all.
        count: N.
        total: How many training images there are.
        views: How many views of each are stored.
        size: Bytes that stay.
        peak: Bytes while it is built: those that stay, and one chunk of outputs.
        pays_back: Epochs after which fewer forward passes of the teacher were made than without storing.
        epochs: How many are to be trained; None if unknown.
        file: Where on disk.
        exists: Whether this file is there already.
        reason: Why the teacher is asked online.
    """

    mode: str
    place: str = ""
    images: Tensor | None = None
    count: int = 0
    total: int = 0
    views: int = 0
    size: int = 0
    peak: int = 0
    pays_back: float = 0.0
    epochs: float | None = None
    file: Path | None = None
    exists: bool = False
    reason: str = ""

    def __str__(self) -> str:
        if self.mode == "online":
            return f"online: {self.reason}"
        where = f"in half precision in {self.file}" if self.place == "disk" else f"on the {self.place}"
        where = "in memory" if self.place == "memory" else where
        return f"{self.mode}: {self._what()}, {format_bytes(self.size)} {where}; {self._when()}"

    def obstacle(self, limit: int, *, must_pay: bool) -> str | None:
        """Say why this cannot or should not be done, if so.

        Args:
            limit: Bytes that may be stored.
            must_pay: Whether it has to save time.
        """
        if must_pay and self.epochs is not None and self.epochs <= self.pays_back and not self.exists:
            return f"storing {self._what()} would pay back {self._after()}, and {self.epochs:g} are to be trained"
        if self.peak > limit:
            return f"{self._what()} would take {format_bytes(self.peak)}, more than the limit of {format_bytes(limit)}"
        free = self._free()
        if free is not None and self.peak > free and not self.exists:
            what = f"free in {self.file.parent}" if self.file is not None else "to spare on the device"
            return f"{self._what()} would take {format_bytes(self.peak)}, and {format_bytes(free)} are {what}"
        return None

    def _what(self) -> str:
        number = f"{self.count:,}" if self.images is None else f"{self.count:,} of {self.total:,}"
        if self.mode == "aligned":
            return f"the clean view of {number} images, moved and mirrored with them"
        return f"{self.views} view{'s' if self.views > 1 else ''} of {number} images"

    def _when(self) -> str:
        if self.exists:
            return "there already"
        late = self.epochs is not None and self.epochs <= self.pays_back
        return f"pays back {self._after()}" + (f", but {self.epochs:g} are to be trained" if late else "")

    def _after(self) -> str:
        epochs = math.ceil(self.pays_back)
        return f"after {epochs} epoch{'s' if epochs > 1 else ''}"

    def _free(self) -> int | None:
        if self.place == "device" and torch.cuda.is_available():
            return int(DEVICE_SHARE * torch.cuda.mem_get_info()[0])
        if self.file is None:
            return None
        folder = next((folder for folder in self.file.parents if folder.is_dir()), None)
        return None if folder is None else shutil.disk_usage(folder).free


def plan_knowledge(
    task: ImageClassification,
    images: Tensor | None = None,
    *,
    mode: str = "auto",
    epochs: float | None = None,
    limit: int = LIMIT,
    place: str = "auto",
    directory: str | Path | None = None,
) -> KnowledgePlan:
    """Decide what of the teacher's knowledge is stored, and where; see `prepare_knowledge` for the arguments.

    Raises:
        UnknownNameError: For an unknown mode or place.
        ValueError: For arguments that are out of range or do not go together.
    """
    for name, value, known in (("mode", mode, MODES), ("place", place, PLACES)):
        if value not in known:
            raise suggest_name(f"{name} of stored knowledge", value, known)
    if place == "disk" and directory is None:
        raise ValueError("place='disk' needs a directory.")
    if limit < 0 or (epochs is not None and epochs < 0):
        raise ValueError(f"limit (bytes) and epochs cannot be negative; got limit={limit!r}, epochs={epochs!r}.")
    if task.is_streaming:
        return KnowledgePlan("online", reason="the training images change between two reads")
    if mode == "online":
        return KnowledgePlan("online", reason="as asked")
    folder = Path(directory) if directory is not None else None
    obstacle = ""
    for plan in _candidates(task, images, "replay" if mode == "auto" else mode, epochs, place, folder):
        # What is asked for by name is done also where it does not pay; the limit holds for all.
        found = plan.obstacle(limit, must_pay=mode == "auto")
        if found is None:
            return plan
        obstacle = found
    return KnowledgePlan("online", reason=obstacle)


def _candidates(
    task: ImageClassification, images: Tensor | None, mode: str, epochs: float | None, place: str, folder: Path | None
) -> Iterator[KnowledgePlan]:
    """Give what could be stored, best first: more images before fewer, float32 before half precision."""
    total = len(task.train_set)
    trained = total if images is None else len(images)
    views = 1 if mode == "aligned" else task.views
    for chosen in (None, images) if trained < total else (None,):
        count = total if chosen is None else len(chosen)
        table = 0 if chosen is None else 8 * total
        chunk = knowledge_bytes(task, min(max(count, len(task.val_set)), CHUNK), views=1, validation=0)
        on_disk = knowledge_bytes(task, count, views=views, map_bytes=2) + table
        in_memory = knowledge_bytes(task, count, views=views) + table
        file = None if folder is None else folder / file_name(task, mode, chosen)
        exists = file is not None and file.is_file()
        for where in _places(task, place, file, exists):
            yield KnowledgePlan(
                mode, where, chosen, count, total, views,
                size=on_disk if where == "disk" else in_memory,
                peak=on_disk + HEADER if where == "disk" else in_memory + chunk,
                pays_back=views * count / trained,
                epochs=epochs,
                file=file if where == "disk" else None,
                exists=exists and where == "disk",
            )  # fmt: skip


def _places(task: ImageClassification, place: str, file: Path | None, exists: bool) -> Iterator[str]:
    has_device = task.device.type != "cpu"
    if place != "auto":
        yield "memory" if place == "device" and not has_device else place
        return
    if exists:
        yield "disk"
    if has_device:
        yield "device"
    yield "memory"
    if file is not None and not exists:
        yield "disk"


def knowledge_bytes(
    task: ImageClassification,
    images: int | None = None,
    *,
    views: int | None = None,
    map_bytes: int = 4,
    validation: int | None = None,
) -> int:
    """Size in bytes of stored knowledge.

    Args:
        task: The task.
        images: How many training images; None for all.
        views: Of each; None for those of the task.
        map_bytes: For each value of a map: 4, or 2 in half precision; logits always take 4.
        validation: How many validation images; None for all.
    """
    channels, height, width = task.teacher_layer.shape
    per_image = map_bytes * channels * height * width + 4 * task.num_classes
    images = len(task.train_set) if images is None else images
    validation = len(task.val_set) if validation is None else validation
    return per_image * ((task.views if views is None else views) * images + validation)


def file_name(task: ImageClassification, mode: str, images: Tensor | None) -> str:
    """Name the file of some knowledge by everything that it depends on."""
    digest = hashlib.sha256(json.dumps([mode, "half", knowledge_key(task)], sort_keys=True).encode())
    if images is not None:
        digest.update(images.cpu().contiguous().numpy().data)
    return f"knowledge-{mode}-{digest.hexdigest()[:16]}.bin"


def format_bytes(size: int) -> str:
    """Write a size for people."""
    for unit, name in ((2**30, "GB"), (2**20, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 2**10:.1f} kB"
