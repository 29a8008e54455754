"""How one term of a recipe is written in a line: ``chain|distance*weight`` on maps, ``distance@temperature*weight``."""

from __future__ import annotations

import re

from optuna_kd.recipe_parts import OpConfig, RecipeError, TermConfig

_FEATURE_TERM = re.compile(r"(?P<chain>[^|@*\s]+)\|(?P<distance>\w+)\*(?P<weight>[^@*\s]+)")
_LOGIT_TERM = re.compile(r"(?P<distance>\w+)@(?P<temperature>[^@*\s]+)\*(?P<weight>[^@*\s]+)")


def parse_term(part: str, whole: str) -> TermConfig:
    """Read one term; `whole` is the line it stands in, for the error.

    Raises:
        RecipeError: If the text does not have this form.
    """
    try:
        if match := _FEATURE_TERM.fullmatch(part):
            chain = tuple(OpConfig(name) for name in match["chain"].split(">"))
            return TermConfig("features", OpConfig(match["distance"]), float(match["weight"]), chain)
        if match := _LOGIT_TERM.fullmatch(part):
            return TermConfig(
                "logits",
                OpConfig(match["distance"]),
                float(match["weight"]),
                temperature=float(match["temperature"]),
            )
    except ValueError as error:
        raise RecipeError(f"Cannot read {part!r} in {whole!r}: {error}") from None
    raise RecipeError(
        f"Cannot read {part!r} in {whole!r}. A recipe reads like "
        "'attention>multiscale>channel|kl*5 + pearson@4*1' (features | distance * weight + "
        "distance @ temperature * weight), or 'labels'."
    )


def format_term(term: TermConfig) -> str:
    """Write one term on maps or logits, without what the one-line form cannot say."""
    if term.knowledge == "logits":
        return f"{term.distance.name}@{term.temperature:.12g}*{term.weight:.12g}"
    chain = ">".join(op.name for op in term.transforms) or "none"
    return f"{chain}|{term.distance.name}*{term.weight:.12g}"


def describe_term(term: TermConfig) -> str:
    """Like `format_term`, with everything that the one-line form cannot say."""

    def show(op: OpConfig) -> str:
        return (
            f"{op.name}({', '.join(f'{key}={value}' for key, value in op.options.items())})" if op.options else op.name
        )

    chain = ">".join(map(show, term.transforms)) or ("none" if term.knowledge == "features" else "")
    start = f"{chain}|" if chain else ""
    where = "" if term.knowledge != "embeddings" else "embeddings "
    softened = term.knowledge == "logits" or term.temperature != 1
    temperature = f"@{term.temperature:.12g}" if softened else ""
    return f"{where}{start}{show(term.distance)}{temperature}*{term.weight:.12g}"
