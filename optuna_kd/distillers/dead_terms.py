"""Finding distillation terms that cannot teach: zero, constant, or without gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from optuna_kd.distillers.distiller import Distiller
    from optuna_kd.models.knowledge import Knowledge

#: A change of the student by its own size that moves a loss by less than this, in float64, is rounding.
TOLERANCE = 1e-10


class DeadTermError(ValueError):
    """Distillation terms that cannot teach, by name, in `terms`.

    Args:
        terms: What is wrong, by the name of the term.
    """

    def __init__(self, terms: Mapping[str, str]) -> None:
        self.terms = dict(terms)
        super().__init__(
            " ".join(f"The distillation term {name!r} {reason}." for name, reason in self.terms.items())
            + " It would train nothing: leave it out, or tap a layer with a larger map (at least 4x4)."
        )

    def __reduce__(self) -> tuple[object, ...]:
        # Travels from a worker process with its terms, not with its message.
        return type(self), (self.terms,)


def find_dead_terms(distiller: Distiller, student: Knowledge, teacher: Knowledge) -> dict[str, str]:
    """Find the terms of non-zero weight whose loss the student cannot change, in float64.

    A student that equals its teacher has zero loss and gradient by right; such a term is tried again beside
    that point. A loss that is not finite is not dead: rejecting it is the training's business. Neither the
    random masks nor the adapters' running statistics move.

    Args:
        distiller: The distiller.
        student: Knowledge of the student for one batch.
        teacher: Knowledge of the teacher for the same batch.

    Returns:
        What is wrong, by the name of the term; empty if all is well.
    """
    reasons = _dead_here(distiller, student, teacher)
    equal = [
        term
        for term in distiller.terms
        if term.name in reasons and _same(distiller.source_of(term, student), distiller.source_of(term, teacher))
    ]
    if equal:
        beside = _dead_here(distiller, _perturbed(student), teacher)
        for term in equal:
            if term.name not in beside:
                del reasons[term.name]
    return reasons


def _dead_here(distiller: Distiller, student: Knowledge, teacher: Knowledge) -> dict[str, str]:
    student = _map_knowledge(student, lambda x: x.detach().double().requires_grad_())
    modes = {module: module.training for module in distiller.modules()}
    random_state = distiller.generator.get_state()
    try:
        distiller.eval()
        with torch.enable_grad():
            losses = distiller.raw_losses(student, teacher)
            return {
                term.name: f"({term}) {reason}"
                for term in distiller.terms
                if term.config.weight and (reason := dead_reason(losses[term.name], distiller.source_of(term, student)))
            }
    finally:
        distiller.generator.set_state(random_state)
        for module, training in modes.items():
            module.training = training


def dead_reason(loss: Tensor, source: Tensor) -> str | None:
    """Say why the gradient of `loss` to `source` teaches nothing, or None if it does.

    Args:
        loss: 0-dim, float64.
        source: The student's output that it was computed from.
    """
    value = float(loss.detach())
    gradient = (
        torch.autograd.grad(loss, source, retain_graph=True, allow_unused=True)[0] if loss.requires_grad else None
    )
    if gradient is None:
        return "does not depend on the student"
    effect = float(torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(source.detach()).clamp_min(1))
    if not effect <= TOLERANCE * max(1.0, abs(value)):  # also where it is not a number
        return None
    return "is zero and has no gradient" if abs(value) <= TOLERANCE else f"is constant ({value:.3g}, no gradient)"


def _same(student: Tensor, teacher: Tensor) -> bool:
    return student.shape == teacher.shape and bool(student.any()) and torch.allclose(student.to(teacher), teacher)


def _perturbed(knowledge: Knowledge) -> Knowledge:
    generator = torch.Generator().manual_seed(0)

    def move(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        x = x.detach().double()
        return x + noise * x.abs().mean()

    return _map_knowledge(knowledge, move)


def _map_knowledge(knowledge: Knowledge, function: Callable[[Tensor], Tensor]) -> Knowledge:
    return type(knowledge)(features=tuple(map(function, knowledge.features)), logits=function(knowledge.logits))
