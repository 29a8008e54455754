"""A recipe card as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator

from optuna_kd.cards.card import RecipeCard
from optuna_kd.cards.facts import NetworkFacts
from optuna_kd.cards.results import LEVEL, MethodResult
from optuna_kd.cards.showing import code, prose


def markdown_of(card: RecipeCard) -> str:
    """Give the text of `card.md`."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: RecipeCard) -> Iterator[str]:
    yield f"# Recipe card {code(card.study or card.recipe.digest)}"
    yield ""
    yield f"{code(str(card.recipe))}"
    yield ""
    yield f"Found by {code(card.method)}, written {card.date}. Digest of the recipe: `{card.recipe.digest}`."
    if card.verdict:
        yield ""
        yield f"> {prose(card.verdict)}"
    yield ""
    yield f"{card.part.capitalize()} accuracy after the last epoch, in %, and the {100 * LEVEL:.0f} % t interval of its"
    yield "mean over seeds. Beside it the accuracy after the epoch that was best on the validation data. The validation"
    yield "data chose, so what they say is optimistic."
    yield ""
    yield f"| method | {card.part} | interval | at the best epoch | validation | seeds |"
    yield "|---|---:|---:|---:|---:|---:|"
    for result in (card.result, *card.controls):
        yield _row(result)
    yield ""
    for result in (card.result, *card.controls):
        yield f"- {prose(result.method)}: {code(result.recipe)}"
    data = card.task.data
    yield ""
    yield "## Found for"
    yield ""
    yield (
        f"- data {code(data.name)}: {data.classes:,} classes, images {_shape(data.image_shape)}; {data.train:,} to "
        f"train, {data.validation:,} to validate, {data.test:,} to test"
    )
    yield f"- teacher {_network(card.task.teacher)}, {100 * card.teacher_accuracy:.2f} % on the validation data"
    yield f"- student {_network(card.task.student)}"
    yield ""
    yield f"## Comparable: `{card.comparable}`"
    yield ""
    yield "Results of cards with the same twelve digits may be compared: they have the same data and split, teacher,"
    yield "student, epochs and preprocessing. Seeds and recipe are not in them. They stand for:"
    yield ""
    for name, value in sorted(card.protocol.items()):
        yield f"- {prose(name)}: {code(value if isinstance(value, str) else json.dumps(value, sort_keys=True))}"
    yield ""
    yield "## The recipe"
    yield ""
    yield "    optuna-kd distill --recipe card.json"
    yield "    optuna-kd search --warm-start card.json"
    yield ""
    yield "```json"
    yield card.recipe.to_json()
    yield "```"
    yield ""
    yield "Versions: " + ", ".join(f"{prose(name)} {prose(version)}" for name, version in card.versions.items())


def _row(result: MethodResult) -> str:
    shown = "" if result.bounds is None else f"{100 * result.bounds[0]:.2f} to {100 * result.bounds[1]:.2f}"
    validation = sum(result.validation) / len(result.validation)
    selected = f"{100 * sum(result.selected) / len(result.selected):.2f}" if result.selected else ""
    return (
        f"| {prose(result.method)} | {100 * result.mean:.2f} | {shown} | {selected} | {100 * validation:.2f} "
        f"| {len(result.accuracies)} |"
    )


def _network(network: NetworkFacts) -> str:
    parameters = "" if network.parameters is None else f", {network.parameters:,} parameters"
    layer = "" if network.layer is None else f", compared maps {_shape(network.layer)}"
    return f"{code(network.name)}{parameters}{layer}"


def _shape(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
