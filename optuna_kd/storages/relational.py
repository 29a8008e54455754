"""A database that may be busy, restarted or shared by dying workers: Optuna's storage, made patient and exact."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from optuna_kd.storages._compat import models, scoped
from optuna_kd.storages.connections import quick, watch_connections
from optuna_kd.storages.counting import count_originals, count_states, count_taken, look_over
from optuna_kd.storages.retries import NUMBER, OWNER, retry_of
from optuna_kd.storages.rows import READABLE, TRIALS, read_trials
from optuna_kd.storages.transient import SILENT, Result, persist, reason_of
from optuna_kd.storages.upserts import (
    can_upsert,
    upsert_attributes,
    upsert_heartbeat,
    upsert_params,
    upsert_reports,
)
from optuna_kd.storages.urls import StorageFailedError, show_url
from optuna_kd.storages.watch import Watch

Method = TypeVar("Method", bound=Callable[..., Any])


def patient(method: Method) -> Method:
    """Let a method of a storage try again while its database is busy, restarting or out of reach."""

    @functools.wraps(method)
    def tried_again(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self.persist(lambda: method(self, *args, **options))

    return tried_again  # type: ignore[return-value]


@dataclass
class Draft:
    """What is to be written to a trial.

    Args:
        params: By name, in the order of their suggestion: the value as it is stored, and the distribution.
        user_attrs: By name.
        reports: Intermediate values by step.
    """

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)


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
        self._drafts: dict[int, Draft] = {}
        self._claimed: set[int] = set()  # trials that were given a heartbeat when they were started here
        super().__init__(url, **options)
        watch_connections(self.engine)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        watch_connections(self.engine)

    def persist(self, work: Callable[[], Result]) -> Result:
        """Do some work, again and again while the database is busy, restarting or out of reach.

        Raises:
            StorageFailedError: If it does not come back, or cannot be used: a full disk, a damaged file.
        """
        began = time.monotonic()

        def prepare() -> None:
            self.remove_session()
            if time.monotonic() - began > SILENT:
                self.watch.was_blind()

        name = show_url(self.engine.url)
        try:
            return persist(work, patience=self.patience, name=name, on_retry=prepare)
        except StorageInternalError as error:  # which speaks of "invalid data in the commit", whatever it was
            raise StorageFailedError(
                f"The storage {name} failed: {reason_of(error)}. What it holds is kept."
            ) from error

    # Starting and ending trials: one transaction each, so that they cannot be left half done.

    @patient
    @quick()
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
            overview = look_over(session, study_id)
            if count_taken(session, study_id, overview) >= total:
                return None
            now = datetime.now()
            if overview.waiting:
                trial = models.TrialModel.find_or_raise_by_id(overview.waiting[0], session)
                trial.state, trial.datetime_start = TrialState.RUNNING, now
            else:
                number = overview.counts.total()
                trial = models.TrialModel(
                    study_id=study_id, number=number, state=TrialState.RUNNING, datetime_start=now
                )
                session.add(trial)
                session.flush()
            trial_id = int(trial.trial_id)
            session.add(models.TrialHeartbeatModel(trial_id=trial_id))
            attribute = models.TrialSystemAttributeModel
            if overview.waiting:
                self._set_trial_attr_without_commit(session, attribute, trial_id, OWNER, owner)
            else:
                session.add(attribute(trial_id=trial_id, key=OWNER, value_json=json.dumps(owner)))
            # Only trials that have failed are run again.
            if overview.counts[TrialState.FAIL] and (undisturbed := count_originals(session, trial)) is not None:
                self._set_trial_attr_without_commit(session, attribute, trial_id, NUMBER, undisturbed)
            self._claimed.add(trial_id)
            return trial_id

    @patient
    def retire_trial(self, trial_id: int, *, stopped: bool = False) -> bool:
        """Close a running trial that nobody runs any more, and queue it again with everything it had.

        Args:
            trial_id: The trial.
            stopped: Whether its process was told to stop.

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
            if (again := retry_of(frozen, stopped=stopped)) is not None:
                self._get_prepared_new_trial(study_id, again, session)
            return True

    @contextlib.contextmanager
    def together(self, trial_id: int) -> Iterator[None]:
        """Write the parameters and attributes that a trial is given inside in one transaction, at the end."""
        self._drafts[trial_id] = Draft()
        try:
            yield
        finally:
            self._write(trial_id, self._drafts.pop(trial_id))

    def write_trial(self, trial_id: int, user_attrs: Mapping[str, Any], reports: Mapping[int, float]) -> None:
        """Write attributes and intermediate values of a trial, in one transaction for all."""
        if (draft := self._drafts.get(trial_id)) is not None:
            draft.user_attrs.update(user_attrs)
            draft.reports.update(reports)
        else:
            self._write(trial_id, Draft(user_attrs=dict(user_attrs), reports=dict(reports)))

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        draft = self._drafts.get(trial_id)
        if draft is None or previous_distribution is None:  # then Optuna looks whether the study has had another
            if draft is not None:  # what was suggested first stands first
                self._drafts[trial_id] = Draft()
                self._write(trial_id, draft)
            self._set_new_param(trial_id, param_name, param_value_internal, distribution, previous_distribution)
            return
        check_distribution_compatibility(previous_distribution, distribution)
        draft.params[param_name] = (param_value_internal, distribution)

    _set_new_param = patient(quick()(RDBStorage._set_trial_param))

    @patient
    def _write(self, trial_id: int, draft: Draft) -> None:
        if not (draft.params or draft.user_attrs or draft.reports):
            return
        with contextlib.nullcontext() if draft.reports else quick(), scoped(self.scoped_session) as session:
            trial = models.TrialModel
            state = session.query(trial.state).filter(trial.trial_id == trial_id).scalar()
            if state is None:
                raise KeyError(models.NOT_FOUND_MSG)
            self.check_trial_is_updatable(trial_id, state)
            if can_upsert(session):
                upsert_params(session, trial_id, draft.params)
                upsert_attributes(session, models.TrialUserAttributeModel, trial_id, draft.user_attrs)
                upsert_reports(session, trial_id, draft.reports)
                return
            for name, (value, distribution) in draft.params.items():
                self._set_trial_param_without_commit(session, trial_id, name, value, distribution, distribution)
            for key, value in draft.user_attrs.items():
                self._set_trial_attr_without_commit(session, models.TrialUserAttributeModel, trial_id, key, value)
            for step, value in draft.reports.items():
                self._set_trial_intermediate_value_without_commit(session, trial_id, step, value)

    @patient
    def write_study(self, study_id: int, system_attrs: Mapping[str, Any]) -> None:
        """Write system attributes of a study, in one transaction for all: whoever reads sees all of them, or none."""
        with scoped(self.scoped_session) as session:
            study, table = models.StudyModel.find_or_raise_by_id(study_id, session), models.StudySystemAttributeModel
            if can_upsert(session):
                upsert_attributes(session, table, study_id, system_attrs)
                return
            for key, value in system_attrs.items():
                attribute = table.find_by_study_and_key(study, key, session)
                if attribute is None:
                    session.add(table(study_id=study_id, key=key, value_json=json.dumps(value)))
                else:
                    attribute.value_json = json.dumps(value)

    @patient
    def count_trials(self, study_id: int) -> Counter[TrialState]:
        """Count the trials of a study by state, without reading them."""
        with scoped(self.scoped_session) as session:
            return count_states(session, study_id)

    @patient
    def count_taken(self, study_id: int) -> int:
        """Count the trials that hold a place of the total, as `claim_trial` does."""
        with scoped(self.scoped_session) as session:
            return count_taken(session, study_id)

    @patient
    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As in Optuna."""
        if self.engine.dialect.name not in READABLE:
            return super().get_trial(trial_id)
        with scoped(self.scoped_session) as session:
            for trial in read_trials(session, models.TrialModel.trial_id == trial_id):
                return trial
        raise KeyError(models.NOT_FOUND_MSG)

    @patient
    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if self.engine.dialect.name not in READABLE or len(included_trial_ids) > TRIALS:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        trial = models.TrialModel
        # Of those that are finished nothing changes any more, so that the newer ones and a few others are asked for.
        older = trial.trial_id.in_(sorted(included_trial_ids))
        which = (trial.study_id == study_id) & (older | (trial.trial_id > trial_id_greater_than))
        # Says nothing new, but lets the database begin there instead of going through all trials of the study.
        which &= trial.trial_id >= min([*included_trial_ids, trial_id_greater_than + 1])
        with scoped(self.scoped_session) as session:
            found = read_trials(session, which)
            if not found:  # raises for a study that is not there
                models.StudyModel.find_or_raise_by_id(study_id, session)
        return [one for one in found if states is None or one.state in states]

    @contextlib.contextmanager
    def _one_by_one(self, study_id: int) -> Iterator[Session]:
        with scoped(self.scoped_session) as session:
            if self.engine.dialect.name == "sqlite":
                session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))  # readers that write later would collide
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            yield session

    def _study_of(self, trial_id: int) -> int:
        with scoped(self.scoped_session) as session:
            return int(models.TrialModel.find_or_raise_by_id(trial_id, session).study_id)

    # Heartbeats

    def record_heartbeat(self, trial_id: int) -> None:
        """Show that a trial is alive; one heartbeat that is missed because the database is away does no harm.

        Nor does one that a full disk refused: the trial itself tells of that where it matters.
        """
        if trial_id in self._claimed:  # the first comes just after the one that was written with the trial
            self._claimed.discard(trial_id)
            return
        try:
            with quick():
                self._beat(trial_id)
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            self.remove_session()
            self.watch.was_blind()

    def _beat(self, trial_id: int) -> None:
        with scoped(self.scoped_session) as session:
            if can_upsert(session):
                upsert_heartbeat(session, trial_id)
                return
        super().record_heartbeat(trial_id)

    @patient
    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """List the running trials without heartbeat, and at once those whose process has ended on this machine.

        Heartbeats are compared with the clock of the database; where that went back they are seen to stand still.
        """
        with scoped(self.scoped_session) as session:
            owner, beat, trial = models.TrialSystemAttributeModel, models.TrialHeartbeatModel, models.TrialModel
            rows = (
                session.query(trial.trial_id, owner.value_json, beat.heartbeat, sqlalchemy.func.current_timestamp())
                .outerjoin(owner, (owner.trial_id == trial.trial_id) & (owner.key == OWNER))
                .outerjoin(beat, beat.trial_id == trial.trial_id)
                .filter(trial.study_id == study_id, trial.state == TrialState.RUNNING)
                .all()
            )
        owners = {int(trial_id): json.loads(name or '""') for trial_id, name, *_ in rows}
        lost = self.watch.lost(study_id, owners, {int(trial_id): beat for trial_id, _, beat, _ in rows})
        # After the database was away nobody's heartbeat is new, and everybody's soon will be.
        grace = self.grace_period or 2 * (self.heartbeat_interval or 0)
        if self.watch.sees(grace):
            ages = {trial_id: now.replace(tzinfo=None) - beat for trial_id, _, beat, now in rows if beat is not None}
            lost += [int(trial_id) for trial_id, age in ages.items() if age > timedelta(seconds=grace)]
        return list(dict.fromkeys(lost))

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
    get_trial_param = patient(RDBStorage.get_trial_param)
    set_trial_intermediate_value = patient(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = patient(quick()(RDBStorage.set_trial_user_attr))
    set_trial_system_attr = patient(quick()(RDBStorage.set_trial_system_attr))
    get_trial_user_attrs = patient(RDBStorage.get_trial_user_attrs)
    get_trial_system_attrs = patient(RDBStorage.get_trial_system_attrs)
    get_trial_id_from_study_id_trial_number = patient(RDBStorage.get_trial_id_from_study_id_trial_number)
    _get_best_trial_id = patient(RDBStorage._get_best_trial_id)
