"""The disk fills up: under checkpoints, results, and the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import torch
from disks import Disk
from hard_studies import TOTAL, Outcomes, join, outcomes, run
from optuna.trial import TrialState
from small_searches import Place

import optuna_kd.objective
import optuna_kd.study.optimizing
from optuna_kd.objective import DistillationObjective
from optuna_kd.storages import StorageError, retire_trial
from optuna_kd.storages.urls import StorageFailedError
from optuna_kd.study import count_finished

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def test_without_room_for_checkpoints_a_study_goes_on(
    disk: Disk, task: Any, undisturbed: Outcomes, caplog: pytest.LogCaptureFixture
) -> None:
    disk.fill(leave=8192)
    study = run(task, None, 4, disk.folder / "checkpoints")
    assert outcomes(study) == {number: undisturbed[number] for number in range(4)}
    assert [record.getMessage() for record in caplog.records] == [
        f"No checkpoints are kept in {disk.folder / 'checkpoints'} (No space left on device): an interrupted training "
        "starts over."
    ]
    assert list((disk.folder / "checkpoints").iterdir()) == []  # nothing half written


@pytest.mark.parametrize("leave", [20_000, 60_000])  # bytes: for no student; for one, and not for its copy
def test_results_without_room_are_an_error_and_nothing_is_lost(disk: Disk, place: Place, leave: int) -> None:
    disk.fill(leave)
    with pytest.raises(OSError, match=rf"No space left on device: '{disk.folder}.*\.pt'"):
        place.search(directory=disk.folder)
    assert list(disk.folder.rglob("*.partial")) == []
    for file in disk.folder.rglob("*.pt"):
        torch.load(file, weights_only=True)  # whole
    before = place.counts()
    disk.empty()
    place.search(directory=disk.folder)
    assert place.counts()["small"] == before["small"] == 4
    assert place.counts()["small/controls"] == before["small/controls"]
    assert {file.name for file in (disk.folder / "small").glob("*.*")} == {
        "student.pt", "recipe.json", "summary.json", "card.json", "card.md", "report.html", "report.md"
    }  # fmt: skip


@pytest.mark.parametrize("where", ["optuna_kd.study.optimizing.claim_trial", "optuna_kd.objective.write_trial"])
def test_a_database_without_room_is_an_error_and_its_study_goes_on_later(
    disk: Disk, task: Any, undisturbed: Outcomes, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url, calls = f"sqlite:///{disk.folder / 'kd.db'}", iter(range(100))
    module, name = where.rsplit(".", 1)
    original = getattr({one.__name__: one for one in (optuna_kd.study.optimizing, optuna_kd.objective)}[module], name)

    def fills(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 7:
            disk.fill()
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, fills)
        with pytest.raises(
            StorageFailedError, match=r"kd\.db failed: database or disk is full\. What it holds is kept"
        ):
            run(task, url)
    assert 1 <= count_finished(join(url)) < TOTAL
    disk.empty()
    for trial in join(url).get_trials(states=(TrialState.RUNNING,)):
        retire_trial(join(url), trial)  # this process lives on, so that it would be waited for
    study = run(task, url)
    assert count_finished(study) == TOTAL
    assert outcomes(study).items() <= undisturbed.items()


def test_a_search_whose_database_has_no_room_says_so_and_goes_on_later(
    disk: Disk, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_kd.storages.opening.GRACE_SECONDS", 1)  # for the trial that this process leaves open
    url, calls, attempt = f"sqlite:///{disk.folder / 'kd.db'}", iter(range(100)), DistillationObjective.attempt

    def fills(self: DistillationObjective, trial: optuna.Trial) -> Iterator[Any]:
        if next(calls) == 2:
            disk.fill()
        return (yield from attempt(self, trial))

    with monkeypatch.context() as patch:
        patch.setattr(DistillationObjective, "attempt", fills)
        with pytest.raises(StorageFailedError, match="database or disk is full") as caught:
            place.search(storage=url)
    assert "\n" not in str(caught.value)
    disk.empty()
    result = place.search(storage=url)
    assert count_finished(result.study) == 4
    assert outcomes(result.study) == outcomes(place.search(storage=None).study)


def test_a_disk_that_is_full_at_the_beginning(disk: Disk, place: Place) -> None:
    disk.fill()
    url = f"sqlite:///{disk.folder / 'kd.db'}"
    with pytest.raises(StorageError, match=r"kd\.db: database or disk is full\. ") as caught:
        place.search(storage=url)
    assert "\n" not in str(caught.value)
    assert not (place.folder / "runs").exists()
    disk.empty()
    assert join(url).trials == []
