"""What stock optuna-dashboard shows of a study that was published."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import made_up
import optuna
import pytest
from dashboard_client import Client
from markdown_it import MarkdownIt
from optuna.study import Study

import optuna_kd
from optuna_kd.analysis.dashboard import publish
from optuna_kd.analysis.dashboard.cards import CARDS, HEIGHT
from optuna_kd.analysis.dashboard.publishing import PUBLISHED
from optuna_kd.storages import StorageError, create_storage, open_to_read
from optuna_kd.study import SETTINGS

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def kept(study: Study, url: str, name: str = "kept") -> Study:
    """Copy a study into a database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = create_storage(url)
        optuna.copy_study(
            from_study_name=study.study_name, from_storage=study._storage, to_storage=storage, to_study_name=name
        )
    return optuna.load_study(study_name=name, storage=storage)


def test_every_kind_of_study_has_a_page(study: Study) -> None:
    publish(study, whole=False)
    client = Client(study)
    assert set(client.cards) <= set(CARDS.values())
    if study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        assert "optuna_kd.history" in client.cards
    for card in client.cards.values():
        assert card["layout"]["height"] <= HEIGHT  # what is beyond is cut off
        title = card["layout"]["title"]["text"]
        assert title.startswith("<b>")
        assert not re.sub("</?b>|<br>", "", title).count("<")  # no mark-up but ours
    assert client.note.startswith("### ")
    for note in (client.note, *client.notes().values()):
        tokens = [inner for token in MARKDOWN.parse(note) for inner in (token, *(token.children or ()))]
        assert not {token.type for token in tokens} & {"html_inline", "html_block", "image"}
        assert all(
            token.attrs["href"].startswith("/dashboard/studies/") for token in tokens if token.type == "link_open"
        )
    assert all(len(value) <= 2045 for value in texts_of(study))


def texts_of(study: Study) -> list[str]:
    attributes = study._storage.get_study_system_attrs(study._study_id)
    return [value for key, value in attributes.items() if key.startswith("dashboard:") and isinstance(value, str)]


def test_what_needs_a_fit_is_drawn_when_everything_is() -> None:
    study = made_up.auto_kd()
    publish(study, whole=False)
    assert "optuna_kd.importance" not in Client(study).cards
    publish(study)
    cards = Client(study).cards
    assert {"optuna_kd.importance", "optuna_kd.options"} <= set(cards)
    # A parameter that exists in some branches only.
    assert any("feature_distance" in note["text"] for note in cards["optuna_kd.importance"]["layout"]["annotations"])
    publish(study, whole=False)
    assert Client(study).cards["optuna_kd.importance"] == cards["optuna_kd.importance"]  # stays
    assert study._storage.get_study_system_attrs(study._study_id)[PUBLISHED] == {"finished": 40, "whole": 40}


def test_again_takes_the_place_of_what_was_there() -> None:
    study = made_up.numbers(12)
    publish(study, whole=False)
    before = Client(study)
    first, version = before.cards, before.page["note"]["version"]
    publish(study, whole=False)
    assert Client(study).cards == first
    assert Client(study).page["note"]["version"] == version  # nothing new: whoever edits it is not disturbed
    study.add_trials([made_up.trial({}, 0.001)])
    publish(study, whole=False)
    after = Client(study)
    assert set(after.cards) == set(first)
    assert after.cards["optuna_kd.history"] != first["optuna_kd.history"]
    assert "trial 12" in after.note
    assert after.page["note"]["version"] == version + 1


def test_a_database_gets_it_in_one_piece(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = kept(made_up.constrained(), database)
    publish(study, whole=False)
    again = optuna.load_study(study_name="kept", storage=create_storage(database))
    cards = Client(again).cards
    assert {"optuna_kd.history", "optuna_kd.front"} <= set(cards)
    # A failure in the middle leaves everything as it was.
    study.add_trial(made_up.trial({"x": 0.1, "size": 1}, [0.001, 1.0]))

    def dumps(value: object) -> str:
        if isinstance(value, str) and "trial 30" in value:
            raise RuntimeError("cut off")
        return json.dumps(value)

    monkeypatch.setattr("optuna_kd.storages.upserts.json", SimpleNamespace(dumps=dumps, loads=json.loads))
    with pytest.raises(StorageError, match=r" cannot be written: cut off"):
        publish(study, whole=False)
    monkeypatch.undo()
    assert Client(optuna.load_study(study_name="kept", storage=create_storage(database))).cards == cards


def test_a_storage_that_is_read_only_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    kept(made_up.one_trial(), url)
    study = optuna.load_study(study_name="kept", storage=open_to_read(url))
    with pytest.raises(StorageError, match=r"^sqlite:.* cannot be written: .*readonly database\."):
        publish(study)


def test_a_study_of_ours_names_its_reward() -> None:
    study = made_up.auto_kd(6)
    assert study.metric_names is None
    publish(study, whole=False)
    assert study.metric_names == ["reward"]
    assert Client(study).page["objective_names"] == ["reward"]
    foreign = made_up.one_trial()
    publish(foreign)
    assert foreign.metric_names is None
    assert SETTINGS not in foreign.user_attrs


def test_a_large_study_is_thinned_and_says_so() -> None:
    study = made_up.uniads(1500)
    optuna_kd.publish(study, whole=False)
    cards = Client(study).cards
    sizes = {name: len(json.dumps(card)) for name, card in cards.items()}
    assert sum(sizes.values()) < 400_000, sizes
    for name in ("history", "front"):
        assert re.search(r"\d{3} of [\d,]+ .*trials are drawn, evenly spaced", json.dumps(cards[f"optuna_kd.{name}"]))
