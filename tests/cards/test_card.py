"""Recipe cards: what they say, which results they call comparable, and what they refuse."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cards import FACTS, LINE, make_card

from optuna_kd.cards import CardError, MethodResult, RecipeCard, TaskFacts, interval, now, protocol_of
from optuna_kd.recipe import Options, Recipe, StudentConfig

Data = dict[str, Any]


def test_a_card_is_what_it_was() -> None:
    card = make_card()
    assert RecipeCard.from_json(card.to_json()) == card
    joint = Recipe(card.recipe.distiller, StudentConfig("resnet", Options(depth_1=3, width=0.5)))
    other = make_card(recipe=joint, part="validation", controls=(), runners_up=(), verdict="", outcome="not compared")
    assert RecipeCard.from_dict(other.to_dict()) == other
    assert TaskFacts.from_dict(FACTS.to_dict()) == FACTS


@given(name=st.text(max_size=50), value=st.floats(0, 1), count=st.integers(0, 10**9))
def test_names_and_numbers_survive(name: str, value: float, count: int) -> None:
    protocol = {name: [value, None, {"x": count}]}
    card = make_card(study=name, teacher_accuracy=value, protocol=protocol, verdict=name)
    assert RecipeCard.from_json(card.to_json()) == card


def test_the_json_says_what_people_look_for() -> None:
    data = make_card().to_dict()
    assert (data["line"], data["digest"]) == (LINE, Recipe.from_string(LINE).digest)
    result = data["results"]["recipe"]
    assert result["mean"] == pytest.approx(0.92)
    # t = 4.302653 for two degrees of freedom; 4.302653 * 0.02 / sqrt(3) = 0.049683
    assert result["interval"] == pytest.approx([0.92 - 0.049683, 0.92 + 0.049683], abs=1e-6)
    assert (data["teacher"]["parameters"], data["student"]["layer"]) == (272_186, [8, 4, 4])


def test_the_interval() -> None:
    assert interval([0.5]) is None
    assert interval([0.5, 0.5, 0.5]) is None  # no spread was seen, which is not a spread of nothing
    low, high = interval([0.0, 1.0]) or (0, 0)  # t = 12.7062 for one degree of freedom
    assert (high - low) / 2 == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-5)


def test_what_may_be_compared_goes_by_the_protocol_alone() -> None:
    described = {"data": "aa", "validation": "bb", "teacher": "cc", "student": "dd", "preprocessing": {"views": 8}}

    def comparable(epochs: int = 15, knowledge: str = "replay", **changes: Any) -> str:
        return make_card(protocol=protocol_of({**described, **changes}, epochs=epochs, knowledge=knowledge)).comparable

    same = comparable()
    assert len(same) == 12
    assert comparable() == same
    others = [comparable(epochs=30), comparable(knowledge="online"), comparable(preprocessing={"views": 1})]
    others += [comparable(**{name: "other"}) for name in ("data", "validation", "teacher", "student")]
    assert len({same, *others}) == 8
    seeds = MethodResult("searched recipe", LINE, (0.5,), (0.5,))
    assert make_card("none|l2*5 + kl@4*1", result=seeds, study="x").comparable == make_card().comparable


def changed(edit: Callable[[Data], object]) -> str:
    data = copy.deepcopy(make_card().to_dict())
    edit(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.pop("format"), 'This is not a recipe card: it needs "format": "optuna_kd.card".'),
        (lambda data: data.update(version=2), "has version 2; this optuna_kd reads version 1. Update optuna_kd"),
        (lambda data: data.update(version="x"), "has version 'x'; this optuna_kd reads version 1. Run the search"),
        (lambda data: data.pop("verdict"), "A recipe card lacks verdict."),
        (lambda data: data.update(more=1), r"A recipe card has unknown keys: \['more'\]."),
        (lambda data: data.update(recipe=3), "recipe: This is not a recipe"),
        (lambda data: data.update(runners_up=[{}]), "runners_up: This is not a recipe"),
        (lambda data: data.update(digest="0" * 12), "Its digest is '000000000000', but what it says has"),
        (lambda data: data["protocol"].update(epochs=30), "Its comparable is .* it was changed by hand"),
        (lambda data: data.update(protocol=[]), "protocol is an object; got"),
        (lambda data: data.update(outcome="best"), "outcome is one of better, level, .* got 'best'"),
        (lambda data: data.update(date="soon"), "date is a time like 20.*; got 'soon'"),
        (lambda data: data.update(teacher_accuracy=1.2), r"teacher_accuracy is a share in \[0, 1\]; got 1.2"),
        (lambda data: data.update(teacher_accuracy=True), "teacher_accuracy is a share"),
        (lambda data: data.update(versions={"a": 1}), "versions.a is a text"),
        (lambda data: data["data"].update(classes=0), "data.classes is a whole number >= 1; got 0"),
        (lambda data: data["data"].update(image_shape=[1, 8]), r"data.image_shape is a shape of three sides"),
        (lambda data: data["student"].update(parameters=1.5), "student.parameters is a whole number >= 0; got 1.5"),
        (lambda data: data["teacher"].update(name="x" * 3000), "teacher.name is a text of at most 2,000 characters"),
        (lambda data: data["results"].update(part="train"), "results.part is one of test, validation; got 'train'"),
        (lambda data: data["results"]["recipe"].update(selected=[0.5]), "for each seed, or none; got 1"),
        (lambda data: data["results"]["recipe"].update(accuracies=[]), "for each seed, at least one; got 0 and 3"),
        (lambda data: data["results"]["recipe"].update(accuracies=[0.1] * 10_001), "a list of at most 10,000 values"),
        (lambda data: data["results"]["recipe"].update(accuracies=["a"]), "an entry of accuracies is a share"),
        (lambda data: data["results"].update(controls=None), "results.controls is a list"),
    ],
)
def test_a_card_that_is_wrong_is_refused(edit: Callable[[Data], object], message: str) -> None:
    with pytest.raises(CardError, match=message):
        RecipeCard.from_json(changed(edit))


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": NaN}', '{"a": Infinity}', "9" * 5000, '"\\ud800', "\x00"]
)
def test_what_is_not_json_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(CardError, match=r"^This is not") as raised:
        RecipeCard.from_json(text)
    assert len(str(raised.value)) < 500


def test_what_follows_from_the_rest_is_not_believed() -> None:
    def lie(data: Data) -> None:
        data["line"] = "labels"
        data["results"]["recipe"] |= {"mean": 1.0, "interval": [1.0, 1.0]}

    assert RecipeCard.from_json(changed(lie)) == make_card()


def test_the_time_is_one() -> None:
    assert make_card(date=now()).date.endswith("+00:00")
