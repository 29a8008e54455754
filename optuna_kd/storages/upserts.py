"""Writing what belongs to a trial or a study in one statement, where a database can insert or update several rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from optuna_kd.storages._compat import models

INSERTS: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def can_upsert(session: Session) -> bool:
    """Whether the database of a session takes the statements of this module."""
    return session.get_bind().dialect.name in INSERTS


def upsert_params(session: Session, trial_id: int, params: Mapping[str, tuple[float, BaseDistribution]]) -> None:
    """Insert parameters, given as they are stored; those that are there stay, because they are never changed."""
    rows = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in params.items()
    ]
    _write(session, models.TrialParamModel, rows, keys=("trial_id", "param_name"), new=())


def upsert_attributes(session: Session, table: Any, owner_id: int, attributes: Mapping[str, Any]) -> None:
    """Insert or update attributes, plain JSON, of a trial or of a study, which is what the table is of."""
    owner = "study_id" if hasattr(table, "study_id") else "trial_id"
    rows = [{owner: owner_id, "key": key, "value_json": json.dumps(value)} for key, value in sorted(attributes.items())]
    _write(session, table, rows, keys=(owner, "key"), new=("value_json",))


def upsert_reports(session: Session, trial_id: int, reports: Mapping[int, float]) -> None:
    """Insert or update intermediate values of a trial."""
    table = models.TrialIntermediateValueModel
    stored = {step: table.intermediate_value_to_stored_repr(value) for step, value in reports.items()}
    rows = [
        {"trial_id": trial_id, "step": step, "intermediate_value": number, "intermediate_value_type": kind}
        for step, (number, kind) in stored.items()
    ]
    new = ("intermediate_value", "intermediate_value_type")
    _write(session, table, rows, keys=("trial_id", "step"), new=new)


def upsert_heartbeat(session: Session, trial_id: int) -> None:
    """Show that a trial is alive, by the clock of the database."""
    table = models.TrialHeartbeatModel.__table__
    statement = _statement(session.get_bind().dialect.name, table, ("trial_id",), ("heartbeat",))
    session.connection().execute(statement.values(trial_id=trial_id, heartbeat=sqlalchemy.func.current_timestamp()))


def _write(
    session: Session, table: Any, rows: list[dict[str, Any]], *, keys: tuple[str, ...], new: tuple[str, ...]
) -> None:
    """Insert rows; of those whose keys are there already, write the new columns."""
    if rows:
        session.connection().execute(_statement(session.get_bind().dialect.name, table.__table__, keys, new), rows)


@cache
def _statement(dialect: str, table: sqlalchemy.Table, keys: tuple[str, ...], new: tuple[str, ...]) -> Any:
    # Without its values: SQLAlchemy writes one that has several rows of them anew each time, which takes longer than
    # the database does. Rows that are passed beside it are sent together.
    insert = INSERTS[dialect](table)
    if not new:
        return insert.on_conflict_do_nothing(index_elements=keys)
    return insert.on_conflict_do_update(index_elements=keys, set_={name: insert.excluded[name] for name in new})
