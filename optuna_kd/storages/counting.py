"""Counting the trials of a study in its database, without reading them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Overview:
    """The trials of a study at one moment.

    Args:
        counts: Of them, by state.
        running: Ids of the running ones.
        waiting: Ids of the queued ones, the first one first.
    """

    counts: Counter[TrialState]
    running: list[int]
    waiting: list[int]


def look_over(session: Session, study_id: int) -> Overview:
    """Read which trials a study has, in one pass over them: of ten thousand a handful is running or queued."""
    trial = models.TrialModel
    is_open = trial.state.in_((TrialState.RUNNING, TrialState.WAITING))
    open_id = sqlalchemy.case((is_open, trial.trial_id))
    rows = (
        session.query(trial.state, open_id, sqlalchemy.func.count())
        .filter(trial.study_id == study_id)
        .group_by(trial.state, open_id)
    )
    counts: Counter[TrialState] = Counter()
    ids: dict[TrialState, list[int]] = {TrialState.RUNNING: [], TrialState.WAITING: []}
    for state, trial_id, count in rows:
        counts[state] += int(count)
        if trial_id is not None:
            ids[state].append(int(trial_id))
    return Overview(counts, ids[TrialState.RUNNING], sorted(ids[TrialState.WAITING]))


def count_taken(session: Session, study_id: int, overview: Overview | None = None) -> int:
    """Count the trials that hold a place of a total: complete and pruned ones, and those that somebody is running."""
    # Whoever runs a trial is looked for afterwards, by its id: one that ends meanwhile keeps its heartbeat, and counts.
    overview = overview or look_over(session, study_id)
    finished = overview.counts[TrialState.COMPLETE] + overview.counts[TrialState.PRUNED]
    if not overview.running:
        return finished
    trial, heartbeat, owner = models.TrialModel, models.TrialHeartbeatModel, models.TrialSystemAttributeModel
    has_heartbeat = sqlalchemy.exists().where(heartbeat.trial_id == trial.trial_id)
    # Those of workers behind a proxy have an owner only.
    has_owner = sqlalchemy.exists().where((owner.trial_id == trial.trial_id) & (owner.key == OWNER))
    alive = session.query(sqlalchemy.func.count()).select_from(trial)
    alive = alive.filter(trial.trial_id.in_(overview.running), has_heartbeat | has_owner)
    return finished + int(alive.scalar() or 0)


def count_originals(session: Session, trial: models.TrialModel) -> int | None:
    """Count the trials before one that run no other one again; None if none does, or if it does so itself."""
    other, attribute = models.TrialModel, models.TrialSystemAttributeModel
    until = (other.study_id == trial.study_id) & (other.trial_id <= trial.trial_id)
    again = session.query(other.trial_id).join(attribute, attribute.trial_id == other.trial_id)
    numbers = {int(trial_id) for (trial_id,) in again.filter(until & (attribute.key == ORIGINAL))}
    return int(trial.number) - len(numbers) if numbers and int(trial.trial_id) not in numbers else None
