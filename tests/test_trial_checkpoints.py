"""Which files of a folder of checkpoints nobody needs any more."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optuna_kd import create_study, optimize
from optuna_kd.storages import RETRIES, claim_trial, original_number, retire_trial
from optuna_kd.training.checkpoint import checkpoint_file
from optuna_kd.trial_checkpoints import file_of_trial, sweep_checkpoints

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def test_those_of_trials_that_ended_elsewhere_go(tmp_path: Path) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", study_name="s-1")
    trials = [claim_trial(study, 9) for _ in range(3)]
    assert all(trials)
    for _ in range(RETRIES + 1):  # the first is given up
        again = next(trial for trial in reversed(study.trials) if original_number(trial) == 0)
        if again.state == TrialState.WAITING:
            claim_trial(study, 9)
        retire_trial(study, again)
    study.tell(1, 0.5)
    retire_trial(study, study.trials[2])  # and is queued
    assert claim_trial(study, 9) is not None
    assert claim_trial(study, 9) is not None
    folder, other = tmp_path / "checkpoints", create_study(storage=None, study_name="s")
    folder.mkdir()
    own = [file_of_trial(folder, study, number) for number in range(4)]
    assert [original_number(study.trials[-1])] == [3]
    name = own[0].stem.rpartition("-")[0]
    others = [
        file_of_trial(folder, other, 2),
        checkpoint_file(folder, name, "0f3a", 8, 2),  # a full training
        folder / "notes.txt",
    ]
    for file in own + others:
        file.write_bytes(b"")
    sweep_checkpoints(study, folder)
    assert sorted(folder.iterdir()) == sorted([own[2], own[3], *others])


def test_optimize_sweeps_at_its_end(tmp_path: Path) -> None:
    swept = []

    class Objective:
        def __call__(self, trial: optuna.Trial) -> float:
            return 0.0

        def sweep(self, study: optuna.Study) -> None:
            swept.append(len(study.trials))

    optimize(create_study(storage=None), Objective(), total_trials=3)
    assert swept == [3]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    sweep_checkpoints(create_study(storage=None), tmp_path / "nowhere")
