"""What a figure says of one trial when it is pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from optuna_kd.analysis.figures.wording import CHOICE, SENTENCE, escape, lines, plain
from optuna_kd.analysis.table import TrialTable
from optuna_kd.study import RECIPE

_FEW = 6  # parameters of a trial that are listed


def recipe_text(trial: FrozenTrial) -> str:
    """Give what was tried in a trial, as plain text: its recipe in a line, else its parameters."""
    recipe = trial.user_attrs.get(RECIPE)
    if isinstance(recipe, str):
        return plain(recipe, SENTENCE)
    return plain(parameters_text(trial.params), SENTENCE)


def parameters_text(params: Mapping[str, Any]) -> str:
    """List the first parameters of a trial."""
    shown = [f"{plain(name, CHOICE)} = {plain(value, CHOICE)}" for name, value in list(params.items())[:_FEW]]
    more = [f"{len(params) - _FEW} more"] if len(params) > _FEW else []
    return ", ".join([*shown, *more])


def left_out(table: TrialTable) -> list[str]:
    """Say how many trials have no usable result, and why, as a note of figures that are about the others."""
    counts = sorted(table.left_out.items(), key=lambda each: -each[1])
    reasons = ", ".join(f"{many:,} {reason}" for reason, many in counts)
    return [f"Left out: {reasons}."] if reasons else []


def hover(*texts: str, width: int = 44) -> str:
    """Give what a box says, one text below the other, as plotly draws it."""
    return "<br>".join(escape(line) for text in texts if text for line in lines(text, width))
