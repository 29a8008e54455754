"""What a student scores: beside the teacher on validation data, and its plain accuracy."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.models import evaluating
from optuna_kd.models.knowledge import logits_of
from optuna_kd.rewards import Metrics, MinibatchCKA
from optuna_kd.training.offline import TeacherKnowledge, chunks
from optuna_kd.training.precision import Precision
from optuna_kd.training.task import ImageClassification


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
        parts = chunks(len(indices))
        read = task.val_set.read_ahead([indices[part] for part in parts])
        for part, (raw, labels) in zip(parts, read, strict=True):
            images = task.prepare(raw)
            labels = labels.to(task.device)
            with contextlib.nullcontext() if precision is None else precision.autocast():
                known = observer(images)
            taught = (
                task.teacher_knowledge(images)
                if knowledge is None
                else knowledge.validation(indices[part], task.device)
            )
            logits = known.logits.float()
            correct += int((logits.argmax(1) == labels).sum())
            cross_entropy += float(F.cross_entropy(logits, labels, reduction="sum"))
            l1 += float((logits.softmax(1) - taught.logits.softmax(1)).abs().sum())
            cka.update(known.features[0], taught.features[0])
    count = len(indices)
    return Metrics(correct / count, cross_entropy / count, cka.value(), l1 / count, task.num_classes)


@torch.no_grad()
def accuracy(task: ImageClassification, model: nn.Module, part: str) -> float:
    """Share of correct classes of a model on `"val"` or `"test"`, in [0, 1]."""
    data = {"val": task.val_set, "test": task.test_set}[part]
    if data is None:
        raise ValueError("The task has no test data.")
    correct = 0
    with evaluating(model):
        everything = torch.arange(len(data))
        for raw, labels in data.read_ahead([everything[part] for part in chunks(len(data))]):
            correct += int((logits_of(model(task.prepare(raw))).argmax(1).cpu() == labels).sum())
    return correct / len(data)
