"""Studies that have little to say, or say strange things: each gives a page that says what is missing."""

from __future__ import annotations

import re
from typing import Any

import made_up
import optuna
import pytest
from made_cards import compared_card, facts
from optuna.storages import InMemoryStorage
from optuna.study import Study
from report_studies import Page, report_of

from optuna_kd.cards import MethodResult
from optuna_kd.study import CARD, COMMAND, FACTS, KNOWLEDGE, SETTINGS, create_study

NOT_OURS = "This study was not made by optuna_kd."
SAID = {
    "empty": "The study has no trials yet.",
    "only_waiting": "No trial has run to its end",
    "one_trial": "Trial 0, with a value of 1: the best single one, and so partly the luckiest.",
    "one_without_parameters": "Trial 0, with a value of 1",
    "all_pruned": "No trial has run to its end",
    "pruned_without_reports": "No trial has run to its end",
    "all_failed": "No trial has run to its end",
    "still_running": "2 trials are still running",
    "numbers": "value (minimised)",
    "many_objectives": "value 0 (minimised), value 1 (minimised), value 2 (maximised) and value 3 (minimised)",
    "constrained": "10 trials break a constraint",
    "all_infeasible": "6 trials break a constraint",
    "mixed_spaces": "The best trial",
    "huge_values": "Trial 2, with a value of 1e308",
    "odd_values": "Trial 3, with a value of 1e308",
    "equal_values": "12: 12 ran to the end",
    "odd_values_of_two": "Objectives",
    "nasty_names": "<script>2</script> (maximised)",
    "odd_attributes": "The best trial",
    "auto_kd": "the search has not come to its end",
    "uniads": "cross_entropy (minimised) and parameters (minimised)",
}


@pytest.fixture(scope="module", params=made_up.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_kind_of_study_has_its_page(kind: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = made_up.KINDS[kind]()
    report = report_of(study)
    html, text = report.to_html(), report.to_markdown()
    page = Page(html)
    assert " ".join(SAID[kind].split()) in page.text
    assert report.closing is None
    assert "No verdict yet" in page.text
    ours = SETTINGS in study.user_attrs
    assert (NOT_OURS in page.text) is not ours
    assert (NOT_OURS in text.replace("\\_", "_")) is not ours
    assert len(html) < 8_000_000
    assert len(text) < 200_000
    assert "nan" not in page.text.lower().split()


def test_our_study_that_goes_on_has_its_best_recipe_so_far() -> None:
    report = report_of(made_up.auto_kd(8))
    assert report.found is not None
    assert "The best so far, by the proxies alone" in report.found.standing
    assert report.found.words
    assert "optuna_kd.Recipe.from_string" in report.found.snippets[0].code
    assert "run again, goes on from here" in report.missing[-1]


def test_our_study_without_trials_has_no_recipe() -> None:
    report = report_of(create_study(storage=None, seed=0))
    assert report.found is None
    assert report.missing[0] == "The study has no trials yet."
    assert "10,368 recipes" in Page(report.to_html()).text


def test_trainings_beside_a_search_lead_to_its_report() -> None:
    storage = InMemoryStorage()
    create_study(storage=storage, study_name="mine", seed=0)
    names = ("mine/controls", "mine/", "other/controls")
    for name in names:
        optuna.create_study(storage=storage, study_name=name)
    said = [report_of(optuna.load_study(study_name=name, storage=storage)).missing for name in names]
    assert said[0] == said[1]
    assert said[0][0].startswith("This study keeps trainings of the search 'mine', one a trial.")
    assert not any("'other'" in line for line in said[2])


@pytest.mark.parametrize("stored", [{"format": "optuna_kd.card", "version": 2}, "a card", {}])
def test_a_card_that_cannot_be_read_is_a_line(stored: Any) -> None:
    study = made_up.auto_kd(5)
    study.set_user_attr(CARD, stored)
    report = report_of(study)
    assert report.closing is None
    assert report.missing[0].startswith("Its recipe card cannot be read: ")
    assert report.missing[0] in Page(report.to_html()).text


def test_settings_of_a_later_version_are_a_line() -> None:
    study = made_up.one_trial()
    study.set_user_attr(SETTINGS, {"method": "later", "seed": [1], "space": {"name": "later"}})
    study.set_user_attr(FACTS, {"data": 3})
    study.set_user_attr(COMMAND, ["search"])
    study.set_user_attr(KNOWLEDGE, "telepathy")
    text = Page(report_of(study).to_html()).text
    assert "Method later" in text
    assert "this version cannot read it: Unknown search space 'later'" in text
    assert "telepathy" in text


def nasty_study() -> Study:
    """A study and a card with mark-up wherever a text can stand."""
    bad = "</script><img src=x onerror=alert(1)>`|\n# *x* {{ 7 * 7 }} " + "ü" * 1500
    short = bad[:300]
    card = compared_card(
        task=facts(data_name=short, teacher_name=short, student_name=short),
        protocol={short: short, "epochs": 3, "deep": [{"x": short}]},
        result=MethodResult(short, short, (0.9, 0.8), (0.9, 0.8)),
        controls=(MethodResult("tuned KD", short, (0.7, 0.75), (0.9, 0.8)),),
        study=short,
        versions={short: short},
    )
    study = made_up.nasty_names()
    study.set_user_attr(CARD, card.to_dict())
    study.set_user_attr(COMMAND, {"data": short, "runs": short, "$(touch x)": 1, "teacher": "'; touch x; '"})
    return study


def test_names_do_nothing_in_the_page() -> None:
    study = nasty_study()
    report = report_of(study)
    page = Page(report.to_html())
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"img", "b", "i", "x"}
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2 + len(
        [attributes for _, attributes in page.tags if attributes.get("class") == "plot"]
    )
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "49" not in page.text.split()  # a template inside of a name is text
    assert "{{ 7 * 7 }}" in page.text
    assert max(map(len, page.text.split())) < 2000


def test_names_do_nothing_in_markdown() -> None:
    text = report_of(nasty_study()).to_markdown()
    in_code = re.sub(r"^(`{3,}).*?^\1$|(`+)[^\n]*?\2", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in in_code.replace("\\<", "")
    assert not re.search(r"^# \*x", in_code, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 3000
