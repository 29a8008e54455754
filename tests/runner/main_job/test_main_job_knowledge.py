"""How a search asks the teacher: from memory, from disk, or online."""

from __future__ import annotations

import pytest
from main_searches import figures
from small_searches import Finished, Notes, Place

from optuna_kd.registry import UnknownNameError
from optuna_kd.study import StudyMismatchError


def said(notes: Notes) -> list[str]:
    return [line.removeprefix("Knowledge  ") for line in notes.lines if line.startswith("Knowledge")]


def test_what_is_stored_is_said(finished: Finished) -> None:
    (line,) = said(finished[2])
    assert line.startswith("replay: ")
    assert "in memory; pays back after" in line


def test_a_file_is_written_once_and_read_by_the_next_search(empty: Place) -> None:
    folder = empty.folder / "knowledge"
    first, second = Notes(), Notes()
    one = empty.search(knowledge_dir=folder, progress=first, workers=2)
    (file,) = folder.iterdir()
    assert f"in half precision in {file}; pays back after" in said(first)[0]
    written = file.stat().st_mtime_ns
    other = empty.search(knowledge_dir=folder, progress=second, study_name="again", directory=empty.folder / "other")
    assert "there already" in said(second)[0]
    assert file.stat().st_mtime_ns == written
    assert figures(one)[1] == figures(other)[1]  # labels only: the same seeds, whoever asks the teacher


def test_a_file_is_deleted_as_told(empty: Place) -> None:
    empty.search(knowledge_dir=empty.folder / "knowledge", keep_knowledge=False)
    assert list((empty.folder / "knowledge").iterdir()) == []


def test_a_study_goes_on_with_the_knowledge_that_it_began_with(empty: Place) -> None:
    notes = Notes()
    empty.search(knowledge="online", progress=notes)
    assert said(notes) == ["online: as asked"]
    with pytest.raises(StudyMismatchError, match="knowledge is online, asked for replay"):
        empty.search()
    with pytest.raises(StudyMismatchError, match="knowledge is online, asked for aligned"):
        empty.search(knowledge="aligned")
    empty.search(knowledge_limit=0)  # online for another reason


@pytest.mark.parametrize("trials", [1, 4])
def test_what_takes_the_time_is_said_and_written(empty: Place, trials: int) -> None:
    notes = Notes()
    result = empty.search(progress=notes, profile=True, trials=trials)
    (line,) = [line for line in notes.lines if line.startswith("A step")]
    assert all(f"{part} " in line for part in ("student", "teacher", "distiller", "data", "optimizer"))
    assert "(stored)" in line
    assert "aten::" in (result.directory / "profile.txt").read_text(encoding="utf-8")


def test_wrong_arguments_are_refused_before_anything_is_written(empty: Place) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'replay'"):
        empty.search(knowledge="repaly")
    with pytest.raises(ValueError, match="cannot be negative"):
        empty.search(knowledge_limit=-1)
    assert list(empty.folder.iterdir()) == []
