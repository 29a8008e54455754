"""Folders that cannot be written to: results, the teacher's answers, the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from disks import Disk
from hard_studies import join
from small_searches import Notes, Place

from optuna_kd.storages import StorageError


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_results_that_cannot_be_written_are_refused_before_a_trial(disk: Disk, place: Place, below: str) -> None:
    disk.forbid()
    with pytest.raises(ValueError, match=r"Results cannot be written to .*small: Read-only file system\. .*--runs"):
        place.search(directory=disk.folder / below)
    assert place.study().trials == []


def test_a_file_where_the_results_should_go_is_refused(place: Place) -> None:
    (place.folder / "runs").write_text("in the way")
    with pytest.raises(ValueError, match=r"Results cannot be written to .*small: Not a directory"):
        place.search()


def test_the_teachers_answers_stay_in_memory(disk: Disk, place: Place) -> None:
    disk.forbid()
    notes = Notes()
    result = place.search(knowledge_dir=disk.folder, progress=notes)
    assert len(result.study.trials) == 4
    (said,) = [line for line in notes.lines if "Read-only file system" in line]
    assert said.startswith("Knowledge ")


def test_a_database_that_would_be_new(disk: Disk, place: Place) -> None:
    disk.forbid()
    with pytest.raises(
        StorageError, match=r"kd\.db: unable to open database file\. Choose a file in a folder"
    ) as caught:
        place.search(storage=f"sqlite:///{disk.folder / 'kd.db'}")
    assert "\n" not in str(caught.value)
    assert not (place.folder / "runs").exists()


def test_a_database_that_is_there(disk: Disk, place: Place) -> None:
    url = f"sqlite:///{disk.folder / 'kd.db'}"
    study = join(url)
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    before = sorted((file.name, file.read_bytes()) for file in disk.folder.iterdir())
    disk.forbid()
    with pytest.raises(StorageError, match=r"kd\.db") as caught:
        place.search(storage=url)
    assert "\n" not in str(caught.value)
    assert sorted((file.name, file.read_bytes()) for file in disk.folder.iterdir()) == before


def test_disks_are_what_they_are_said_to_be(disk: Disk) -> None:
    """A test on a disk that takes everything would pass without saying anything."""
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        (disk.folder / "one more").write_bytes(bytes(4096))
    disk.empty()
    disk.forbid()
    with pytest.raises(OSError, match="Read-only"):
        Path(disk.folder / "one more").write_bytes(b"x")
