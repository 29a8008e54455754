"""Counting the trials of a study in its database, without reading them."""

from __future__ import annotations

from collections import Counter

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.orm import Session

from optuna_kd.storages._compat import models
from optuna_kd.storages.retries import ORIGINAL, OWNER


def count_states(session: Session, study_id: int) -> Counter[TrialState]:
    """Count trials by state."""
    rows = (
        session.query(models.TrialModel.state, sqlalchemy.func.count())
        .filter(models.TrialModel.study_id == study_id)
        .group_by(models.TrialModel.state)
    )
    return Counter({state: int(count) for state, count in rows})


def count_taken(session: Session, study_id: int) -> int:
    """Count the trials that hold a place of a total: complete and pruned ones, and those that somebody is running."""
    # In one statement: a trial that ends between two would be in neither. Without a join: of ten thousand trials a
    # handful is running.
    trial, heartbeat, owner = models.TrialModel, models.TrialHeartbeatModel, models.TrialSystemAttributeModel
    has_heartbeat = sqlalchemy.exists().where(heartbeat.trial_id == trial.trial_id)
    # Those of workers behind a proxy have an owner only.
    has_owner = sqlalchemy.exists().where((owner.trial_id == trial.trial_id) & (owner.key == OWNER))
    is_alive = (trial.state == TrialState.RUNNING) & (has_heartbeat | has_owner)
    taken = (
        session.query(sqlalchemy.func.count())
        .select_from(trial)
        .filter(trial.study_id == study_id)
        .filter(trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)) | is_alive)
    )
    return int(taken.scalar() or 0)


def count_originals(session: Session, trial: models.TrialModel) -> int | None:
    """Count the trials before one that run no other one again; None if none does, or if it does so itself."""
    other, attribute = models.TrialModel, models.TrialSystemAttributeModel
    until = (other.study_id == trial.study_id) & (other.trial_id <= trial.trial_id)
    # Few studies have failed trials, and only such are run again.
    failed = session.query(other.trial_id).filter(until & (other.state == TrialState.FAIL)).limit(1).scalar()
    if failed is None:
        return None
    again = session.query(other.trial_id).join(attribute, attribute.trial_id == other.trial_id)
    numbers = {int(trial_id) for (trial_id,) in again.filter(until & (attribute.key == ORIGINAL))}
    return int(trial.number) - len(numbers) if numbers and int(trial.trial_id) not in numbers else None
