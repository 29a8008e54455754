"""The card of a joint search and of its front, and a joint search that begins with it."""

from __future__ import annotations

from small_searches import Finished, Notes, Place

from optuna_kd.cards import load_card
from optuna_kd.recipe import canonical
from optuna_kd.study import FACTS, WARM_START, recipe_of


def test_the_knee_and_the_whole_front_have_cards(finished: Finished) -> None:
    place, result, _ = finished
    card = load_card(result.directory)
    assert (card.recipe, card.method) == (result.recipe, "uniads")
    assert card.task.student.parameters == result.rows[-1].parameters
    assert {canonical(recipe) for recipe in card.runners_up} == {
        canonical(row.recipe) for row in result.front if row.recipe != result.recipe
    }
    for row in result.front:
        assert row.folder is not None
        other = load_card(row.folder)
        assert (other.recipe, other.controls, other.outcome) == (row.recipe, (), "not compared")
        assert other.result.accuracies == (row.test_accuracy,)
        assert other.task.student.parameters == row.costs["parameters"]
        assert (other.comparable == card.comparable) == (row.recipe == result.recipe)
    assert place.study().user_attrs[FACTS]["student"]["parameters"] is None  # it is still to be chosen there


def test_another_joint_search_begins_with_the_smallest_student_and_the_front(place: Place) -> None:
    notes = Notes()
    result = place.search(study_name="later", trials=4, seed=1, warm_start="small", progress=notes)
    study = place.study("later")
    front = load_card(place.folder / "runs" / "small")
    begun = [trial for trial in study.trials if WARM_START in trial.user_attrs]
    assert [trial.number for trial in begun] == [1 + place for place in range(1 + len(front.runners_up))]
    assert recipe_of(study, begun[0]) == front.recipe
    assert study.trials[0].params["width"] == 0.5
    assert any(line.startswith("Warm start ") and "from small, at distance 3" in line for line in notes.lines)
    assert result.recipe.student is not None
