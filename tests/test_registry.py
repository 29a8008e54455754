"""Registries: one name, one part, and an error that helps."""

from __future__ import annotations

import pytest

from optuna_kd.registry import Registry, UnknownNameError, suggest_name


def colours() -> Registry[int]:
    registry: Registry[int] = Registry("colour")
    registry.add("red", 1)
    registry.add("green", 2)
    return registry


def test_it_is_a_mapping_in_order_of_registration() -> None:
    registry = colours()
    assert list(registry) == ["red", "green"]
    assert dict(registry) == {"red": 1, "green": 2}
    assert len(registry) == 2
    assert "red" in registry
    assert "blue" not in registry


def test_add_returns_the_part() -> None:
    assert colours().add("blue", 3) == 3


def test_a_taken_name_is_refused_and_kept() -> None:
    registry = colours()
    with pytest.raises(ValueError, match="The colour 'red' is already registered"):
        registry.add("red", 9)
    assert registry["red"] == 1


def test_an_unknown_name_says_what_was_meant_and_what_exists() -> None:
    with pytest.raises(UnknownNameError) as caught:
        colours()["gren"]
    assert str(caught.value) == "Unknown colour 'gren'. Did you mean 'green'? Known: green, red."


def test_names_from_a_storage_cannot_move_the_cursor_and_are_not_all_listed() -> None:
    message = str(suggest_name("study", "x", ["a\x1b[31mred", *(f"study-{place:02}" for place in range(99))]))
    assert "Known: 'a\\x1b[31mred', study-00, " in message
    assert message.endswith("study-38 and 60 more.")


def test_a_name_far_from_all_gets_no_suggestion() -> None:
    assert str(suggest_name("colour", "xyz", ["red"])) == "Unknown colour 'xyz'. Known: red."


@pytest.mark.parametrize("name", [None, 3, ["red"]])
def test_names_of_any_type_are_unknown_not_a_crash(name: object) -> None:
    with pytest.raises(UnknownNameError, match="Unknown colour"):
        colours()[name]  # type: ignore[index]


def test_it_is_wrong_input_not_a_wrong_program() -> None:
    assert issubclass(UnknownNameError, ValueError)
    assert not issubclass(UnknownNameError, KeyError)
