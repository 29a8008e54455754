"""Figures and notes in the dashboard's own format, and whose note is whose."""

from __future__ import annotations

import optuna
import optuna_dashboard
import plotly.graph_objects as go
import pytest
from dashboard_client import Client
from optuna.study import Study

from optuna_kd.analysis.dashboard.sheet import Sheet, is_ours, signed


@pytest.fixture
def study() -> Study:
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(value=float(n)) for n in range(3)])
    return study


def attributes(study: Study) -> dict[str, object]:
    return {
        key: value
        for key, value in study._storage.get_study_system_attrs(study._study_id).items()
        if key.startswith("dashboard:")
    }


@pytest.mark.parametrize("length", [1, 2045, 2046, 9000])
def test_it_is_what_the_dashboard_itself_writes(study: Study, length: int) -> None:
    figure = go.Figure(go.Scatter(x=[1], y=[2], text=["x" * length]))
    sheet, other = Sheet(study), optuna.create_study()
    sheet.draw("a.card", figure.to_json())
    sheet.write_note("n" * length)
    sheet.write()
    optuna_dashboard.save_plotly_graph_object(other, figure, graph_object_id="a.card")
    optuna_dashboard.save_note(other, signed("n" * length))
    assert attributes(study) == attributes(other)
    assert optuna_dashboard.get_note(study) == signed("n" * length)


def test_a_shorter_one_takes_the_place_of_a_longer_one(study: Study) -> None:
    for length in (9000, 10, 3000):
        sheet = Sheet(study)
        sheet.draw("card", go.Figure(go.Scatter(text=["x" * length])).to_json())
        sheet.write_note("n" * length)
        sheet.write_note("t" * length, study.trials[1])
        sheet.write()
        client = Client(study)
        assert client.cards["card"]["data"][0]["text"] == ["x" * length]
        assert client.note == signed("n" * length)
        assert client.notes() == {1: signed("t" * length)}  # of a trial that has ended


def test_nothing_new_is_nothing_written(study: Study) -> None:
    sheet = Sheet(study)
    sheet.write_note("text")
    sheet.write()
    assert sheet.changes == {}
    again = Sheet(study)
    again.write_note("text")
    assert again.changes == {}
    again.write_note("other")
    assert again.get("dashboard:note_ver") == 2


@pytest.mark.parametrize("by_trial", [False, True])
def test_the_note_of_a_person_stays(study: Study, by_trial: bool) -> None:
    trial = study.trials[2] if by_trial else None
    sheet = Sheet(study)
    sheet.write_note("ours", trial)
    assert is_ours(sheet.note(trial))
    changed = sheet.note(trial).replace("ours", "ours, and my remark")
    for note in ("mine", changed, "mine\n\n" + sheet.note(trial), sheet.note(trial) + "\nmine"):
        assert not is_ours(note)
        optuna_dashboard._note.save_note_with_version(
            study._storage, study._study_id, trial._trial_id if trial else None, 7, note
        )
        sheet = Sheet(study)
        sheet.write_note("newer", trial)
        sheet.write_note("", trial)
        assert sheet.changes == {}
        assert sheet.note(trial) == note
    for empty in ("", "  \n"):
        optuna_dashboard._note.save_note_with_version(
            study._storage, study._study_id, trial._trial_id if trial else None, 8, empty
        )
        sheet = Sheet(study)
        sheet.write_note("newer", trial)
        assert sheet.note(trial) == signed("newer")


def test_a_note_that_is_no_longer_due_goes(study: Study) -> None:
    sheet = Sheet(study)
    sheet.write_note("the best", study.trials[0])
    sheet.write()
    sheet = Sheet(study)
    assert [trial.number for trial in sheet.noted(study.trials)] == [0]
    sheet.write_note("", study.trials[0])
    sheet.write()
    assert Client(study).notes() == {}
