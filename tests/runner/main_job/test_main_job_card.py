"""The card of a finished search, and a search that begins with it."""

from __future__ import annotations

import json

import pytest
from main_searches import SMALL
from optuna.trial import TrialState
from small_searches import Finished, Notes, Place

from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED
from optuna_kd.cards import RecipeCard, load_card
from optuna_kd.recipe import canonical
from optuna_kd.study import CARD, FACTS, STUDY_ID, WARM_START, WarmStartError, good_recipes
from optuna_kd.study.warm_start import PLAN


def test_a_search_leaves_a_card(finished: Finished) -> None:
    place, result, _ = finished
    card = load_card(result.directory)
    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    assert (card.study, card.study_id) == (summary["study"], summary["study_id"])
    assert (card.recipe, card.method, card.part) == (result.recipe, "auto-kd", "test")
    assert (card.verdict, card.outcome) == (result.verdict, "level")
    assert card.task == place.task.facts()
    assert card.protocol == {**place.task.describe(), "epochs": SMALL["epochs"], "knowledge": "replay"}
    assert [method.method for method in (card.result, *card.controls)] == [SEARCHED, LABELS, PLAIN, TUNED]
    rows = {row.method: row for row in result.rows}
    for method in (card.result, *card.controls):
        runs = summary["runs"][method.method]
        assert method.accuracies == rows[method.method].accuracies
        assert method.recipe == rows[method.method].recipe
        assert method.validation == tuple(run["val_accuracy"] for run in runs)
        assert method.selected == tuple(run["selected_test_accuracy"] for run in runs)
    assert card.versions == summary["versions"]
    assert result.verdict.partition(" (")[0] in (result.directory / "card.md").read_text(encoding="utf-8")


def test_the_study_has_the_card_too(finished: Finished) -> None:
    place, result, _ = finished
    attributes = place.study().user_attrs
    assert RecipeCard.from_dict(attributes[CARD]) == load_card(result.directory)
    assert attributes[FACTS] == place.task.facts().to_dict()


def test_the_runners_up_are_the_other_good_recipes(finished: Finished) -> None:
    result = finished[1]
    card = load_card(result.directory)
    found = [recipe.distiller for recipe in good_recipes(result.study, 10)]
    assert found[0] == card.recipe.distiller
    assert [recipe.distiller for recipe in card.runners_up] == found[1:]
    assert canonical(card.recipe) not in map(canonical, card.runners_up)


def test_another_search_begins_with_it(place: Place) -> None:
    card, notes = load_card(place.folder / "runs" / "small"), Notes()
    place.search(study_name="later", trials=3, seed=1, warm_start="auto", progress=notes)
    trials = place.study("later").trials
    first = [trial for trial in trials if WARM_START in trial.user_attrs]
    assert [trial.number for trial in first] == list(range(1 + len(card.runners_up)))
    assert {trial.user_attrs[WARM_START]["distance"] for trial in first} == {0.0}
    assert first[0].user_attrs["recipe"] == card.result.recipe
    assert sum(trial.state.is_finished() for trial in trials) == 3
    count = len(first)
    assert f"Warm start {count} recipe{'s' * (count > 1)} from small, at distance 0" in notes.lines
    again = Notes()
    place.search(study_name="later", trials=3, seed=1, warm_start="nowhere", progress=again)
    assert "Warm start it has begun already, and goes on as it is" in again.lines
    assert len(place.study("later").trials) == len(trials)


def test_recipes_for_which_there_is_no_room_wait(place: Place) -> None:
    place.search(study_name="short", trials=1, seed=1, warm_start="small")
    states = [trial.state for trial in place.study("short").trials]
    assert states[0] == TrialState.COMPLETE
    assert set(states[1:]) <= {TrialState.WAITING}


def test_a_source_that_holds_nothing_ends_the_search_before_it_begins(empty: Place) -> None:
    with pytest.raises(WarmStartError, match="nothing to begin with called 'nowhere'"):
        empty.search(warm_start="nowhere")
    study = empty.study()
    assert (study.trials, PLAN in study.user_attrs, STUDY_ID in study.user_attrs) == ([], False, True)
    notes = Notes()
    empty.search(warm_start="auto", progress=notes)
    assert "Warm start no recipe to begin with" in notes.lines
