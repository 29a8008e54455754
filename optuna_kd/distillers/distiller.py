"""The distiller: the sum of its terms, as a module that anyone's training loop can call."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.distillers.adapters import Adapter, check_shape
from optuna_kd.distillers.dead_terms import DeadTermError, find_dead_terms
from optuna_kd.distillers.numerics import full_precision, promote
from optuna_kd.distillers.terms import Term, build_term, check_size
from optuna_kd.recipe import DistillerConfig
from optuna_kd.seeds import derive_seed

if TYPE_CHECKING:
    from optuna_kd.models.knowledge import Knowledge


class Distiller(nn.Module):
    """Loss terms between a student's and a teacher's knowledge, with the adapters they need.

    Everything that can be wrong with a recipe is found here, before any training. The adapters are trained
    with the student: give `distiller.parameters()` to the optimiser too. The teacher is always detached.

    Args:
        config: The recipe's terms and schedule.
        student_shapes: (C, H, W) of each tapped feature map of the student, in the order of
            `Knowledge.features`; may be empty if no term uses features or embeddings.
        teacher_shapes: The same for the teacher; one for each of the student's.
        seed: Determines the initial weights of the adapters and the random masks.

    Raises:
        InvalidChainError: If a term does not fit itself, its knowledge, or the size of the maps.
        UnknownNameError: For an unknown transform, distance or option.
        ValueError: For an option out of range, a layer that is not tapped, or shapes that do not pair up.

    Example:
        >>> from optuna_kd.recipe import Recipe
        >>> config = Recipe.from_string("none|l2*5 + kl@4*1").distiller
        >>> distiller = Distiller(config, [(16, 8, 8)], [(32, 4, 4)])
        >>> [term.name for term in distiller.terms]
        ['features', 'logits']
    """

    scales: Tensor

    def __init__(
        self,
        config: DistillerConfig,
        student_shapes: Sequence[Sequence[int]] = (),
        teacher_shapes: Sequence[Sequence[int]] = (),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(student_shapes) != len(teacher_shapes):
            raise ValueError(
                "Each tapped layer of the student is compared with one of the teacher; got "
                f"{len(student_shapes)} and {len(teacher_shapes)} shapes."
            )
        self.config = config
        self.student_shapes = tuple(check_shape("student", shape) for shape in student_shapes)
        self.teacher_shapes = tuple(check_shape("teacher", shape) for shape in teacher_shapes)
        names = _unique_names(term.knowledge for term in config.terms)
        self.terms = tuple(map(build_term, config.terms, names))
        self.adapters = nn.ModuleDict()
        for term in self.terms:
            self._prepare(term, seed)
        # 1 / (norm of the gradient at the first step) of each term, for normalise="initial".
        self.register_buffer("scales", torch.ones(len(self.terms)))
        self._scaled = config.normalise == "none"
        self._generator = torch.Generator()
        self.reset_generator(seed)

    def forward(
        self, student: Knowledge, teacher: Knowledge, labels: Tensor | None = None, *, progress: float = 0.0
    ) -> dict[str, Tensor]:
        """Compute the weighted losses by name; their sum is what to minimise.

        Args:
            student: Knowledge of the student for one batch.
            teacher: Knowledge of the teacher for the same images; detached here.
            labels: Classes [N], int64. With them the result has a `"cross_entropy"`, of weight 1.
            progress: Share of the training that is done, in [0, 1]; moves the weights of warm-up and stop.

        Returns:
            0-dim tensors: `"cross_entropy"` and one for each term, named by its knowledge (`"features"`,
            `"logits"`, a second one `"features_2"`).

        Raises:
            DeadTermError: With `normalise="initial"`, if a term has no gradient to normalise.
            ValueError: For knowledge of other layers or sizes than declared, or a progress out of range.
        """
        losses: dict[str, Tensor] = {}
        if labels is not None:
            with full_precision(student.logits):
                losses["cross_entropy"] = F.cross_entropy(promote(student.logits), labels)
        factor = self.weight_factor(progress)
        normalise_now = not self._scaled and self.training and torch.is_grad_enabled()
        aligned: _Aligned = {}
        for index, term in enumerate(self.terms):
            weight = term.config.weight * factor
            if weight == 0 and not (normalise_now and term.config.weight):
                losses[term.name] = promote(student.logits).new_zeros(())
                continue
            loss = self._loss(term, student, teacher, aligned)
            if normalise_now:
                self._set_scale(index, loss, student, teacher)
            losses[term.name] = weight * self.scales[index].to(loss.dtype) * loss if weight else loss.new_zeros(())
        self._scaled = self._scaled or normalise_now
        return losses

    def raw_losses(self, student: Knowledge, teacher: Knowledge) -> dict[str, Tensor]:
        """Compute all terms by name, without weights, schedule or normalisation."""
        aligned: _Aligned = {}
        return {term.name: self._loss(term, student, teacher, aligned) for term in self.terms}

    def check_terms(self, student: Knowledge, teacher: Knowledge) -> None:
        """Refuse terms that cannot teach; call it after the first step. Changes nothing in the distiller.

        Raises:
            DeadTermError: If a term of non-zero weight is zero, constant or without gradient; it names them.
        """
        dead = find_dead_terms(self, student, teacher)
        if dead:
            raise DeadTermError(dead)

    def weight_factor(self, progress: float) -> float:
        """Compute the factor of all term weights when the share `progress` of the training is done.

        Raises:
            ValueError: If `progress` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is a share of the training in [0, 1]; got {progress!r}.")
        if self.config.stop < 1 and progress >= self.config.stop:
            return 0.0
        return min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0

    def reset_generator(self, seed: int) -> None:
        """Start the random masks anew from `seed`."""
        self._generator.manual_seed(derive_seed(seed, "mask"))

    def source_of(self, term: Term, knowledge: Knowledge) -> Tensor:
        """Give the network output that a term compares: a feature map (for embeddings too) or the logits."""
        if term.config.knowledge == "logits":
            return knowledge.logits
        if len(knowledge.features) != len(self.student_shapes):
            raise ValueError(
                f"This distiller was made for {len(self.student_shapes)} tapped layers; got "
                f"{len(knowledge.features)} feature maps."
            )
        return knowledge.features[term.config.layer]

    @property
    def generator(self) -> torch.Generator:
        """The generator of the random masks."""
        return self._generator

    def get_extra_state(self) -> dict[str, Any]:
        """Give what a checkpoint needs beside parameters and buffers."""
        return {"generator": self._generator.get_state(), "scaled": self._scaled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_extra_state` gave."""
        self._generator.set_state(state["generator"].cpu())
        self._scaled = state["scaled"]

    def extra_repr(self) -> str:
        """List the terms."""
        return "\n".join(f"({term.name}): {term} * {term.config.weight:g}" for term in self.terms)

    def _prepare(self, term: Term, seed: int) -> None:
        knowledge, layer = term.config.knowledge, term.config.layer
        if knowledge == "logits":
            return
        count = len(self.student_shapes)
        if not -count <= layer < count:
            raise ValueError(
                f"The term {term.name!r} uses layer {layer}, but {count} layer(s) are tapped: allowed are "
                f"{-count} to {count - 1}."
                if count
                else f"The term {term.name!r} needs feature maps, but no layer is tapped."
            )
        layer %= count
        if knowledge == "features":
            check_size(term, self._adapter(layer, seed).aligned_shape)
        else:
            if term.needs_equal_width:
                self._adapter(layer, seed)
            check_size(term, self.teacher_shapes[layer][:1])

    def _adapter(self, layer: int, seed: int) -> Adapter:
        """Give the adapter that all terms of one layer share."""
        key = str(layer)
        if key not in self.adapters:
            generator = torch.Generator().manual_seed(derive_seed(seed, "adapter", layer))
            self.adapters[key] = Adapter(self.student_shapes[layer], self.teacher_shapes[layer], generator=generator)
        adapter = self.adapters[key]
        assert isinstance(adapter, Adapter)
        return adapter

    def _loss(self, term: Term, student: Knowledge, teacher: Knowledge, aligned: _Aligned) -> Tensor:
        of_student, of_teacher = self.source_of(term, student), self.source_of(term, teacher).detach()
        if term.config.knowledge != "logits":
            key = str(term.config.layer % len(self.student_shapes))
            use_map = term.config.knowledge == "features"
            if use_map or term.needs_equal_width:
                if key not in aligned:  # once a step, for batch normalisation's sake too
                    aligned[key] = self.adapters[key](of_student, of_teacher)
                # Pooling and a 1×1 convolution commute with the global average: the embedding of the adapted
                # map is a trained projection of the student's embedding.
                of_student, of_teacher = aligned[key] if use_map else (aligned[key][0], of_teacher)
            if not use_map:
                of_student, of_teacher = _embedding(of_student), _embedding(of_teacher)
        return term(of_student, of_teacher, self._generator)

    def _set_scale(self, index: int, loss: Tensor, student: Knowledge, teacher: Knowledge) -> None:
        source = self.source_of(self.terms[index], student)
        if not (loss.requires_grad and source.requires_grad):
            norm = 0.0
        else:
            (gradient,) = torch.autograd.grad(loss, source, retain_graph=True, allow_unused=True)
            norm = 0.0 if gradient is None else float(torch.linalg.vector_norm(promote(gradient)))
        if norm == 0:
            self.check_terms(student, teacher)
        elif norm < float("inf"):
            self.scales[index] = 1 / norm


_Aligned = dict[str, tuple[Tensor, Tensor]]


def _embedding(feature_map: Tensor) -> Tensor:
    with full_precision(feature_map):
        return promote(feature_map).mean((2, 3))


def _unique_names(kinds: Iterator[str]) -> list[str]:
    seen: collections.Counter[str] = collections.Counter()
    names = []
    for kind in kinds:
        seen[kind] += 1
        names.append(kind if seen[kind] == 1 else f"{kind}_{seen[kind]}")
    return names
