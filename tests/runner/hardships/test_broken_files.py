"""Files that were cut off between two runs of a search: a checkpoint, the database."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hard_studies import Outcomes, outcomes, run
from small_searches import Place

from optuna_kd.storages import StorageError
from optuna_kd.training import StudentTraining

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off_costs_time_alone(
    task: Any, undisturbed: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The second trial is ended after its first rung; None leaves its checkpoint as it is."""
    url, folder = f"sqlite:///{tmp_path / 'kd.db'}", tmp_path / "checkpoints"
    learn, trained = StudentTraining.learn, StudentTraining._lessons_of
    steps, epochs = iter(range(10**6)), []

    def ends(self: StudentTraining, lesson: Any) -> None:
        if lesson.epoch == 1 and next(steps) == 1:
            raise KeyboardInterrupt
        learn(self, lesson)

    def notes(self: StudentTraining, epoch: int, cycle: tuple[int, int]) -> Any:
        epochs.append(epoch)
        return trained(self, epoch, cycle)

    run(task, url, 1, folder)
    with monkeypatch.context() as patch:
        patch.setattr(StudentTraining, "learn", ends)
        with pytest.raises(KeyboardInterrupt):
            run(task, url, 3, folder)
    (checkpoint,) = folder.glob("*.ckpt")
    if share is not None:
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[: int(share * len(content))])
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(StudentTraining, "_lessons_of", notes)
        study = run(task, url, 3, folder)
    assert [record.getMessage() for record in caplog.records] == (
        [] if share is None else [f"Starting over: the checkpoint {checkpoint} is damaged."]
    )
    assert epochs[:3] == ([1, 2, 0] if share is None else [0, 1, 2])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert outcomes(study) == {number: undisturbed[number] for number in (0, 1, 2)}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_database_that_was_cut_off_is_refused_and_left_alone(place: Place, share: float) -> None:
    study = place.search(trials=1).study
    with study._storage._backend.engine.connect() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = (place.folder / "kd.db").read_bytes()
    file = place.folder / "restored" / "kd.db"
    file.parent.mkdir()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StorageError, match=r"kd\.db: database disk image is malformed\. .*restore a copy") as caught:
        place.search(trials=2, storage=f"sqlite:///{file}")
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == whole[: int(share * len(whole))]
