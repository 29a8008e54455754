"""Recipe cards as files: written whole or not at all, read with suspicion, found in folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna_kd.cards.card import FORMAT, RecipeCard, parse_json
from optuna_kd.cards.checks import CardError
from optuna_kd.files import write_whole
from optuna_kd.recipe import Recipe, RecipeError

CARD_FILE, TEXT_FILE = "card.json", "card.md"
LARGEST = 2**20  # bytes of a card; one of ten seeds has some 10,000
_TRACES = {"students", "checkpoints", "student.pt", "recipe.json", "summary.json", "profile.txt"}


@dataclass(frozen=True)
class Found:
    """A card in a folder, or why there is none.

    Args:
        path: Of the file, or of the folder that has none.
        card: The card; None where it cannot be read, or is not there.
        problem: Then one sentence about it.
    """

    path: Path
    card: RecipeCard | None
    problem: str = ""


def save_card(card: RecipeCard, folder: str | Path) -> Path:
    """Write `card.json` and `card.md` into a folder; give the former."""
    target = Path(folder) / CARD_FILE
    for path, text in ((target.with_name(TEXT_FILE), card.to_markdown()), (target, card.to_json() + "\n")):
        write_whole(path, text)
    return target


def load_card(path: str | Path) -> RecipeCard:
    """Read a card from its file, or from the folder that it lies in.

    Raises:
        CardError: If it cannot be read; the message names the file.
    """
    file = Path(path)
    file = file / CARD_FILE if file.is_dir() else file
    try:
        return RecipeCard.from_dict(parse_json(_read(file)))
    except CardError as error:
        raise CardError(f"{file}: {error}") from None


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from its file, from a card, or from the folder of a finished search.

    Raises:
        CardError: If it is none of them; the message names the file.
    """
    file = Path(path)
    if file.is_dir():
        file = next((file / name for name in (CARD_FILE, "recipe.json") if (file / name).is_file()), file / CARD_FILE)
    try:
        data = parse_json(_read(file))
        is_card = isinstance(data, dict) and data.get("format") == FORMAT
        return RecipeCard.from_dict(data).recipe if is_card else Recipe.from_dict(data)
    except (CardError, RecipeError) as error:
        raise CardError(f"{file}: {error}") from None


def find_cards(path: str | Path) -> Iterator[Found]:
    """Look for cards: in the file itself, or in a folder and in each folder in it, not deeper.

    Raises:
        CardError: If there is no such file or folder, or the folder cannot be listed.
    """
    top = Path(path)
    if not top.exists():
        raise CardError(f"{top}: there is no such file or folder.")
    if not top.is_dir() or (top / CARD_FILE).exists():
        yield _look(top / CARD_FILE if top.is_dir() else top)
        return
    try:
        folders = sorted(folder for folder in top.iterdir() if folder.is_dir())
    except OSError as error:
        raise CardError(f"{top}: {error.strerror or error}.") from None
    for folder in folders:
        try:
            names = {entry.name for entry in folder.iterdir()}
        except OSError as error:
            yield Found(folder, None, f"{error.strerror or error}.")
            continue
        if CARD_FILE in names:
            yield _look(folder / CARD_FILE)
        elif names & _TRACES:
            why = "it was finished before there were cards" if "summary.json" in names else "it is not finished"
            yield Found(folder, None, f"no card, because {why}; the same search again writes one.")


def _look(file: Path) -> Found:
    try:
        return Found(file, load_card(file))
    except CardError as error:
        return Found(file, None, str(error).removeprefix(f"{file}: "))


def _read(file: Path) -> str:
    if not file.is_file():  # a pipe would be waited for
        raise CardError("there is no such file." if not file.exists() else "this is no plain file.")
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise CardError(f"this is larger than a card can be ({LARGEST:,} bytes).")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"it cannot be read: {error}.") from None
