"""Where a warm start takes recipes from: cards, recipe files, folders of them, studies and storages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.cards import RecipeCard, TaskFacts, find_cards, load_recipe, printable
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import Recipe
from optuna_kd.storages import database_in, open_to_read
from optuna_kd.study.findings import good_recipes
from optuna_kd.study.inspecting import card_of, facts_of, inspect_storage
from optuna_kd.study.loading import load_study
from optuna_kd.study.settings import settings_of

HANDED_ON = 10  # recipes of a study without a card
AUTO = "auto"
RUNS = Path("runs")

Source = str | Path | Recipe | RecipeCard | Study
Sources = Source | Sequence[Source]


class WarmStartError(ValueError):
    """There is nothing to begin with where one was told to look."""


@dataclass(frozen=True)
class Candidate:
    """A recipe that did well elsewhere.

    Args:
        recipe: The recipe.
        origin: Name of the study, the card or the file.
        facts: What it was found for; None where nobody knows.
        rank: 0 for the best one of its origin.
    """

    recipe: Recipe
    origin: str
    facts: TaskFacts | None = None
    rank: int = 0


def read_sources(
    sources: Sources, *, runs: Path = RUNS, storage: BaseStorage | None = None
) -> tuple[list[Candidate], list[str]]:
    """Collect the recipes that may be begun with.

    Args:
        sources: One or several of: a card; a recipe; a study; the path of a card, of a recipe file, of the folder of
            a finished search, or of a folder of those; the URL of a storage, or the path of one of SQLite; the name of
            a search in `runs`, of a study in `storage`, or of a published recipe; "auto" for all of `runs`.
        runs: Folder of finished searches.
        storage: Where studies are looked up by name.

    Returns:
        The candidates, and a line for everything that was found and cannot be used.

    Raises:
        WarmStartError: If a source holds nothing; "auto" may.
        CardError: If a file that was named cannot be read.
        StorageError: If a storage cannot be.
        StudyMismatchError: For a study that optuna_kd did not make.
        TypeError: For anything else.
    """
    found: list[Candidate] = []
    notes: list[str] = []
    for source in sources if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]:
        if not isinstance(source, Source):
            raise TypeError(
                "A warm start takes a card, a recipe, a study, a path, the URL of a storage or a name, or a list of "
                f"those; got {source!r}."
            )
        candidates = _read(source, runs, storage, notes)
        if not candidates and source != AUTO:
            name = source.study_name if isinstance(source, Study) else source
            raise WarmStartError(f"There is no recipe to begin with in {name}{': ' + notes[-1] if notes else '.'}")
        found += candidates
    return found, notes


def _read(source: Source, runs: Path, storage: BaseStorage | None, notes: list[str]) -> list[Candidate]:
    if isinstance(source, RecipeCard):
        return _of_card(source)
    if isinstance(source, Recipe):
        return [Candidate(source, "a recipe")]
    if isinstance(source, Study):
        return _of_study(source)
    if source == AUTO:
        return _of_path(runs, notes) if runs.exists() else []
    text = str(source)
    if "://" in text:
        return _of_storage(open_to_read(text), notes)
    path = Path(source)
    for place in (path, runs / path):
        if place.exists():
            return _of_path(place, notes)
    return _of_name(text, storage)


def _of_name(name: str, storage: BaseStorage | None) -> list[Candidate]:
    if storage is not None and name in {study.study_name for study in storage.get_all_studies()}:
        return _of_study(load_study(name, storage=storage))
    if name in RECIPES:
        return [Candidate(RECIPES[name], name)]
    raise WarmStartError(
        f"There is nothing to begin with called {name!r}: no file or folder, no finished search, no study in the "
        f"storage and no published recipe. Published: {', '.join(RECIPES)}."
    )


def _of_card(card: RecipeCard) -> list[Candidate]:
    return [
        Candidate(recipe, printable(card.study or "a card"), card.task, rank)
        for rank, recipe in enumerate((card.recipe, *card.runners_up))
    ]


def _of_study(study: Study) -> list[Candidate]:
    settings_of(study)  # one that we did not make has no recipes
    card = card_of(study)
    if card is not None:
        return _of_card(card)
    recipes = good_recipes(study, HANDED_ON)
    return [Candidate(recipe, study.study_name, facts_of(study), rank) for rank, recipe in enumerate(recipes)]


def _of_storage(storage: BaseStorage, notes: list[str]) -> list[Candidate]:
    found: list[Candidate] = []
    for inspected in inspect_storage(storage):
        if inspected.study is None:
            notes.append(f"{inspected.name}: {inspected.problem}")
        elif inspected.card is not None:
            found += _of_card(inspected.card)
        else:
            try:
                found += _of_study(inspected.study)
            except (ValueError, KeyError, TypeError) as error:  # of trials or a space that do not belong together
                notes.append(f"{inspected.name}: it cannot be read: {error}")
    return found


def _of_path(path: Path, notes: list[str]) -> list[Candidate]:
    if (database := database_in(path)) is not None:
        return _of_storage(open_to_read(database), notes)
    if path.is_file():
        for found in find_cards(path):
            if found.card is not None:
                return _of_card(found.card)
        return [Candidate(load_recipe(path), path.name)]  # or say what is wrong with it
    candidates: list[Candidate] = []
    for found in find_cards(path):
        if found.card is not None:
            candidates += _of_card(found.card)
        else:
            notes.append(f"{found.path}: {found.problem}")
    if not candidates and (path / "recipe.json").is_file():
        return [Candidate(load_recipe(path / "recipe.json"), path.name)]
    return candidates
