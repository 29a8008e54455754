"""Cards as files: written whole, read with suspicion, found in folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from made_cards import make_card

from optuna_kd.cards import CardError, find_cards, load_card, load_recipe, save_card
from optuna_kd.recipe import Recipe


def test_a_card_is_written_for_machines_and_for_people(tmp_path: Path) -> None:
    card = make_card()
    assert save_card(card, tmp_path) == tmp_path / "card.json"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["card.json", "card.md"]
    assert load_card(tmp_path) == load_card(tmp_path / "card.json") == card
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == card.to_markdown()
    save_card(make_card(study="again"), tmp_path)
    assert load_card(tmp_path).study == "again"


def test_a_recipe_comes_from_its_file_a_card_or_a_folder(tmp_path: Path) -> None:
    card, recipe = make_card(), Recipe.from_string("none|l2*5 + kl@4*1")
    recipe.save(tmp_path / "recipe.json")
    assert load_recipe(tmp_path / "recipe.json") == load_recipe(tmp_path) == recipe
    save_card(card, tmp_path)
    assert load_recipe(tmp_path / "card.json") == load_recipe(tmp_path) == card.recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "card.json: This is not JSON: "),
        (b"\xff\xfe", "card.json: it cannot be read: .*utf-8"),
        (b'"' + b"x" * 2**20 + b'"', "card.json: this is larger than a card can be"),
        (b'{"format": "optuna_kd.card", "version": 9}', "card.json: This recipe card has version 9"),
        (None, "card.json: there is no such file"),
    ],
)
def test_an_error_names_the_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_bytes(content)
    for read in (load_card, load_recipe):
        with pytest.raises(CardError, match=message) as raised:
            read(tmp_path)
        assert str(raised.value).startswith(str(tmp_path / "card.json"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX's")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(CardError, match="this is no plain file"):
        load_card(tmp_path / "card.json")


def test_a_wrong_recipe_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"format": "optuna_kd.recipe", "version": 7}')
    with pytest.raises(CardError, match=r"recipe.json: This recipe has version 7"):
        load_recipe(tmp_path / "recipe.json")


def test_cards_are_found_in_a_file_a_folder_and_the_folders_in_it(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        save_card(make_card(study=name), tmp_path / name)
    (tmp_path / "a" / "front").mkdir()
    save_card(make_card(study="deep"), tmp_path / "a" / "front")
    assert [found.card.study for found in find_cards(tmp_path) if found.card] == ["a", "b"]  # not deeper
    assert [found.card.study for found in find_cards(tmp_path / "a") if found.card] == ["a"]
    assert [found.card.study for found in find_cards(tmp_path / "b" / "card.json") if found.card] == ["b"]


def test_half_written_folders_have_a_line_each_and_others_none(tmp_path: Path) -> None:
    for name in ("started/students", "old", "notes", "broken"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "old" / "summary.json").write_text("{}")
    (tmp_path / "broken" / "card.json").write_text(json.dumps(make_card().to_dict())[:500])
    (tmp_path / "file.txt").write_text("x")
    found = {each.path.relative_to(tmp_path).as_posix(): each.problem for each in find_cards(tmp_path)}
    assert list(found) == ["broken/card.json", "old", "started"]
    assert found["broken/card.json"].startswith("This is not JSON: ")
    assert "it was finished before there were cards; the same search again writes one" in found["old"]
    assert "it is not finished; the same search again writes one" in found["started"]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert list(find_cards(tmp_path)) == []
    with pytest.raises(CardError, match="nowhere: there is no such file or folder"):
        list(find_cards(tmp_path / "nowhere"))
