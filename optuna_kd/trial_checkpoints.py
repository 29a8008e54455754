"""The files in which the trials of a study keep their state: what they are called, and when nobody needs them."""

from __future__ import annotations

from pathlib import Path

from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.files import remove
from optuna_kd.storages import original_number
from optuna_kd.study import STUDY_ID
from optuna_kd.training.checkpoint import checkpoint_file


def file_of_trial(folder: Path, study: Study, number: int) -> Path:
    """Name the file of a trial by the number that it goes by (`optuna_kd.storages.original_number`)."""
    return checkpoint_file(folder, _called(study), number)


def sweep_checkpoints(study: Study, folder: Path) -> None:
    """Remove from a folder the states of those trials of a study that are neither running nor queued.

    Others have finished them, with a folder of their own, or they were given up.
    """
    stem = checkpoint_file(folder, _called(study)).stem
    # What follows the name of the study is a number for trials, and more for full trainings.
    files = [file for file in folder.glob("*.ckpt") if file.stem.rpartition("-")[0] == stem]
    if not files:
        return
    # Asked for after the files: whoever writes one has a trial that is running.
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    kept = {file_of_trial(folder, study, original_number(trial)) for trial in trials}
    for file in files:
        if file not in kept:
            remove(file)


def _called(study: Study) -> str:
    return str(study.user_attrs.get(STUDY_ID, study.study_name))
