"""Training one student: cosine cycles that end at rungs, loss rejection, metrics on held-out data."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd import stopping
from optuna_kd.data import StreamingSet
from optuna_kd.distillers import DeadTermError, Distiller
from optuna_kd.models import memory_format
from optuna_kd.models.knowledge import FrozenTeacher, Knowledge
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.rewards import Metrics
from optuna_kd.seeds import derive_seed
from optuna_kd.training.checkpoint import NO_CHECKPOINT, Checkpoint
from optuna_kd.training.evaluation import evaluate
from optuna_kd.training.lesson import Batch, Lesson, MeanTerms, Rung
from optuna_kd.training.memory import in_pieces, memory_guard
from optuna_kd.training.offline import TeacherKnowledge
from optuna_kd.training.optimizer import create_optimizer, learning_rate
from optuna_kd.training.proxy import proxy_images, proxy_student
from optuna_kd.training.randomness import seeded
from optuna_kd.training.ranks import ALONE, Ranks
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.selection import Selection
from optuna_kd.training.sparse import SparseWeights
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.teacher_answers import prepare_view, require_finite

EXPLODED = 3.0  # times ln K, the cross-entropy of guessing
LOWEST_LIMIT = 5.0  # of a cross-entropy: with two classes a few confident mistakes cost more than guessing
TERM_LIMIT = 1e4  # a term above this, or this many times its first value, has left every sensible scale
GRADIENT_NORM = 5.0  # clips student and adapters together, so that no recipe hides in the adapter


class StudentTraining:
    """One student, learning from the labels and, by a recipe, from the teacher.

    Each rung ends one cosine cycle of the learning rate near zero, and the next cycle starts with a warm
    restart: a step schedule that is cut short ranks recipes badly. Everything random derives from `seed`.

    Args:
        task: What is to be distilled.
        recipe: The distiller; one without terms trains on the labels alone.
        proxy: Length, rungs, subset and batches.
        seed: Of this training.
        knowledge: Stored outputs of the teacher; None asks it online.
        checkpoint: Where its state is kept, to go on from there when it is interrupted.
        ranks: The processes that train this student together, each with a slice of every batch (`join_ranks`). They
            are given the same, and rank 0 keeps the checkpoint.
        selection: Told of every epoch; None for proxies, which end at their last one.

    Raises:
        optuna_kd.distillers.InvalidChainError: If the distiller cannot be built on these maps.
        ValueError: If a batch has fewer images than there are ranks.
    """

    def __init__(
        self,
        task: ImageClassification,
        recipe: Recipe,
        proxy: ProxyConfig,
        *,
        seed: int,
        knowledge: TeacherKnowledge | None = None,
        checkpoint: Checkpoint = NO_CHECKPOINT,
        ranks: Ranks = ALONE,
        selection: Selection | None = None,
    ) -> None:
        self.selection = selection
        self.task, self.proxy, self.seed, self.ranks = task, proxy, seed, ranks
        self.checkpoint = checkpoint if ranks.leads else NO_CHECKPOINT
        config = recipe.distiller
        with ranks.together(), memory_guard("building the student"):
            student, maps = proxy_student(task, proxy, seed)
            self.distiller = Distiller(config, [maps], [task.teacher_layer.shape], seed=derive_seed(seed, "distiller"))
            self.distiller.to(task.device)
            self.layout = memory_format(student, task.device)
            self.student = student.to(task.device).to(memory_format=self.layout)
            self.parameters = [*self.student.parameters(), *self.distiller.parameters()]
            names = ["cross_entropy", *(term.name for term in self.distiller.terms), "total"]
            self._exchange = ranks.exchange(self.parameters, names)
        self.observer = task.observe(self.student)
        self.precision, self._teacher_precision = map(task.precision_of, (self.student, task.teacher))
        self.indices, self.val_indices = proxy_images(task, proxy)
        self._validation = knowledge
        covered = knowledge is not None and knowledge.covers(self.indices)
        # With stored knowledge the views repeat, for every recipe alike; without, each epoch shows new ones.
        self._views = knowledge.views if knowledge is not None and covered else None
        # Batch statistics in the teacher depend on the batch, so such a teacher is always asked online.
        self.knowledge = knowledge if covered and config.teacher_batchnorm == "eval" else None
        self._teacher: FrozenTeacher | None = None
        if config.terms and self.knowledge is None:
            self._teacher = task.online_teacher
            if config.teacher_batchnorm == "train":
                self._teacher = FrozenTeacher(task.teacher, [task.teacher_layer.name], "train")
        chosen = recipe.training  # by the search, instead of what the task says
        self.batch_size = chosen.batch_size if chosen is not None else proxy.batch_size or task.batch_size
        self.lr = chosen.lr if chosen is not None else task.lr
        self.steps_per_epoch = max(1, len(self.indices) // self.batch_size)
        batch = self.indices[: self.batch_size]
        self._share = len(ranks.part(batch)) / len(batch)
        self.optimizer = create_optimizer(task, self.parameters, self.lr)
        self.sparse: SparseWeights | None = None
        if proxy.sparsity:
            steps, seed = self.steps_per_epoch * proxy.epochs, derive_seed(seed, "sparse")
            self.sparse = SparseWeights(self.student, proxy.sparsity, steps=steps, seed=seed, regrow=proxy.regrow)
        self._steps = 0
        self.pieces = 1  # into which batches are cut, where memory is short
        self._limit = max(EXPLODED * math.log(task.num_classes), LOWEST_LIMIT)
        self._first: dict[str, float] = {}
        self._epochs = 0  # that are over
        with ranks.together():
            if (state := self.checkpoint.load()) is not None:
                self.load_state_dict(state)
        if (state := ranks.state_of_leader(self.state_dict)) is not None:
            self.load_state_dict(state)

    def run(self, ends: Callable[[Rung], bool] = lambda _: False) -> Iterator[Rung]:
        """Train from rung to rung, giving what the student scores on the validation data at each.

        Args:
            ends: Whether the training is to end at a rung, which is not the last: asked on rank 0, when it is asked for
                the next rung there, and all ranks do as it says.

        Raises:
            LossRejected: If the loss is not finite or explodes; `OutOfMemory`, where the smallest pieces of a batch do
                not fit.
            optuna_kd.distillers.DeadTermError: If a term has no gradient after the first step.
        """
        for event in self.lessons():
            if not isinstance(event, Rung):
                event.learn()
                continue
            yield event
            if event.epoch < self.proxy.epochs and self.ranks.agree(functools.partial(ends, event)):
                return

    def lessons(self) -> Iterator[Lesson | Rung]:
        """Give every step of the training, to be learned by the caller before it asks for the next, and every rung.

        One that goes on from a checkpoint gives only what is left of it.

        Raises:
            LossRejected: If the loss of an epoch explodes, or that on the validation data is not finite.
            TrainingInterrupted: If it was asked to stop.
        """
        # Paper (UniADS): reject L > 3·L₀, the first loss. Here: the cross-entropy alone, against that of guessing,
        # because the weights of the other terms may rise during the training.
        for start, end in itertools.pairwise((0, *self.proxy.rungs)):
            if end <= self._epochs:
                continue
            losses: dict[str, float] = {}
            for epoch in range(max(start, self._epochs), end):
                mean = MeanTerms()
                for lesson in self._lessons_of(epoch, (start, end)):
                    yield lesson
                    mean.add(lesson.terms)
                losses = mean.values()
                if losses["cross_entropy"] > self._limit:
                    raise LossRejected(
                        f"exploding loss: a cross-entropy of {losses['cross_entropy']:.3g} in epoch {epoch + 1}, "
                        f"guessing has {math.log(self.task.num_classes):.3g}"
                    )
                self._epochs = epoch + 1
                if self.selection is not None:
                    self.selection.after_epoch(self.student, self._epochs)
                if self._epochs < end:
                    self._after_epoch(at_rung=False)
            metrics = self.evaluate()
            if not math.isfinite(metrics.cross_entropy):
                raise LossRejected(f"non-finite cross-entropy on the validation data after epoch {end}")
            yield Rung(end, metrics, losses)
            if end < self.proxy.epochs:  # and nobody has ended it there
                self._after_epoch(at_rung=True)

    def _after_epoch(self, *, at_rung: bool) -> None:
        asked = self.ranks.any(stopping.is_asked())
        self.checkpoint.after_epoch(self.state_dict, at_rung=at_rung, asked=asked)

    def state_dict(self) -> dict[str, Any]:
        """Give all that the rest of the training depends on, as tensors and numbers.

        There are no random states: what is drawn in a step derives from the seed and the step.
        """
        return {
            "student": self.student.state_dict(),
            "distiller": self.distiller.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sparse": self.sparse.state_dict() if self.sparse is not None else None,
            "selection": self.selection.state_dict() if self.selection is not None else None,
            "epochs": self._epochs,
            "steps": self._steps,
            "pieces": self.pieces,
            "first": dict(self._first),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` of the same training gave."""
        self.student.load_state_dict(state["student"])
        self.distiller.load_state_dict(state["distiller"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.sparse is not None:
            self.sparse.load_state_dict(state["sparse"])
        if self.selection is not None:
            self.selection.load_state_dict(state["selection"])
        self._epochs, self._steps, self.pieces = state["epochs"], state["steps"], state["pieces"]
        self._first = dict(state["first"])

    def evaluate(self) -> Metrics:
        """Score the student on the validation data, in the precision in which it learns: that of rank 0, and there."""

        def score() -> dict[str, Any]:
            with memory_guard("scoring the validation images"):
                return asdict(evaluate(self.task, self.student, self._validation, self.val_indices, self.precision))

        return Metrics(**self.ranks.agree(score))

    def train_epoch(self, epoch: int, cycle: tuple[int, int]) -> dict[str, float]:
        """Train through one epoch of a cosine cycle (its first epoch, the one after its last).

        Returns:
            The mean of every loss term and of their `total`.
        """
        mean = MeanTerms()
        for terms in self.steps(epoch, cycle):
            mean.add(terms)
        return mean.values()

    def steps(self, epoch: int, cycle: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        """Train through one epoch, step by step; give the loss terms and their `total`, detached."""
        for lesson in self._lessons_of(epoch, cycle):
            lesson.learn()
            yield lesson.terms

    def _lessons_of(self, epoch: int, cycle: tuple[int, int]) -> Iterator[Lesson]:
        self.student.train()
        self.distiller.train()
        order = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        shuffled = self.indices[torch.randperm(len(self.indices), generator=order)]
        size = min(self.batch_size, len(shuffled))
        batches = [self.ranks.part(batch) for batch in shuffled.split(size)[: self.steps_per_epoch]]
        for step, (indices, raw) in enumerate(zip(batches, self._read_ahead(epoch, batches), strict=True)):
            done = epoch + step / self.steps_per_epoch
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.lr, done, cycle)
            yield Lesson(self, epoch, step, indices, done / self.proxy.epochs, raw, self._share)
        self.ranks.unify(self._share, self.student, self.distiller)

    def _read_ahead(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor | None]:
        data = self.task.train_set
        if not isinstance(data, StreamingSet):
            return iter([None] * len(batches))  # chosen when they are needed: that takes no time
        seeds = [derive_seed(self.seed, "stream", epoch, step) for step in range(len(batches))]
        return (raw for raw, _ in data.read_ahead(batches, seeds))

    def learn(self, lesson: Lesson) -> None:
        """Take one step of this training: on its own, or with its other ranks."""
        if self.ranks.size > 1 and self._steps == 0 and self.distiller.config.normalise == "initial":
            self._agree_on_scales(lesson)
        lesson.terms = self._exchange(functools.partial(self._backward, lesson))
        self.update()

    def update(self) -> None:
        """Move the parameters by their gradients."""
        nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM)
        self.optimizer.step()
        if self.sparse is not None:
            self.sparse.after_step(self.optimizer)
        self._steps += 1

    def _backward(self, lesson: Lesson) -> dict[str, Tensor]:
        """Leave the gradients of one batch in the parameters; give the loss terms and their `total`, detached.

        Where memory is short the batch is cut into pieces, whose gradients add up to those of the batch; normalisation
        and terms that compare the images of a batch see one piece at a time.

        Raises:
            OutOfMemory: If pieces of 8 images are too large.
        """
        if self.ranks.rank:  # rank 0 draws as a process on its own does, and the others not the same as it
            self.distiller.reset_generator(lesson.seed())
        terms, self.pieces = in_pieces(functools.partial(self._accumulate, lesson), len(lesson.indices), self.pieces)
        return terms

    def _accumulate(self, lesson: Lesson, count: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        pieces = lesson.indices.chunk(count)
        read = [None] * len(pieces) if lesson.raw is None else lesson.raw.chunk(count)
        for number, (piece, raw) in enumerate(zip(pieces, read, strict=True)):
            # Dropout and its kin draw from the global generators.
            with seeded(lesson.seed(number)):
                batch = self.load(lesson.epoch, lesson.step, piece, raw)
                with self.precision.autocast():
                    known = self.observer(batch.images)
                terms = self.compare(batch, known, lesson.progress)
            total = torch.stack(list(terms.values())).sum()
            self.refuse(terms, float(total.detach()))
            if number == 0:
                self.optimizer.zero_grad(set_to_none=True)
            share = lesson.share * len(piece) / len(lesson.indices)
            (total if share == 1 else share * total).backward()
            for name, value in {**terms, "total": total}.items():
                sums[name] = sums.get(name, 0) + share * value.detach()
        return sums

    def _agree_on_scales(self, lesson: Lesson) -> None:
        """Find the factors that scale each term to a unit gradient, of the whole batch: as on one rank.

        Each rank learns those of its slice in a pass of its own, which leaves no other trace.
        """
        buffers = [*self.student.buffers(), *self.distiller.buffers()]
        before = [buffer.clone() for buffer in buffers]
        drawn = self.distiller.generator.get_state()
        with self.ranks.together():
            self._backward(lesson)
        # Norms of the parts of a mean: each counts by its share, and their squares add up.
        squares = self.ranks.sum((lesson.share / self.distiller.scales).square())
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        self.distiller.generator.set_state(drawn)
        self.distiller.scales.copy_(squares.rsqrt())

    def load(self, epoch: int, step: int, indices: Tensor, raw: Tensor | None = None) -> Batch:
        """Give training images in the view of an epoch.

        Args:
            epoch: Of the training.
            step: Of the epoch.
            indices: Of the images [B].
            raw: These images [B, C, H, W], where they have been read already.
        """
        view = epoch if self._views is None else epoch % self._views
        if raw is None:
            raw, _ = self.task.train_set.batch(indices, derive_seed(self.seed, "stream", epoch, step))
        images = prepare_view(self.task, view, indices, raw)
        labels = self.task.train_set.labels[indices].to(self.task.device)
        return Batch(view, indices, images.contiguous(memory_format=self.layout), labels)

    def ask_teacher(self, batch: Batch) -> Knowledge:
        """Give what the teacher knows of a batch: stored, or from the images that `load` gave."""
        if self.knowledge is not None:
            return self.knowledge.batch(batch.view, batch.indices, self.task.device)
        assert self._teacher is not None
        with self._teacher_precision.autocast():
            return self._teacher(batch.images)

    def compare(self, batch: Batch, known: Knowledge, progress: float) -> dict[str, Tensor]:
        """Give the loss terms of one batch.

        Args:
            batch: That `load` gave.
            known: What the student knows of it.
            progress: Share of the training that is over.

        Raises:
            LossRejected: If the first step has made the loss explode.
            ValueError: If what the teacher gives in the first step is not finite.
            optuna_kd.distillers.DeadTermError: If a term has no gradient after the first step.
        """
        if not self.distiller.config.terms:
            return {"cross_entropy": F.cross_entropy(known.logits.float(), batch.labels)}
        taught = self.ask_teacher(batch)
        if self._steps == 0 and self.knowledge is None:  # what is stored has been looked at
            require_finite(taught.features[0], taught.logits)
        if self._steps == 1:
            if float(cross_entropy := F.cross_entropy(known.logits.detach().float(), batch.labels)) > self._limit:
                # Saturated outputs have no gradient either, but that is not the fault of the term.
                raise LossRejected(f"exploding loss: a cross-entropy of {float(cross_entropy):.3g} after one step")
            # Not at the very first: a head that starts at zero has no gradient before it has moved.
            self._check_terms(known, taught)
        terms: dict[str, Tensor] = self.distiller(known, taught, batch.labels, progress=progress)
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

    def refuse(self, terms: dict[str, Tensor], total: float) -> None:
        """Refuse a step whose loss, the sum of these terms, cannot be used.

        Raises:
            LossRejected: Naming the term.
        """
        if math.isfinite(total) and total < TERM_LIMIT:
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
