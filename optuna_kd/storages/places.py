"""The places of a study: no more trials than were asked for, and none lost with the process that ran it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from optuna_kd.storages._compat import forget_cached_trials, frozen_of, learn_trials, stale_trial_ids
from optuna_kd.storages.processes import is_gone, this_process
from optuna_kd.storages.pulse import Pulsing
from optuna_kd.storages.relational import PatientStorage
from optuna_kd.storages.retries import NUMBER, ORIGINAL, OWNER, requeue
from optuna_kd.storages.urls import backend_of

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def claim_trial(study: Study, total: int | None) -> Trial | None:
    """Start a trial of a study: one that is queued, or a new one.

    Trials that were closed as interrupted first take their places again (`retire_lost_trials`). Several processes never
    start more trials than the total allows; in a database that is one transaction.

    Args:
        study: The study.
        total: Complete, pruned and running trials that it may have, whoever runs them; None for any number.

    Returns:
        The trial, which is `run_cohort`'s or `optimize`'s to run; None if all places are taken. One that is taken gets
        free again where a trial fails.
    """
    storage = study._storage
    backend, total = backend_of(storage), 2**62 if total is None else total
    if isinstance(backend, PatientStorage):
        trial_id = backend.claim_trial(study._study_id, total, this_process())
        if trial_id is None:
            return None
        forget_cached_trials(study)
        learn_trials(storage, study._study_id)
        return Trial(study, trial_id)
    forget_cached_trials(study)
    if count_taken(study) >= total:
        return None
    owner = backend.pulse.first() if isinstance(backend, Pulsing) else this_process()
    trial_id = _start_waiting(study, owner)
    if trial_id is None:
        trial_id = storage.create_new_trial(study._study_id, _running_trial(owner))
    own = storage.get_trial(trial_id)
    earlier = [trial for trial in study.get_trials(deepcopy=False) if trial.number < own.number]
    again = sum(ORIGINAL in trial.system_attrs for trial in earlier)
    if again and ORIGINAL not in own.system_attrs:
        storage.set_trial_system_attr(trial_id, NUMBER, own.number - again)
    if sum(map(_is_taken, earlier)) >= total:
        # Others were faster; the first by number have the places.
        with contextlib.suppress(UpdateFinishedTrialError):
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
        return None
    return Trial(study, trial_id)


def _start_waiting(study: Study, owner: str) -> int | None:
    """Start the first trial in the queue; it is signed before, because one that nobody has signed holds no place."""
    storage = study._storage
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        with contextlib.suppress(UpdateFinishedTrialError):
            storage.set_trial_system_attr(trial._trial_id, OWNER, owner)
            if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                # Another process may have signed it meanwhile, and come too late.
                storage.set_trial_system_attr(trial._trial_id, OWNER, owner)
                return trial._trial_id
    return None


def count_taken(study: Study) -> int:
    """Count the trials that hold a place of a total: complete and pruned ones, and those that somebody is running."""
    backend = backend_of(study._storage)
    if isinstance(backend, PatientStorage):
        return int(backend.count_taken(study._study_id))
    return sum(_is_taken(trial) for trial in study.get_trials(deepcopy=False))


def _is_taken(trial: FrozenTrial) -> bool:
    return trial.state in FINISHED or (trial.state == TrialState.RUNNING and OWNER in trial.system_attrs)


def _running_trial(owner: str) -> FrozenTrial:
    return FrozenTrial(
        number=-1, trial_id=-1, state=TrialState.RUNNING, value=None, datetime_start=datetime.now(),
        datetime_complete=None, params={}, distributions={}, user_attrs={}, system_attrs={OWNER: owner},
        intermediate_values={},
    )  # fmt: skip


def together(trial: Trial) -> AbstractContextManager[None]:
    """Write the parameters that are suggested inside, and what `write_trial` is given, in one transaction."""
    backend, trial_id = backend_of(trial.storage), frozen_of(trial)._trial_id
    return backend.together(trial_id) if isinstance(backend, PatientStorage) else contextlib.nullcontext()


def write_trial(trial: Trial, user_attrs: Mapping[str, Any], reports: Mapping[int, float] | None = None) -> None:
    """Write attributes and intermediate values of a running trial; in a database that is one transaction.

    What is written is what `trial.set_user_attr` and `trial.report` write, one commit each.

    Args:
        trial: The trial.
        user_attrs: Its user attributes, plain JSON.
        reports: Its intermediate values by step.
    """
    reports, frozen = reports or {}, frozen_of(trial)
    backend = backend_of(trial.storage)
    if isinstance(backend, PatientStorage):
        backend.write_trial(frozen._trial_id, user_attrs, reports)
    else:
        for key, value in user_attrs.items():
            trial.storage.set_trial_user_attr(frozen._trial_id, key, value)
        for step, value in reports.items():
            trial.storage.set_trial_intermediate_value(frozen._trial_id, step, value)
    frozen.user_attrs.update(user_attrs)
    frozen.intermediate_values.update(reports)


def write_study(study: Study, system_attrs: Mapping[str, Any]) -> None:
    """Write system attributes of a study, plain JSON; in a database that is one transaction."""
    backend = backend_of(study._storage)
    if isinstance(backend, PatientStorage):
        backend.write_study(study._study_id, system_attrs)
    else:
        for key, value in system_attrs.items():
            study._storage.set_study_system_attr(study._study_id, key, value)


def retire_trial(study: Study, trial: FrozenTrial, *, stopped: bool = False) -> bool:
    """Close a running trial whose process is gone, or gives it up, and queue it again with everything it had.

    Its parameters, attributes and intermediate values, and the number it goes by (`original_number`), stay; after ten
    times it is closed for good.

    Args:
        study: The study.
        trial: The trial.
        stopped: Whether its process was told to stop: that time is not counted.

    Returns:
        Whether it was running.
    """
    backend = backend_of(study._storage)
    if isinstance(backend, PatientStorage):
        return bool(backend.retire_trial(trial._trial_id, stopped=stopped))
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    requeue(study, trial, stopped=stopped)
    return True


def retire_lost_trials(study: Study) -> int:
    """Close and queue again the running trials that nobody runs any more; give their number.

    These are, at once, those whose process has ended on this machine; of other machines those without heartbeat for a
    minute, and behind a proxy or in a journal file, those whose process has given no sign for two (`Pulsing`).
    """
    backend = backend_of(study._storage)
    lost = stale_trial_ids(backend, study._study_id)
    if isinstance(backend, PatientStorage):
        return sum(backend.retire_trial(trial_id) for trial_id in lost or ())
    if lost is not None:
        return sum(retire_trial(study, backend.get_trial(trial_id)) for trial_id in lost)
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))  # of a storage that was not opened here
    return sum(retire_trial(study, trial) for trial in running if is_gone(str(trial.system_attrs.get(OWNER, ""))))


def count_trials(study: Study) -> Counter[TrialState]:
    """Count the trials of a study by state."""
    backend = backend_of(study._storage)
    if isinstance(backend, PatientStorage):
        return backend.count_trials(study._study_id)
    return Counter(trial.state for trial in study.get_trials(deepcopy=False))
