"""A recipe in words, for people who do not read its one-line form."""

from __future__ import annotations

from collections.abc import Iterator

from optuna_kd.analysis.figures.wording import count, listed, number, plain, share
from optuna_kd.recipe import OpConfig, Recipe, TermConfig

_WHAT = {
    "features": "feature maps",
    "embeddings": "embeddings (feature maps, averaged over their places)",
    "logits": "logits",
}


def describe(recipe: Recipe) -> tuple[str, ...]:
    """Say what a recipe does, in sentences of plain text."""
    return tuple(_sentences(recipe))


def _sentences(recipe: Recipe) -> Iterator[str]:
    config = recipe.distiller
    if recipe.student is not None:
        yield f"The student is {plain(recipe.student, 200)}."
    if not config.terms:
        yield "The student learns from the labels alone; the teacher is not used."
    else:
        terms = count(len(config.terms), "term")
        yield f"The student minimises the cross-entropy with the labels, and {terms} that compare it with the teacher."
    for term in config.terms:
        yield _term(term)
    if config.warmup:
        yield f"Over the first {share(config.warmup, 1)} of the training the weights of these terms rise from 0."
    if config.stop < 1:
        yield f"After {share(config.stop, 1)} of the training the teacher is not used any more."
    if config.teacher_batchnorm == "train":
        yield "The teacher normalises with the statistics of each batch, not with those of its own training."
    if config.normalise == "initial":
        yield "Each term is scaled so that its gradient has length 1 at the first step."
    if recipe.training is not None:
        batch, rate = recipe.training.batch_size, recipe.training.lr
        yield f"It trains with {batch:,} images a batch and a learning rate of {rate:.3g}."


def _term(term: TermConfig) -> str:
    where = "" if term.knowledge == "logits" or term.layer == -1 else f" of pair {term.layer} of the compared layers"
    through = f", after {listed(map(_operation, term.transforms))}," if term.transforms else ""
    softened = term.knowledge == "logits" or term.temperature != 1
    temperature = f" at temperature {number(term.temperature)}" if softened else ""
    return (
        f"The {_WHAT[term.knowledge]}{where}{through} are compared by {_operation(term.distance)}{temperature}, with "
        f"weight {number(term.weight)}."
    )


def _operation(operation: OpConfig) -> str:
    options = ", ".join(f"{plain(name)} = {plain(value)}" for name, value in operation.options.items())
    return plain(operation.name) + (f" ({options})" if options else "")
