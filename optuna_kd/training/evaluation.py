"""What a student scores: beside the teacher on validation data, and its plain accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models import evaluating
from optuna_kd.models.knowledge import logits_of
from optuna_kd.rewards import Metrics, MinibatchCKA
from optuna_kd.training.memory import in_pieces
from optuna_kd.training.offline import TeacherKnowledge, chunks
from optuna_kd.training.precision import Precision
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import require_finite

Outputs = tuple[Tensor, ...]


class Look:
    """Runs a network on chunks of images; where memory is short in pieces of them, and the next chunks as well.

    Args:
        network: Called with images [N, C, H, W]; gives tensors whose first dimension is N.
    """

    def __init__(self, network: Callable[[Tensor], Outputs]) -> None:
        self.network, self.pieces = network, 1

    def __call__(self, images: Tensor) -> Outputs:
        """Give the outputs for all images.

        Raises:
            OutOfMemory: If pieces of 8 images are too large.
        """
        outputs, self.pieces = in_pieces(lambda count: self._in_pieces(images.chunk(count)), len(images), self.pieces)
        return outputs

    def _in_pieces(self, pieces: tuple[Tensor, ...]) -> Outputs:
        found = [self.network(piece) for piece in pieces]
        return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found, strict=True)))


@torch.no_grad()
def evaluate(
    task: ImageClassification,
    student: nn.Module,
    knowledge: TeacherKnowledge | None = None,
    indices: Tensor | None = None,
    precision: Precision | None = None,
) -> Metrics:
    """Score a student in evaluation mode on validation images (by default all), beside the teacher.

    Args:
        task: The task.
        student: Is left in evaluation mode.
        knowledge: The teacher's stored outputs; None asks it.
        indices: Of the validation images [N]; None for all.
        precision: In which the student runs; None for float32. The scores themselves are always float32 or better.
    """
    student.eval()
    cka = MinibatchCKA()
    correct, cross_entropy, l1 = 0, 0.0, 0.0
    indices = torch.arange(len(task.val_set)) if indices is None else indices
    with task.observe(student) as observer:

        def observed(images: Tensor) -> Outputs:
            with contextlib.nullcontext() if precision is None else precision.autocast():
                known = observer(images)
            return known.features[0], known.logits

        look, ask = Look(observed), Look(_teacher_of(task))
        parts = chunks(len(indices))
        read = task.val_set.read_ahead([indices[part] for part in parts])
        for part, (raw, labels) in zip(parts, read, strict=True):
            images = task.prepare(raw)
            labels = labels.to(task.device)
            maps, logits = look(images)
            if knowledge is None:
                taught_maps, taught = ask(images)
            else:
                known = knowledge.validation(indices[part], task.device)
                taught_maps, taught = known.features[0], known.logits
            logits = logits.float()
            correct += int((logits.argmax(1) == labels).sum())
            cross_entropy += float(F.cross_entropy(logits, labels, reduction="sum"))
            l1 += float((logits.softmax(1) - taught.softmax(1)).abs().sum())
            cka.update(maps, taught_maps)
    count = len(indices)
    return Metrics(correct / count, cross_entropy / count, cka.value(), l1 / count, task.num_classes)


@torch.no_grad()
def accuracy(task: ImageClassification, model: nn.Module, part: str) -> float:
    """Share of correct classes of a model on `"val"` or `"test"`, in [0, 1]."""
    with evaluating(model):
        return _accuracy(task, part, Look(lambda images: (logits_of(model(images)),)))


@torch.no_grad()
def teacher_accuracy(task: ImageClassification) -> float:
    """Share of correct classes of the teacher on the validation data, in [0, 1].

    Raises:
        ValueError: If anything that it gives there is not finite.
    """
    ask = _teacher_of(task)

    def checked(images: Tensor) -> Outputs:
        maps, logits = ask(images)
        require_finite(maps, logits)
        return (logits,)

    return _accuracy(task, "val", Look(checked))


def _teacher_of(task: ImageClassification) -> Callable[[Tensor], Outputs]:
    def ask(images: Tensor) -> Outputs:
        known = task.teacher_knowledge(images)
        return known.features[0], known.logits

    return ask


def _accuracy(task: ImageClassification, part: str, look: Look) -> float:
    data = {"val": task.val_set, "test": task.test_set}[part]
    if data is None:
        raise ValueError("The task has no test data.")
    correct, everything = 0, torch.arange(len(data))
    for raw, labels in data.read_ahead([everything[part] for part in chunks(len(data))]):
        (logits,) = look(task.prepare(raw))
        correct += int((logits.argmax(1).cpu() == labels).sum())
    return correct / len(data)
