"""Training one student: cosine cycles that end at rungs, loss rejection, metrics on held-out data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.data import class_subset, stratified_subset
from optuna_kd.distillers import DeadTermError, Distiller
from optuna_kd.models import evaluating, memory_format
from optuna_kd.models.knowledge import FrozenTeacher, Knowledge, logits_of
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.rewards import Metrics, MinibatchCKA
from optuna_kd.seeds import derive_seed
from optuna_kd.training.memory import is_out_of_memory, memory_guard, release_memory
from optuna_kd.training.offline import TeacherKnowledge, chunks, view_images
from optuna_kd.training.randomness import seeded
from optuna_kd.training.rejection import LossRejected, OutOfMemory
from optuna_kd.training.sparse import SparseWeights
from optuna_kd.training.task import ImageClassification

logger = logging.getLogger(__name__)

EXPLODED = 3.0  # times ln K, the cross-entropy of guessing
LOWEST_LIMIT = 5.0  # of a cross-entropy: with two classes a few confident mistakes cost more than guessing
TERM_LIMIT = 1e4  # a term above this, or this many times its first value, has left every sensible scale
GRADIENT_NORM = 5.0  # clips student and adapters together, so that no recipe hides in the adapter
LEAST_IMAGES = 8  # of a piece of a batch, where memory is short
WARMUP_STEPS = 0.1  # share of the first cycle over which the learning rate rises


@dataclass(frozen=True)
class Rung:
    """A point in a training where it may be stopped: the epoch, and what the student scores there."""

    epoch: int
    metrics: Metrics
    losses: dict[str, float] = field(default_factory=dict)


class StudentTraining:
    """One student, learning from the labels and, by a recipe, from the teacher.

    Each rung ends one cosine cycle of the learning rate near zero, and the next cycle starts with a warm
    restart: a step schedule that is cut short ranks recipes badly. Everything random derives from `seed`.

    Args:
        task: What is to be distilled.
        recipe: The distiller; one without terms trains on the labels alone.
        proxy: Length, rungs and subset.
        seed: Of this training.
        knowledge: Stored outputs of the teacher; None asks it online.

    Raises:
        optuna_kd.distillers.InvalidChainError: If the distiller cannot be built on these maps.
    """

    def __init__(
        self,
        task: ImageClassification,
        recipe: Recipe,
        proxy: ProxyConfig,
        *,
        seed: int,
        knowledge: TeacherKnowledge | None = None,
    ) -> None:
        self.task, self.proxy, self.seed = task, proxy, seed
        config = recipe.distiller
        with memory_guard("building the student"):
            self.distiller = Distiller(
                config,
                [task.student_layer.shape],
                [task.teacher_layer.shape],
                seed=derive_seed(seed, "distiller"),
            ).to(task.device)
            student = task.make_student(derive_seed(seed, "student")).to(task.device)
            self.layout = memory_format(student, task.device)
            self.student = student.to(memory_format=self.layout)
        self.observer = task.observe(self.student)
        self.indices, self.val_indices = proxy_images(task, proxy)
        self._validation = knowledge
        covered = knowledge is not None and knowledge.covers(self.indices)
        # With stored knowledge the views repeat, for every recipe alike; without, each epoch shows new ones.
        self._views = knowledge.views if knowledge is not None and covered else None
        # Batch statistics in the teacher depend on the batch, so such a teacher is always asked online.
        self.knowledge = knowledge if covered and config.teacher_batchnorm == "eval" else None
        self._teacher: FrozenTeacher | None = None
        if config.terms and self.knowledge is None:
            self._teacher = FrozenTeacher(task.teacher, [task.teacher_layer.name], batchnorm=config.teacher_batchnorm)
        chosen = recipe.training  # by the search, instead of what the task says
        self.batch_size = chosen.batch_size if chosen is not None else task.batch_size
        self.lr = chosen.lr if chosen is not None else task.lr
        self.steps_per_epoch = max(1, len(self.indices) // self.batch_size)
        self.parameters = [*self.student.parameters(), *self.distiller.parameters()]
        self.optimizer = _create_optimizer(task, self.parameters, self.lr)
        self.sparse: SparseWeights | None = None
        if proxy.sparsity:
            steps, seed = self.steps_per_epoch * proxy.epochs, derive_seed(seed, "sparse")
            self.sparse = SparseWeights(self.student, proxy.sparsity, steps=steps, seed=seed, regrow=proxy.regrow)
        self._steps, self._pieces = 0, 1
        self._limit = max(EXPLODED * math.log(task.num_classes), LOWEST_LIMIT)
        self._first: dict[str, float] = {}

    def run(self) -> Iterator[Rung]:
        """Train from rung to rung, giving what the student scores on the validation data at each.

        Raises:
            LossRejected: If the loss is not finite or explodes; `OutOfMemory`, where the smallest pieces of a batch do
                not fit.
            optuna_kd.distillers.DeadTermError: If a term has no gradient after the first step.
        """
        for epoch, losses in self.train():
            metrics = self.evaluate()
            if not math.isfinite(metrics.cross_entropy):
                raise LossRejected(f"non-finite cross-entropy on the validation data after epoch {epoch}")
            yield Rung(epoch, metrics, losses)

    def evaluate(self) -> Metrics:
        """Score the student on the validation data."""
        with memory_guard("scoring the validation images"):
            return evaluate(self.task, self.student, self._validation, self.val_indices)

    def train(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Train from rung to rung without judging; give the epoch and the mean losses of the last one."""
        # Paper (UniADS): reject L > 3·L₀, the first loss. Here: the cross-entropy alone, against that of guessing,
        # because the weights of the other terms may rise during the training.
        limit = self._limit
        start = 0
        for end in self.proxy.rungs:
            losses: dict[str, float] = {}
            for epoch in range(start, end):
                losses = self.train_epoch(epoch, cycle=(start, end))
                if losses["cross_entropy"] > limit:
                    raise LossRejected(
                        f"exploding loss: a cross-entropy of {losses['cross_entropy']:.3g} in epoch {epoch + 1}, "
                        f"guessing has {math.log(self.task.num_classes):.3g}"
                    )
            start = end
            yield end, losses

    def train_epoch(self, epoch: int, cycle: tuple[int, int]) -> dict[str, float]:
        """Train through one epoch of a cosine cycle (its first epoch, the one after its last).

        Returns:
            The mean of every loss term and of their `total`.
        """
        sums: dict[str, Tensor] = {}
        for terms in self.steps(epoch, cycle):
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return {name: float(value) / self.steps_per_epoch for name, value in sums.items()}

    def steps(self, epoch: int, cycle: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        """Train through one epoch, step by step; give the loss terms and their `total`, detached."""
        self.student.train()
        self.distiller.train()
        order = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        shuffled = self.indices[torch.randperm(len(self.indices), generator=order)]
        size = min(self.batch_size, len(shuffled))
        for step in range(self.steps_per_epoch):
            batch = shuffled[step * size : (step + 1) * size]
            done = epoch + step / self.steps_per_epoch
            self._set_learning_rate(done, cycle)
            terms = self._backward(epoch, step, batch, progress=done / self.proxy.epochs)
            nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM)
            self.optimizer.step()
            if self.sparse is not None:
                self.sparse.after_step(self.optimizer)
            self._steps += 1
            yield terms

    def _backward(self, epoch: int, step: int, batch: Tensor, progress: float) -> dict[str, Tensor]:
        """Leave the gradients of one batch in the parameters; give the loss terms and their `total`, detached.

        Where memory is short the batch is cut into pieces, whose gradients add up to those of the batch; normalisation
        and terms that compare the images of a batch see one piece at a time.

        Raises:
            OutOfMemory: If pieces of 8 images are too large.
        """
        while True:
            try:
                return self._accumulate(epoch, step, batch, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            release_memory()  # here, where the error does not hold the tensors any more
            self._pieces *= 2
            images = -(-len(batch) // self._pieces)
            if images < LEAST_IMAGES:
                raise OutOfMemory(f"out of memory with {2 * images} of {len(batch)} images at a time")
            logger.warning("Out of memory: going on with %d of the %d images of a batch at a time.", images, len(batch))

    def _accumulate(self, epoch: int, step: int, batch: Tensor, progress: float) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for number, piece in enumerate(batch.chunk(self._pieces)):
            # Dropout and its kin draw from the global generators.
            with seeded(derive_seed(self.seed, "step", epoch, step, *([number] if number else []))):
                terms = self._forward(epoch, step, piece, progress)
            total = torch.stack(list(terms.values())).sum()
            self._reject(terms, total)
            if number == 0:
                self.optimizer.zero_grad(set_to_none=True)
            share = len(piece) / len(batch)
            (total if self._pieces == 1 else share * total).backward()
            for name, value in {**terms, "total": total}.items():
                sums[name] = sums.get(name, 0) + share * value.detach()
        return sums

    def load(self, epoch: int, step: int, batch: Tensor) -> tuple[int, Tensor, Tensor]:
        """Give the view of an epoch, and prepared images [B, C, H, W] and labels [B] of one batch in it.

        Args:
            epoch: Of the training.
            step: Of the epoch.
            batch: Indices of training images [B].
        """
        view = epoch if self._views is None else epoch % self._views
        if self.task.is_streaming:
            raw, labels = self.task.train_set.batch(batch, derive_seed(self.seed, "stream", epoch, step))
            images, labels = self.task.prepare(raw), labels.to(self.task.device)
        else:
            images = view_images(self.task, view, batch)
            labels = self.task.train_set.labels[batch].to(self.task.device)
        return view, images.contiguous(memory_format=self.layout), labels

    def ask_teacher(self, view: int, batch: Tensor, images: Tensor) -> Knowledge:
        """Give what the teacher knows of a batch: stored, or from the images that `load` gave."""
        if self.knowledge is not None:
            return self.knowledge.batch(view, batch, self.task.device)
        assert self._teacher is not None
        return self._teacher(images)

    def _forward(self, epoch: int, step: int, batch: Tensor, progress: float) -> dict[str, Tensor]:
        view, images, labels = self.load(epoch, step, batch)
        known = self.observer(images)
        if not self.distiller.config.terms:
            return {"cross_entropy": F.cross_entropy(known.logits.float(), labels)}
        taught = self.ask_teacher(view, batch, images)
        if self._steps == 1:
            if float(cross_entropy := F.cross_entropy(known.logits.detach().float(), labels)) > self._limit:
                # Saturated outputs have no gradient either, but that is not the fault of the term.
                raise LossRejected(f"exploding loss: a cross-entropy of {float(cross_entropy):.3g} after one step")
            # Not at the very first: a head that starts at zero has no gradient before it has moved.
            self._check_terms(known, taught)
        terms: dict[str, Tensor] = self.distiller(known, taught, labels, progress=progress)
        return terms

    def _check_terms(self, known: Knowledge, taught: Knowledge) -> None:
        # The distiller looks from the student's outputs on; whether these depend on its weights shows here.
        detached = [
            term
            for term in self.distiller.terms
            if term.config.weight and not self.distiller.source_of(term, known).requires_grad
        ]
        if detached:
            raise DeadTermError({term.name: f"({term}) compares outputs without gradient" for term in detached})
        self.distiller.check_terms(known, taught)

    def _reject(self, terms: dict[str, Tensor], total: Tensor) -> None:
        value = float(total.detach())
        if math.isfinite(value) and value < TERM_LIMIT:
            return
        for name, term in terms.items():
            size = float(term.detach())
            if not math.isfinite(size):
                raise LossRejected(f"non-finite loss: {name} is {size}")
            limit = TERM_LIMIT
            if self.distiller.config.normalise == "initial" and name != "cross_entropy":
                limit *= max(1.0, self._first.setdefault(name, size))  # scaled to a unit gradient, it may begin large
            if size > limit:
                raise LossRejected(f"exploding loss: {name} is {size:.3g}, above {limit:g}")

    def _set_learning_rate(self, done: float, cycle: tuple[int, int]) -> None:
        start, end = cycle
        share = (done - start) / (end - start)
        rise = WARMUP_STEPS if start == 0 else 0.0
        factor = share / rise if share < rise else 0.5 * (1 + math.cos(math.pi * (share - rise) / (1 - rise)))
        # Never zero: the very first step has to move the student.
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * max(factor, 0.01)


def proxy_images(task: ImageClassification, proxy: ProxyConfig) -> tuple[Tensor, Tensor]:
    """Choose the training and validation images of a proxy.

    They are the same for every trial of a task, so that recipes are compared and not subsets. A proxy on
    some of the classes is judged on these classes alone.
    """
    train, val = torch.arange(len(task.train_set)), torch.arange(len(task.val_set))
    if proxy.subset == 1:
        return train, val
    seed = derive_seed("proxy subset")
    if proxy.subset_by == "images":
        return torch.as_tensor(stratified_subset(task.train_set.labels, proxy.subset, seed)), val
    train = torch.as_tensor(class_subset(task.train_set.labels, proxy.subset, seed))
    val = val[torch.isin(task.val_set.labels, task.train_set.labels[train].unique())]
    if len(val) < MinibatchCKA.MINIMUM:
        raise ValueError(
            f"A proxy on {proxy.subset:g} of the classes leaves {len(val)} validation images; at least "
            f"{MinibatchCKA.MINIMUM} are needed. Use a larger subset."
        )
    return train, val


@torch.no_grad()
def evaluate(
    task: ImageClassification,
    student: nn.Module,
    knowledge: TeacherKnowledge | None = None,
    indices: Tensor | None = None,
) -> Metrics:
    """Score a student in evaluation mode on validation images (by default all), beside the teacher."""
    student.eval()
    cka = MinibatchCKA()
    correct, cross_entropy, l1 = 0, 0.0, 0.0
    indices = torch.arange(len(task.val_set)) if indices is None else indices
    with task.observe(student) as observer:
        for part in chunks(len(indices)):
            raw, labels = task.val_set.batch(indices[part])
            images = task.prepare(raw)
            labels = labels.to(task.device)
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
        for chunk in chunks(len(data)):
            raw, labels = data.batch(torch.arange(len(data))[chunk])
            correct += int((logits_of(model(task.prepare(raw))).argmax(1).cpu() == labels).sum())
    return correct / len(data)


def _create_optimizer(task: ImageClassification, parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    if task.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=task.weight_decay, fused=True)
    sgd = torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=task.weight_decay, fused=True)
    # A term whose weight rises from zero brings its adapter in at a later step, and the fused step takes either
    # all buffers or none. A buffer of zeros is what the first step starts from anyway.
    for parameter in parameters:
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd
