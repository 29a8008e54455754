"""A term made ready to run: its chain of transforms and its distance, checked before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optuna_kd.distillers.numerics import Axis
from optuna_kd.distillers.operations import DISTANCES, FORMS, TRANSFORMS, DistanceInfo, Form, TransformInfo
from optuna_kd.recipe import Scalar, TermConfig


class InvalidChainError(ValueError):
    """A chain of transforms and a distance that do not fit each other or the size of the map."""


@dataclass(frozen=True)
class Term:
    """The unweighted loss of one `TermConfig`, under a name that is unique in its distiller.

    Build it with `build_term`, which checks it.
    """

    name: str
    config: TermConfig
    chain: tuple[tuple[TransformInfo, dict[str, Scalar]], ...]
    distance: DistanceInfo
    options: dict[str, Scalar]

    def __call__(self, student: Tensor, teacher: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Compute the loss of aligned knowledge.

        Args:
            student: [N, C, H, W], [N, D] or [N, K], by the kind of knowledge.
            teacher: The same.
            generator: Source of the random transforms.
        """
        pairs = [(student, teacher)]
        for info, options in self.chain:
            softening = {"temperature": self.config.temperature} if info.uses_temperature else {}
            pairs = [new for s, t in pairs for new in info.function(s, t, generator=generator, **softening, **options)]
        losses = [
            self.distance.function(
                s,
                t,
                temperature=self.config.temperature,
                probabilities_over=self.probabilities_over,
                **self.options,
            )
            for s, t in pairs
        ]
        loss = torch.stack(losses).mean()
        if self.distance.uses_temperature or not any(info.uses_temperature for info, _ in self.chain):
            return loss
        # Softening by τ makes gradients smaller by up to τ²; distances that use τ make up for it themselves.
        return self.config.temperature**2 * loss

    @property
    def probabilities_over(self) -> Axis | None:
        """Axis along which the distance gets probabilities. Only the last transform decides: it may undo them."""
        return self.chain[-1][0].probabilities_over if self.chain else None

    @property
    def needs_equal_width(self) -> bool:
        """Whether embeddings of both sides must have the same length."""
        return self.distance.needs_equal_width or any(info.needs_equal_width for info, _ in self.chain)

    @property
    def random(self) -> bool:
        """Whether the loss draws from the generator."""
        return any(info.random for info, _ in self.chain)

    def __reduce__(self) -> tuple[object, ...]:
        # Copied and pickled by its recipe: registered functions are looked up again.
        return build_term, (self.config, self.name)

    def __str__(self) -> str:
        """Write it as in the one-line form of a recipe, without its weight."""
        chain = ">".join(info.name for info, _ in self.chain) or "none"
        return f"{chain}|{self.distance.name}"


def build_term(config: TermConfig, name: str | None = None) -> Term:
    """Look up the operations of a term and check that their forms fit each other.

    Args:
        config: The term.
        name: Its name in the distiller; the kind of knowledge by default.

    Raises:
        UnknownNameError: For an unknown transform, distance or option.
        InvalidChainError: If one step does not take what the step before it gives.
        ValueError: For an option out of range.
    """
    chain = tuple((TRANSFORMS[op.name], TRANSFORMS[op.name].resolve(op.options)) for op in config.transforms)
    distance = DISTANCES[config.distance.name]
    term = Term(name or config.knowledge, config, chain, distance, distance.resolve(config.distance.options))
    _check_forms(term)
    return term


def check_size(term: Term, shape: Sequence[int]) -> None:
    """Run a term once on zeros of `shape`, so that what cannot be computed is known before any training.

    Args:
        term: The term.
        shape: Shape of one sample after alignment: (C, H, W) or (D,).

    Raises:
        InvalidChainError: If a step refuses this size.
    """
    zeros = torch.zeros(2, *shape)  # the meta device would do, but its first use takes seconds
    try:
        with torch.no_grad():
            term(zeros, zeros, torch.Generator())
    except ValueError as error:
        size = "x".join(map(str, shape))
        raise InvalidChainError(f"The term {term.name!r} ({term}) does not fit {size}: {error}") from error


def _check_forms(term: Term) -> None:
    knowledge = term.config.knowledge
    form: Form = "map" if knowledge == "features" else "matrix"
    giver = f"the {knowledge}"
    if knowledge not in term.distance.knowledge:
        raise InvalidChainError(
            f"The distance {term.distance.name!r} is for {' and '.join(term.distance.knowledge)}; the term "
            f"{term.name!r} compares {knowledge}."
        )
    for kind, info in [*(("transform", info) for info, _ in term.chain), ("distance", term.distance)]:
        if form not in info.takes:
            accepted = " or ".join(f"{taken} ({FORMS[taken]}-D)" for taken in info.takes)
            raise InvalidChainError(
                f"In the term {term.name!r} ({term}) the {kind} {info.name!r} takes {accepted}, but {giver} "
                f"gives {form} ({FORMS[form]}-D)."
            )
        if isinstance(info, TransformInfo):
            form, giver = info.gives or form, repr(info.name)
    _check_temperature(term)


def _check_temperature(term: Term) -> None:
    """Refuse to soften twice in a row: a second softmax is nearly flat, whatever the first one gave."""
    last = term.chain[-1][0] if term.chain else None
    if last is None or not (last.uses_temperature and term.distance.uses_temperature):
        return
    if last.probabilities_over is None or not term.distance.knows_probabilities:
        raise InvalidChainError(
            f"In the term {term.name!r} ({term}) both the transform {last.name!r} and the distance "
            f"{term.distance.name!r} divide by the temperature: leave the transform out."
        )
