"""A search keeps to the views that it began with, whatever becomes of the folder for the teacher's answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_searches import Notes, Place, Task

from optuna_kd.recipe import ProxyConfig
from optuna_kd.study import KNOWLEDGE
from optuna_kd.training.stored import TeacherKnowledge

SMALL: dict[str, Any] = {
    "trials": 2,
    "epochs": 3,  # one more than there are views
    "seeds": 1,
    "confirm": 0,
    "proxy": ProxyConfig(epochs=3, rungs=(3,)),
    "study_name": "small",
    "progress": False,
}
HALF_ONLY = 600_000  # bytes: enough for half precision, which only a disk holds


@pytest.fixture
def place(teaching_task: Task, tmp_path: Path) -> Place:
    return Place(teaching_task, tmp_path, SMALL)


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that cannot be made."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "knowledge"


def said(notes: Notes) -> list[str]:
    return [line.removeprefix("Knowledge  ") for line in notes.lines if line.startswith("Knowledge")]


def labels_only(place: Place, **changes: Any) -> dict[str, Any]:
    """Give what the control without a teacher scored: the same, to the last bit, for the same views."""
    place.search(**changes)
    name = changes.get("study_name", "small")
    (control,) = [trial for trial in place.study(f"{name}/controls").trials if "labels" in str(trial.user_attrs)]
    return {key: value for key, value in control.user_attrs.items() if key in ("cross_entropy", "cka", "accuracy")}


def test_a_search_that_cannot_store_shows_the_same_views(place: Place, blocked: Path) -> None:
    notes = Notes()
    stored = labels_only(place, study_name="stored")
    unstored = labels_only(
        place, study_name="unstored", knowledge_dir=blocked, knowledge_limit=HALF_ONLY, progress=notes
    )
    online = labels_only(place, study_name="online", knowledge="online")
    assert unstored["cross_entropy"] == stored["cross_entropy"] != online["cross_entropy"]
    assert [line.partition(":")[0] for line in said(notes)] == ["replay", "The teacher's outputs cannot be kept in "
        f"{blocked} (Not a directory)", "replay"]  # fmt: skip
    assert "the teacher is asked in every step, about the same 2 views" in said(notes)[2]
    assert place.study("unstored").user_attrs[KNOWLEDGE] == "replay"


def test_a_study_goes_on_when_its_folder_cannot_be_used_any_more(place: Place, blocked: Path) -> None:
    folder = place.folder / "knowledge"
    place.search(knowledge_dir=folder, knowledge_limit=HALF_ONLY)
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    notes = Notes()
    place.search(knowledge_dir=folder, knowledge_limit=HALF_ONLY, trials=3, progress=notes)
    assert "the teacher is asked in every step" in said(notes)[-1]
    folder.unlink()
    place.search(knowledge_dir=folder, knowledge_limit=HALF_ONLY, trials=4)
    assert len(place.study().trials) == 4
    assert len(list(folder.iterdir())) == 1


def test_a_damaged_file_is_said_and_rebuilt(place: Place) -> None:
    folder, notes = place.folder / "knowledge", Notes()
    place.search(knowledge_dir=folder)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    place.search(knowledge_dir=folder, trials=3, progress=notes)
    assert f"{file} cannot be used (it has" in said(notes)[1]
    assert file.read_bytes() == whole


def test_a_full_scratch_folder_costs_only_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    save: Callable[..., None] = TeacherKnowledge.save

    def full(self: TeacherKnowledge, path: Path) -> None:
        if self.is_stored:
            raise OSError(f"Cannot write {path}: No space left on device")
        save(self, path)

    notes = Notes()
    stored = labels_only(place, study_name="stored")
    monkeypatch.setattr(TeacherKnowledge, "save", full)
    assert labels_only(place, study_name="full", progress=notes)["cross_entropy"] == stored["cross_entropy"]
    assert "No space left on device: the workers ask the teacher in every step" in said(notes)[1]
