"""What was found: the recipe in words, or the best trial of a study that knows no recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.study import Study

from optuna_kd.analysis.figures.objective import best_row, name_of
from optuna_kd.analysis.figures.wording import SENTENCE, number, plain
from optuna_kd.analysis.report.recipe_words import describe
from optuna_kd.analysis.report.snippets import distill_command, predict_snippet, python_snippet
from optuna_kd.analysis.table import TrialTable
from optuna_kd.cards import RecipeCard
from optuna_kd.study import COMMAND, SETTINGS, good_recipes

_MOST = 40  # parameters of a trial that are listed


@dataclass(frozen=True)
class Snippet:
    """A piece of code.

    Args:
        title: What it does.
        language: "python" or "sh".
        code: Its text.
    """

    title: str
    language: str
    code: str


@dataclass(frozen=True)
class Found:
    """What a search has found, all of it plain text.

    Args:
        standing: How sure that is: the winner of a comparison, or the best so far.
        line: The recipe in one line; empty where there is none.
        words: The recipe in sentences.
        parameters: Of the best trial, where there is no recipe.
        snippets: How to use it.
    """

    standing: str
    line: str = ""
    words: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    snippets: tuple[Snippet, ...] = ()


def what_was_found(study: Study, table: TrialTable, card: RecipeCard | None) -> Found | None:
    """Give the recipe of a finished search, else the best so far; None where no trial tells."""
    if card is not None:
        return _of_card(table, card)
    if SETTINGS in table.attributes:
        return _so_far(study)
    return _best_trial(table)


def _of_card(table: TrialTable, card: RecipeCard) -> Found:
    options = table.attributes.get(COMMAND)
    options = options if isinstance(options, Mapping) else {}
    folder = folder_of(table.study_name, options)
    return Found(
        f"Chosen on validation data, then trained in full; digest {card.recipe.digest}.",
        plain(card.recipe, 400),
        describe(card.recipe),
        snippets=(
            Snippet("Train a student by it, from the command line", "sh", distill_command(folder, options, card)),
            Snippet("Train a student by it, in Python", "python", python_snippet(card.recipe, card)),
            Snippet("Predict with the student of this search", "python", predict_snippet(folder)),
        ),
    )


def folder_of(study: str, options: Mapping[str, Any]) -> str:
    """Give the folder of a search's results, as `optuna-kd search` was told to name it."""
    runs = options.get("runs")
    return f"{runs if isinstance(runs, str) else 'runs'}/{study}"


def _so_far(study: Study) -> Found | None:
    try:
        recipes = good_recipes(study, 1)
    except (ValueError, KeyError, TypeError):  # of trials or a space that do not belong together
        recipes = []
    if not recipes:
        return None
    return Found(
        "The best so far, by the proxies alone: it was not yet trained in full, nor compared with its controls.",
        plain(recipes[0], 400),
        describe(recipes[0]),
        snippets=(Snippet("Train a student by it, in Python", "python", python_snippet(recipes[0])),),
    )


def _best_trial(table: TrialTable) -> Found | None:
    if len(table.objectives) > 1:
        return None  # a front has no best trial; its figure names the knee
    row = best_row(table, 0)
    if row is None:
        return None
    params = list(table.trials[row].params.items())
    more = [("…", f"and {len(params) - _MOST} more")] if len(params) > _MOST else []
    return Found(
        f"Trial {table.numbers[row]}, with a {name_of(table, 0)} of {number(table.values[row, 0])}: the best single "
        "one, and so partly the luckiest.",
        parameters=(*((plain(name, 60), plain(value, SENTENCE)) for name, value in params[:_MOST]), *more),
    )
