"""DisWOT: how well a student suits its teacher, told from untrained networks (Dong et al., CVPR 2023)."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from optuna_kd.distillers.distances import gl2
from optuna_kd.distillers.numerics import EPS, promote, unit
from optuna_kd.models import Observer, student_label, unwrap
from optuna_kd.models.modes import device_of
from optuna_kd.recipe import StudentConfig
from optuna_kd.seeds import derive_seed
from optuna_kd.training.task import ImageClassification

logger = logging.getLogger(__name__)

Role = Literal["teacher", "student"]
Variance = Literal["one", "fan_in"]
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def diswot_score(
    teacher: nn.Module,
    student: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    teacher_layer: str,
    student_layer: str,
    seed: int = 0,
) -> float:
    """Score a student by how alike both networks are before any training: -SP(f_T, f_S) - ICKD(g_T, g_S).

    f are the tapped maps, g the gradients of the cross-entropy with respect to the weights of the last linear layer.
    Both are those of copies with new Gaussian weights (see `reinitialise`) on one batch; `relation_distance` and
    `semantic_distance` compare them. The score is noisy, so average several seeds; and compare it with the number of
    parameters, which orders the 64 ResNets of its authors better (`benchmarks/diswot.py`).

    Args:
        teacher: Maps images to logits [N, K]; trained or not, only its architecture counts. It is not changed.
        student: Likewise, with the same K.
        images: Prepared images [N, C, H, W], two or more.
        labels: [N], int64.
        teacher_layer: Name of the module whose maps before the pooling are compared.
        student_layer: Likewise.
        seed: From which the weights of both networks are drawn, independently of each other.

    Returns:
        The score; higher is better, 0 is the highest there is.

    Raises:
        UnknownNameError: If there is no such layer.
        ValueError: For one image alone, labels that do not fit, a network whose logits do not come from a linear
            layer, or maps or gradients that are not finite.

    Example:
        >>> from optuna_kd.models import create_model
        >>> teacher, student = (create_model(name, num_classes=10) for name in ("resnet14", "resnet8"))
        >>> images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
        >>> diswot_score(teacher, student, images, labels, teacher_layer="layer3", student_layer="layer3") < 0
        True
    """
    taught = look(teacher, images, labels, teacher_layer, role="teacher", seed=seed)
    learnt = look(student, images, labels, student_layer, role="student", seed=seed)
    return _compare(learnt, taught).score(per_class=False)


def rank_students(
    task: ImageClassification,
    students: Iterable[StudentConfig],
    *,
    batch: int = 64,
    repeats: int = 1,
    seed: int = 0,
) -> dict[StudentConfig, float]:
    """Score the students of an open task on the same training images, with the same initial weights of the teacher.

    Deterministic from the seed, in every process. Students that cannot be built are left out, with a warning. If the
    last linear layer of any student is not as wide as the teacher's, all of them are scored by the K x K form of
    `semantic_distance`, because the two forms cannot be compared.

    Args:
        task: A task whose student is still to be chosen.
        students: What its factory builds.
        batch: Images; at most as many as there are.
        repeats: Scores to average, each with another batch and other weights.
        seed: From which batches and weights are drawn.

    Returns:
        The scores, the best first.

    Raises:
        ValueError: For a task with one student, fewer than 2 images or 1 repeat, and as `diswot_score` does, with
            the name of the student.
    """
    if not task.is_open:
        raise ValueError(
            "This task has one student, so there is none to rank. Pass a function that takes a StudentConfig as "
            "`student` of the task, or use diswot_score."
        )
    if batch < 2 or repeats < 1:
        raise ValueError(f"A ranking needs batch >= 2 and repeats >= 1; got batch={batch!r}, repeats={repeats!r}.")
    seeds = [derive_seed(seed, "repeat", number) for number in range(repeats)]
    batches = [_draw_batch(task, batch, drawn) for drawn in seeds]
    taught = [
        look(task.teacher, *given, task.teacher_layer.name, role="teacher", seed=drawn)
        for given, drawn in zip(batches, seeds, strict=True)
    ]
    compared: dict[StudentConfig, list[_Comparison]] = {}
    failures: list[str] = []
    for config in dict.fromkeys(students):
        try:
            closed = task.with_student(config)
            network = closed.make_student(derive_seed(seed, "student"))
        except Exception as error:  # of a user's factory, which may raise anything
            failures.append(f"{config}: {type(error).__name__}: {error}")
            continue
        try:
            compared[config] = [
                _compare(look(network, *given, closed.student_layer.name, role="student", seed=drawn), known)
                for given, drawn, known in zip(batches, seeds, taught, strict=True)
            ]
        except ValueError as error:
            raise ValueError(f"The student {student_label(config)} has no DisWOT score: {error}") from error
    if failures:
        logger.warning("%d students cannot be built and are left out, the first: %s", len(failures), failures[0])
    per_class = any(one.by_channel is None for several in compared.values() for one in several)
    scores = {config: fmean(one.score(per_class) for one in several) for config, several in compared.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Glance:
    """What DisWOT compares of an untrained network on one batch.

    Args:
        maps: [N, C, H, W], of the tapped layer.
        gradient: [K, D], of the cross-entropy with respect to the weights of the last linear layer.
    """

    maps: Tensor
    gradient: Tensor


def look(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    layer: str,
    *,
    role: Role,
    seed: int,
    variance: Variance = "one",
) -> Glance:
    """Read off a copy of a network with new weights what DisWOT compares.

    The arguments are those of `diswot_score` and `reinitialise`, and the errors too.
    """
    if len(images) < 2:
        raise ValueError(f"DisWOT compares relations between samples: it needs two images or more; got {len(images)}.")
    network = reinitialise(model, derive_seed(seed, "diswot", role), variance=variance)
    linear_layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    ran: list[nn.Linear] = []
    for module in linear_layers:
        module.weight.requires_grad_(True)
        module.register_forward_hook(lambda module, *_: ran.append(module))
    with torch.enable_grad(), Observer(network, [layer]) as observe:
        known = observe(images.to(device_of(network)))
        classes = known.logits.shape[1]
        _check_labels(labels, len(images), classes)
        if not ran or ran[-1].out_features != classes:
            found = f"its last one puts out {ran[-1].out_features} values" if ran else "none ran"
            raise ValueError(
                f"DisWOT reads the gradient of a last linear layer that gives the {classes} logits, and this "
                f"{type(network).__name__} ({role}) has none: {found}."
            )
        loss = F.cross_entropy(known.logits, labels.to(known.logits.device))
        (gradient,) = torch.autograd.grad(loss, ran[-1].weight)
    glance = Glance(promote(known.features[0].detach()), promote(gradient))
    for what, values in (("maps", glance.maps), ("gradients", glance.gradient)):
        if not values.isfinite().all():
            raise ValueError(
                f"The {what} of the {role} are not finite with Gaussian weights: check the images for NaN, and "
                "whether a deep network without normalisation lets them grow beyond its number format."
            )
    return glance


def reinitialise(model: nn.Module, seed: int, *, variance: Variance = "one") -> nn.Module:
    """Give a copy of a network with Gaussian weights, ready for one pass without training.

    The weights of convolutions and linear layers are drawn from N(0, 1), layer by layer; their biases are 0.
    Normalisation is in its initial state, scale 1 and shift 0, and uses the statistics of the batch. All other
    modules are in evaluation mode (no dropout), and their parameters stay what they are.

    Paper: "randomly initialised". Here: a variance of 1, as in the authors' code. Batch normalisation cancels it
    everywhere but in the classifier, whose softmax it saturates; the semantic part depends on that.

    Args:
        model: It is not changed; wrappers are left behind.
        seed: Of the draws, which are made on the CPU whatever the device of the model.
        variance: "one", or "fan_in" for 1 / (inputs of the layer), which keeps activations in range where nothing
            normalises them.
    """
    network = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _ConvNd | nn.Linear):
            drawn = torch.randn(module.weight.shape, generator=generator)
            module.weight.copy_(drawn if variance == "one" else drawn / math.sqrt(drawn[0].numel()))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _NORMS):
            module.reset_parameters()
            module.train(isinstance(module, _NormBase))
    return network


def relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how samples relate to each other, SP (Tung and Mori 2019): sum of (Ĝ_S - Ĝ_T)² over N².

    Ĝ is the Gram matrix f fᵀ with rows of length 1.

    Args:
        student: Maps [N, C, H, W], or anything else with N rows.
        teacher: Likewise; only N has to agree.
    """
    # `gl2` averages over the N rows, SP over all N² entries.
    return _compare_rows(student.flatten(1), teacher.flatten(1)) / len(student)


def semantic_distance(student: Tensor, teacher: Tensor, *, per_class: bool = False) -> Tensor:
    """Compare the gradients of the last linear layer, ICKD (Liu et al. 2021) on g viewed as maps [K, D, 1, 1].

    One Gram matrix of channels for each class, rows of length 1: sum of (Ĝ_S - Ĝ_T)² over K·D.

    Args:
        student: g [K, D], of any scale.
        teacher: Likewise.
        per_class: Compare the K x K matrix g gᵀ instead, with rows of length 1, averaged over them. Paper: students as
            wide as the teacher. Here: this for all others, because it does not depend on D.

    Raises:
        ValueError: If K differs, or D does and `per_class` is not set.
    """
    same = len(student) == len(teacher) if per_class else student.shape == teacher.shape
    if not same:
        raise ValueError(
            "Gradients of the last linear layer are [K, D], with the same classes K of both networks and, unless "
            f"per_class=True, the same width D; got student {list(student.shape)} and teacher {list(teacher.shape)}."
        )
    if per_class:
        return _compare_rows(student, teacher)
    (rows_s, signs_s), (rows_t, signs_t) = _signed(student), _signed(teacher)
    # The matrix of a class has rank one: its row i is sign(g_i)·g/‖g‖, or zero. So D rows take one of three values
    # of the difference, and K·D² entries need not be made (16 GB for a ResNet-50 of 1000 classes).
    equal = (signs_s * signs_t == 1).mean(1, dtype=rows_s.dtype) * (rows_s - rows_t).square().sum(1)
    opposite = (signs_s * signs_t == -1).mean(1, dtype=rows_s.dtype) * (rows_s + rows_t).square().sum(1)
    lone = (signs_s.abs() != signs_t.abs()).mean(1, dtype=rows_s.dtype)
    return (equal + opposite + lone).mean()


def _compare_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the Gram matrices of the rows of [R, D_S] and [R, D_T]: mean over rows of the squared difference."""
    return gl2(_scaled(student)[None], _scaled(teacher)[None], norm="row", squared=True)


def _signed(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Give rows of length 1, and signs; a class without gradient has zeros for both."""
    gradient = _scaled(gradient)
    alive = torch.linalg.vector_norm(gradient, dim=1, keepdim=True) > EPS
    return torch.where(alive, unit(gradient), 0), torch.where(alive, gradient.sign(), 0)


def _scaled(x: Tensor) -> Tensor:
    """Divide by the largest entry, so that no floor under norms is met because of the scale of it all."""
    return x / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny)


@dataclass(frozen=True)
class _Comparison:
    """Both parts of a score, the semantic one in both forms; `by_channel` is None where the widths differ."""

    relation: float
    by_class: float
    by_channel: float | None

    def score(self, per_class: bool) -> float:
        semantic = self.by_class if per_class or self.by_channel is None else self.by_channel
        return -(self.relation + semantic)


def _compare(student: Glance, teacher: Glance) -> _Comparison:
    as_wide = student.gradient.shape == teacher.gradient.shape
    return _Comparison(
        float(relation_distance(student.maps, teacher.maps)),
        float(semantic_distance(student.gradient, teacher.gradient, per_class=True)),
        float(semantic_distance(student.gradient, teacher.gradient)) if as_wide else None,
    )


def _draw_batch(task: ImageClassification, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw training images without augmentation, prepared, and their labels."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "diswot", "batch"))
    chosen = torch.randperm(len(task.train_set), generator=generator)[:size]
    images, labels = task.train_set.batch(chosen)
    return task.prepare(images), labels


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count,) or labels.dtype != torch.int64:
        raise ValueError(f"Labels are int64, one for each of {count} images; got {list(labels.shape)}, {labels.dtype}.")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"Labels are in 0..{classes - 1}; got {int(labels.min())}..{int(labels.max())}.")
