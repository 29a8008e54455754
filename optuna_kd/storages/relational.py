"""A database that may be busy, restarted or shared by dying workers: Optuna's storage, made patient and exact."""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from optuna_kd.storages._compat import models, scoped
from optuna_kd.storages.retries import OWNER, retry_of
from optuna_kd.storages.transient import SILENT, Result, is_passing, persist
from optuna_kd.storages.urls import show_url
from optuna_kd.storages.watch import Watch

Method = TypeVar("Method", bound=Callable[..., Any])

# Of databases that can insert or update several rows in one statement of the same kind.
UPSERTS: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class SQLiteConnection(sqlite3.Connection):
    """A connection on which foreign keys hold; in SQLite each connection decides that for itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA foreign_keys=ON")


def patient(method: Method) -> Method:
    """Let a method of a storage try again while its database is busy, restarting or out of reach."""

    @functools.wraps(method)
    def tried_again(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self.persist(lambda: method(self, *args, **options))

    return tried_again  # type: ignore[return-value]


class PatientStorage(RDBStorage):
    """An `RDBStorage` that outlives restarts of its database, and whose trials outlive those who ran them.

    What is written twice, because an answer was lost, is written once: values and attributes replace themselves, a
    state is checked, and a trial that was claimed without anyone hearing of it is that of a process that died.

    Args:
        url: Of the database.
        patience: Seconds for which a database may be out of reach.
        options: Of `RDBStorage`.
    """

    def __init__(self, url: str, *, patience: float, **options: Any) -> None:
        self.patience, self.watch = patience, Watch()
        super().__init__(url, **options)

    def persist(self, work: Callable[[], Result]) -> Result:
        """Do some work, again and again while the database is busy, restarting or out of reach."""
        began = time.monotonic()

        def prepare() -> None:
            self.remove_session()
            if time.monotonic() - began > SILENT:
                self.watch.was_blind()

        return persist(work, patience=self.patience, name=show_url(self.engine.url), on_retry=prepare)

    # Starting and ending trials: one transaction each, so that they cannot be left half done.

    @patient
    def claim_trial(self, study_id: int, total: int, owner: str) -> int | None:
        """Start a trial if the study has fewer than so many that are finished or running: a queued one, or a new one.

        Args:
            study_id: Of the study.
            total: Complete, pruned and running trials that it may have. A running one without heartbeat and without
                owner (`Study.ask`) is not counted: nobody would see that it is given up.
            owner: Who runs it (`this_process`).

        Returns:
            Its id; None if there is no place.
        """
        with self._one_by_one(study_id) as session:
            if self._count_taken(session, study_id) >= total:
                return None
            trials = session.query(models.TrialModel).filter(models.TrialModel.study_id == study_id)
            waiting = trials.filter(models.TrialModel.state == TrialState.WAITING)
            trial = waiting.order_by(models.TrialModel.number).first()
            if trial is None:
                trial = self._get_prepared_new_trial(study_id, None, session)
            else:
                trial.state, trial.datetime_start = TrialState.RUNNING, datetime.now()
            trial_id = int(trial.trial_id)
            session.add(models.TrialHeartbeatModel(trial_id=trial_id))
            self._set_trial_attr_without_commit(session, models.TrialSystemAttributeModel, trial_id, OWNER, owner)
            return trial_id

    @patient
    def retire_trial(self, trial_id: int) -> bool:
        """Close a running trial that nobody runs any more, and queue it again with everything it had.

        Returns:
            Whether it was running.
        """
        study_id = self._study_of(trial_id)
        with self._one_by_one(study_id) as session:
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            if trial.state != TrialState.RUNNING:
                return False
            frozen = self._build_frozen_trial_from_trial_model(trial)
            trial.state, trial.datetime_complete = TrialState.FAIL, datetime.now()
            if (again := retry_of(frozen)) is not None:
                self._get_prepared_new_trial(study_id, again, session)
            return True

    @patient
    def write_trial(self, trial_id: int, user_attrs: Mapping[str, Any], reports: Mapping[int, float]) -> None:
        """Write attributes and intermediate values of a trial, in one transaction for all."""
        with scoped(self.scoped_session) as session:
            state: Any = models.TrialModel.find_or_raise_by_id(trial_id, session).state
            self.check_trial_is_updatable(trial_id, state)
            table = models.TrialUserAttributeModel
            if (insert := UPSERTS.get(self.engine.dialect.name)) is not None and user_attrs:
                statement = insert(table).values(
                    [
                        {"trial_id": trial_id, "key": key, "value_json": json.dumps(user_attrs[key])}
                        for key in user_attrs
                    ]
                )
                keys, new = [table.trial_id, table.key], {"value_json": statement.excluded.value_json}
                session.execute(statement.on_conflict_do_update(index_elements=keys, set_=new))
            else:
                for key, value in user_attrs.items():
                    self._set_trial_attr_without_commit(session, table, trial_id, key, value)
            for step, value in reports.items():
                self._set_trial_intermediate_value_without_commit(session, trial_id, step, value)

    @patient
    def count_trials(self, study_id: int) -> Counter[TrialState]:
        """Count the trials of a study by state, without reading them."""
        with scoped(self.scoped_session) as session:
            return self._count(session, study_id)

    @patient
    def count_taken(self, study_id: int) -> int:
        """Count the trials that hold a place of the total, as `claim_trial` does."""
        with scoped(self.scoped_session) as session:
            return self._count_taken(session, study_id)

    @contextlib.contextmanager
    def _one_by_one(self, study_id: int) -> Iterator[Session]:
        with scoped(self.scoped_session) as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))  # readers that write later would collide
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            yield session

    @staticmethod
    def _count(session: Session, study_id: int) -> Counter[TrialState]:
        rows = (
            session.query(models.TrialModel.state, sqlalchemy.func.count())
            .filter(models.TrialModel.study_id == study_id)
            .group_by(models.TrialModel.state)
        )
        return Counter({state: int(count) for state, count in rows})

    @staticmethod
    def _count_taken(session: Session, study_id: int) -> int:
        # In one statement: a trial that ends between two would be in neither.
        trial, heartbeat, owner = models.TrialModel, models.TrialHeartbeatModel, models.TrialSystemAttributeModel
        # Those of workers behind a proxy have an owner only.
        is_run_by_someone = heartbeat.trial_id.is_not(None) | owner.trial_id.is_not(None)
        is_alive = (trial.state == TrialState.RUNNING) & is_run_by_someone
        taken = (
            session.query(sqlalchemy.func.count())
            .select_from(trial)
            .outerjoin(heartbeat, heartbeat.trial_id == trial.trial_id)
            .outerjoin(owner, (owner.trial_id == trial.trial_id) & (owner.key == OWNER))
            .filter(trial.study_id == study_id)
            .filter(trial.state.in_((TrialState.COMPLETE, TrialState.PRUNED)) | is_alive)
        )
        return int(taken.scalar() or 0)

    def _study_of(self, trial_id: int) -> int:
        with scoped(self.scoped_session) as session:
            return int(models.TrialModel.find_or_raise_by_id(trial_id, session).study_id)

    # Heartbeats

    def record_heartbeat(self, trial_id: int) -> None:
        """Show that a trial is alive; one heartbeat that is missed because the database is away does no harm."""
        try:
            super().record_heartbeat(trial_id)
        except Exception as error:
            if not is_passing(error):
                raise
            self.remove_session()
            self.watch.was_blind()

    @patient
    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """List the running trials without heartbeat, and at once those whose process has ended on this machine.

        Heartbeats are compared with the clock of the database; where that went back they are seen to stand still.
        """
        silent: list[int] = super()._get_stale_trial_ids(study_id)
        with scoped(self.scoped_session) as session:
            owner, beat, trial = models.TrialSystemAttributeModel, models.TrialHeartbeatModel, models.TrialModel
            rows = (
                session.query(trial.trial_id, owner.value_json, beat.heartbeat)
                .outerjoin(owner, (owner.trial_id == trial.trial_id) & (owner.key == OWNER))
                .outerjoin(beat, beat.trial_id == trial.trial_id)
                .filter(trial.study_id == study_id, trial.state == TrialState.RUNNING)
                .all()
            )
        owners = {int(trial_id): json.loads(name or '""') for trial_id, name, _ in rows}
        lost = self.watch.lost(study_id, owners, {int(trial_id): beat for trial_id, _, beat in rows})
        # After the database was away nobody's heartbeat is new, and everybody's soon will be.
        silent = silent if self.watch.sees(self.grace_period or 0) else []
        return list(dict.fromkeys([*silent, *lost]))

    # Optuna's own methods, made patient. A trial that was finished by the try whose answer was lost is finished.

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As in Optuna."""
        tries = 0

        def finish() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries == 1 or not state.is_finished():
                    raise
                stored = super(PatientStorage, self).get_trial(trial_id)
                if stored.state != state or (values is not None and stored.values != list(values)):
                    raise
                return True

        return self.persist(finish)

    create_new_study = patient(RDBStorage.create_new_study)
    delete_study = patient(RDBStorage.delete_study)
    set_study_user_attr = patient(RDBStorage.set_study_user_attr)
    set_study_system_attr = patient(RDBStorage.set_study_system_attr)
    get_study_id_from_name = patient(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = patient(RDBStorage.get_study_name_from_id)
    get_study_directions = patient(RDBStorage.get_study_directions)
    get_study_user_attrs = patient(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = patient(RDBStorage.get_study_system_attrs)
    get_all_studies = patient(RDBStorage.get_all_studies)
    _create_new_trial = patient(RDBStorage._create_new_trial)
    _set_trial_param = patient(RDBStorage._set_trial_param)
    get_trial_param = patient(RDBStorage.get_trial_param)
    set_trial_intermediate_value = patient(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = patient(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = patient(RDBStorage.set_trial_system_attr)
    get_trial_user_attrs = patient(RDBStorage.get_trial_user_attrs)
    get_trial_system_attrs = patient(RDBStorage.get_trial_system_attrs)
    get_trial_id_from_study_id_trial_number = patient(RDBStorage.get_trial_id_from_study_id_trial_number)
    get_trial = patient(RDBStorage.get_trial)
    _get_trials = patient(RDBStorage._get_trials)
    _get_best_trial_id = patient(RDBStorage._get_best_trial_id)
