"""Whether to store the teacher's knowledge, of what, and where: decided, and told, before anything is computed."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from optuna_kd.registry import suggest_name
from optuna_kd.training.stored import knowledge_key
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import CHUNK

LIMIT = 2 * 2**30  # bytes that are stored without asking
MODES = ("auto", "replay", "aligned", "online")
PLACES = ("auto", "disk", "device", "memory")
HEADER = 2**14  # bytes that header and alignment of a file take at most, for images of up to 100 channels


@dataclass(frozen=True)
class KnowledgeChoices:
    """What may be stored of the teacher's knowledge, and where.

    Args:
        mode: "replay", "aligned" (approximate), "online", or "auto", which is exact: replay of all training images, or
            else of those that are trained on, where that fits `limit` and pays back, that is, where fewer views are
            stored than would be asked for in `epochs`; else online.
        limit: Bytes that may be stored, those of the validation images and one chunk of outputs included.
        directory: For files; None for none.
        keep: Whether a file that is written here stays; else it is deleted on `close` or when this process ends.
        place: "disk" (half precision, memory-mapped, in `directory`), "device" (float32, by the teacher), "memory"
            (float32), or "auto": the disk where there is a directory, else the device, else the memory.
        epochs: How many will be trained on these images altogether; None if that is not known, but many.
        wait: Seconds to wait for another process that is storing the same.

    Raises:
        UnknownNameError: For an unknown mode or place.
        ValueError: For arguments that are out of range or do not go together.
    """

    mode: str = "auto"
    limit: int = LIMIT
    directory: str | Path | None = None
    keep: bool = True
    place: str = "auto"
    epochs: float | None = None
    wait: float = 600.0

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, MODES), ("place", self.place, PLACES)):
            if value not in known:
                raise suggest_name(f"{name} of stored knowledge", value, known)
        if self.place == "disk" and self.directory is None:
            raise ValueError("place='disk' needs a directory.")
        if self.limit < 0 or (self.epochs is not None and self.epochs < 0):
            raise ValueError(
                f"limit (bytes) and epochs cannot be negative; got limit={self.limit!r}, epochs={self.epochs!r}."
            )


DEFAULT = KnowledgeChoices()


@dataclass(frozen=True)
class KnowledgePlan:
    """What is to be stored, where, what it takes and from when on it saves time.

    Args:
        mode: "replay", "aligned" or "online".
        place: "disk", "device" or "memory"; "" stores nothing.
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
        reason: Why nothing is stored.
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
        if not self.place:
            what = "the clean images" if self.mode == "aligned" else f"the same {self.views} views of each image"
            return f"{self.mode}: the teacher is asked in every step, about {what}: {self.reason}"
        where = f"in half precision in {self.file}" if self.place == "disk" else self.where
        return f"{self.mode}: {self._what()}, {format_bytes(self.size)} {where}; {self._when()}"

    @property
    def where(self) -> str:
        """The place, in words."""
        if self.file is not None:
            return f"in {self.file.parent}"
        return "in memory" if self.place == "memory" else f"on the {self.place}"

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


def plan_knowledge(
    task: ImageClassification, choices: KnowledgeChoices = DEFAULT, images: Tensor | None = None
) -> KnowledgePlan:
    """Decide what of the teacher's knowledge is stored, and where.

    The mode, and the images that it holds for, decide what students see. So they follow from the arguments, never from
    what is free on a disk or a device: a study that goes on later, or elsewhere, goes on with the same views.

    Args:
        task: The task.
        choices: What may be stored, and where.
        images: Indices [N] of the training images that the proxies see; None for all.
    """
    if choices.mode == "aligned" and task.augmentation.cut:
        raise ValueError(
            "Aligned knowledge cannot follow cutout: what the teacher would say without the hidden part is not in its "
            "answer about the whole image. Store views (replay), ask online, or augment without cutout."
        )
    if task.is_streaming:
        return KnowledgePlan("online", reason="the training images change between two reads")
    if choices.mode == "online":
        return KnowledgePlan("online", reason="as asked")
    total = len(task.train_set)
    trained = total if images is None else len(images)
    mode = "replay" if choices.mode == "auto" else choices.mode
    views = 1 if mode == "aligned" else task.views
    obstacle = ""
    for chosen in (None, images) if trained < total else (None,):  # more images before fewer
        count = total if chosen is None else trained
        pays_back = views * count / trained
        plan = KnowledgePlan(mode, "", chosen, count, total, views, pays_back=pays_back, epochs=choices.epochs)
        plan = _placed(task, choices, plan, _places(task, choices)[0])
        # What is asked for by name is done also where it does not pay; the limit holds for all.
        found = plan.obstacle(choices.limit, must_pay=choices.mode == "auto")
        if found is None:
            return plan
        obstacle = found
    return KnowledgePlan("online", reason=obstacle)


def plan_elsewhere(task: ImageClassification, choices: KnowledgeChoices, failed: KnowledgePlan) -> KnowledgePlan:
    """Plan the same views of the same images for the next place, where one has failed; in the end for none."""
    places, reason = _places(task, choices), "there is no room"
    for place in places[places.index(failed.place) + 1 :]:
        plan = _placed(task, choices, failed, place)
        found = plan.obstacle(choices.limit, must_pay=False)
        if found is None:
            return plan
        reason = found
    return replace(failed, place="", size=0, peak=0, file=None, exists=False, reason=reason)


def _places(task: ImageClassification, choices: KnowledgeChoices) -> list[str]:
    """List the places that may be tried, in order."""
    wanted = choices.place
    if wanted == "auto":
        wanted = "device" if choices.directory is None else "disk"
    places = PLACES[PLACES.index(wanted) :]
    return [place for place in places if place != "device" or task.device.type != "cpu"]


def _placed(task: ImageClassification, choices: KnowledgeChoices, plan: KnowledgePlan, place: str) -> KnowledgePlan:
    table = 0 if plan.images is None else 8 * plan.total
    if place == "disk":
        assert choices.directory is not None
        file = Path(choices.directory) / file_name(task, plan.mode, plan.images)
        size = knowledge_bytes(task, plan.count, views=plan.views, map_bytes=2) + table
        return replace(plan, place=place, size=size, peak=size + HEADER, file=file, exists=file.is_file())
    size = knowledge_bytes(task, plan.count, views=plan.views) + table
    chunk = knowledge_bytes(task, min(max(plan.count, len(task.val_set)), CHUNK), views=1, validation=0)
    return replace(plan, place=place, size=size, peak=size + chunk, file=None, exists=False)


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
