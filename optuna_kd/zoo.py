"""The zoo: finished studies and recipe cards, from folders and storages, in one table. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.study import Study
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from optuna_kd.cards import CardError, RecipeCard, find_cards, printable
from optuna_kd.storages import DEFAULT_URL, StorageError, database_in, open_to_read, show_storage
from optuna_kd.storages.reading import UNREADABLE
from optuna_kd.storages.transient import reason_of
from optuna_kd.study import count_complete, count_finished, good_recipes, inspect_storage

RUNS = "runs"
_COLUMNS = ("result %", "verdict", "recipe", "study", "date")
_WHOLE = ("result %", "verdict", "date")


@dataclass(frozen=True)
class Row:
    """A line of the zoo.

    Args:
        name: Of the study.
        source: The file or the storage that it was found in.
        card: Its card; None for a study that no search has finished.
        recipe: Then its best recipe so far.
        worth: Then what that is worth so far.
    """

    name: str
    source: str
    card: RecipeCard | None = None
    recipe: str = ""
    worth: str = ""

    @property
    def group(self) -> str:
        """What its results may be compared with."""
        return "" if self.card is None else self.card.comparable

    @property
    def title(self) -> str:
        """The heading of its group."""
        if self.card is None:
            return "Not finished: the best so far"
        task = self.card.task
        return f"{task.data.name}: {task.teacher.name} -> {task.student.name}  (comparable {self.group[:6]})"

    def cells(self) -> tuple[str, ...]:
        """Give the texts of its columns."""
        if self.card is None:
            return (self.worth, "", self.recipe, self.name, "")
        result = self.card.result
        mean = 100 * result.mean
        spread = "" if result.bounds is None else f" ± {100 * result.bounds[1] - mean:.2f}"
        part = "" if self.card.part == "test" else f" ({self.card.part})"
        return (f"{mean:.2f}{spread}{part}", self.card.outcome, result.recipe, self.name, self.card.date[:10])

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        if self.card is not None:
            return {"study": self.name, "source": self.source, "card": self.card.to_dict()}
        return {
            "study": self.name, "source": self.source, "card": None, "best_so_far": self.recipe, "worth": self.worth,
        }  # fmt: skip


@dataclass
class Zoo:
    """What was found.

    Args:
        rows: Those that may be compared next to each other, the best first; the newest of them on top.
        notes: One line for everything that is there and has no row, or cannot be read.
        unread: Sources that could not be read at all.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: int = 0

    def tables(self) -> Iterator[Table]:
        """The rows, for a rich console: a table for each group."""
        for group in _groups(self.rows):
            table = Table(
                box=SIMPLE_HEAD, title=Text(printable(group[0].title)), title_justify="left", title_style="bold"
            )
            for name in _COLUMNS:
                table.add_column(name, overflow="fold", no_wrap=name in _WHOLE)
            for row in group:
                table.add_row(*(Text(printable(cell)) for cell in row.cells()))
            yield table

    def to_json(self) -> str:
        """JSON text, for machines."""
        return json.dumps({"rows": [row.to_dict() for row in self.rows], "notes": self.notes}, indent=2)


def visit(sources: Sequence[str] = ()) -> Zoo:
    """Look for cards and finished studies.

    Args:
        sources: Card files, folders of finished searches or of their results, storage URLs and files of SQLite; none
            for `runs` and the default storage, as far as they are there.
    """
    zoo = Zoo()
    if not sources:
        database = Path(DEFAULT_URL.removeprefix("sqlite:///"))
        sources = [place for place, file in ((RUNS, Path(RUNS)), (DEFAULT_URL, database)) if file.exists()]
        if not sources:
            zoo.notes.append(f"Nothing is here yet: no folder {RUNS!r} and no storage {DEFAULT_URL}.")
    rows: list[Row] = []
    for source in sources:
        before = len(rows), len(zoo.notes)
        try:
            storage = source if "://" in source else database_in(Path(source))
            rows += _of_folder(source, zoo) if storage is None else _of_storage(storage, zoo.notes)
        except (CardError, StorageError) as error:
            zoo.notes.append(printable(str(error)))
            zoo.unread += 1
        except UNREADABLE as error:  # opened, and then away or damaged
            zoo.notes.append(printable(f"{_shown(source)}: {reason_of(error)}."))
            zoo.unread += 1
        if (len(rows), len(zoo.notes)) == before:
            zoo.notes.append(f"{printable(_shown(source))}: no studies and no cards.")
    zoo.rows = _in_order(_distinct(rows))
    return zoo


def _of_folder(source: str, zoo: Zoo) -> Iterator[Row]:
    for found in find_cards(source):
        if found.card is None:
            zoo.notes.append(printable(f"{found.path}: {found.problem}"))
            zoo.unread += Path(source).is_file()  # named itself; in a folder, others may be what was meant
        else:
            yield Row(found.card.study or found.path.parent.name, str(found.path), found.card)


def _of_storage(source: str, notes: list[str]) -> Iterator[Row]:
    where = _shown(source)
    for found in inspect_storage(open_to_read(source)):
        if found.card is not None:
            yield Row(found.name, where, found.card)
            continue
        problem = found.problem
        if found.study is not None and count_complete(found.study):
            try:
                yield _so_far(found.study, where)
                continue
            except (ValueError, KeyError, TypeError) as error:  # of trials or a space that do not belong together
                problem = f"it cannot be read: {error}"
        notes.append(printable(f"{where}, study {found.name!r}: {problem}"))


def _so_far(study: Study, where: str) -> Row:
    trials = f"{count_finished(study)} trials"
    best = [str(recipe) for recipe in good_recipes(study, 1)]
    worth = trials if len(study.directions) > 1 else f"reward {study.best_value:.3f}, {trials}"
    return Row(study.study_name, where, None, best[0] if best else "", worth)


def _shown(source: str) -> str:
    return show_storage(source) if "://" in source else source


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """Leave out what is found twice: the card of a search is in its folder and in its storage."""
    seen: dict[Any, Row] = {}
    for row in rows:
        card = row.card
        key = (row.source, row.name) if card is None else (card.study, card.study_id, card.comparable, card.result)
        seen.setdefault(key, row)
    return list(seen.values())


def _in_order(rows: Iterable[Row]) -> list[Row]:
    def newest(group: list[Row]) -> str:
        return max(row.card.date if row.card else "" for row in group)

    def worth(row: Row) -> float:
        return row.card.result.mean if row.card else 0.0

    ordered = sorted(_groups(rows), key=newest, reverse=True)
    return [row for group in ordered for row in sorted(group, key=worth, reverse=True)]


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.values())
