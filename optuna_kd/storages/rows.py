"""Reading trials from a database: in two statements, and without an object for every row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial
from sqlalchemy import Float, String, Table, bindparam, cast, literal, null, select, union_all
from sqlalchemy.orm import Session

from optuna_kd.storages._compat import models

READABLE = ("sqlite", "postgresql")  # whose values come out of one statement for five tables as they went in
TRIALS = 400  # of one statement: five times their number are its variables, and SQLite takes 32,766


class Row(NamedTuple):
    """Something that belongs to a trial.

    Args:
        kind: Which table it is of.
        trial_id: Of the trial.
        key: Name, step or number of the objective.
        number: Its value; None for attributes, and for numbers that are not finite.
        text: JSON of an attribute or a distribution; for a number, whether and how it is finite.
        place: Rows are in the order of these.
    """

    kind: str
    trial_id: int
    key: str
    number: float | None
    text: str
    place: int


def read_trials(session: Session, which: sqlalchemy.ColumnElement[bool]) -> list[FrozenTrial]:
    """Give the trials for which a condition holds, ordered by their id, as Optuna's own way of reading them does.

    Args:
        session: Of a database among `READABLE`.
        which: On the columns of `models.TrialModel`.
    """
    found = session.execute(_TRIALS.where(which).order_by(_TRIAL.c.trial_id)).all()
    rows: dict[int, dict[str, list[Row]]] = {trial.trial_id: defaultdict(list) for trial in found}
    ids = list(rows)
    for first in range(0, len(ids), TRIALS):
        belongings = session.execute(_BELONGINGS, {"trials": ids[first : first + TRIALS]})
        for row in sorted(map(Row._make, belongings), key=_place):
            rows[row.trial_id][row.kind].append(row)
    return [_trial(trial, rows[trial.trial_id]) for trial in found]


def _place(row: Row) -> int:
    return row.place


def _trial(trial: Any, rows: dict[str, list[Row]]) -> FrozenTrial:
    distributions = {row.key: _distribution(row.text) for row in rows["params"]}
    values = [0.0] * len(rows["values"])
    for row in rows["values"]:
        values[int(row.key)] = _number(row)
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.trial_id,
        state=trial.state,
        value=None,
        values=values or None,
        datetime_start=_local(trial.datetime_start),
        datetime_complete=_local(trial.datetime_complete),
        params={row.key: distributions[row.key].to_external_repr(_number(row)) for row in rows["params"]},
        distributions=distributions,
        user_attrs={row.key: json.loads(row.text) for row in rows["user_attrs"]},
        system_attrs={row.key: json.loads(row.text) for row in rows["system_attrs"]},
        intermediate_values={int(row.key): _number(row) for row in rows["reports"]},
    )


@lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


_INFINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}


def _number(row: Row) -> float:
    return _INFINITE[row.text] if row.number is None else row.number


def _local(utc: datetime | None) -> datetime | None:
    """Give the time here; that of Greenwich is stored."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


_TRIAL = models.TrialModel.__table__
_TRIALS = select(*(_TRIAL.c[name] for name in ("trial_id", "number", "state", "datetime_start", "datetime_complete")))


def _belongings() -> Iterator[sqlalchemy.Select[Any]]:
    tables: dict[str, tuple[Any, str, str | None, str]] = {
        "params": (models.TrialParamModel, "param_name", "param_value", "distribution_json"),
        "values": (models.TrialValueModel, "objective", "value", "value_type"),
        "user_attrs": (models.TrialUserAttributeModel, "key", None, "value_json"),
        "system_attrs": (models.TrialSystemAttributeModel, "key", None, "value_json"),
        "reports": (models.TrialIntermediateValueModel, "step", "intermediate_value", "intermediate_value_type"),
    }
    for kind, (model, key, number, text) in tables.items():
        table: Table = model.__table__
        (place,) = table.primary_key
        yield select(
            literal(kind).label("kind"),
            table.c.trial_id,
            cast(table.c[key], String).label("key"),
            cast(null() if number is None else table.c[number], Float(53)).label("number"),
            cast(table.c[text], String).label("text"),
            place.label("place"),
        ).where(table.c.trial_id.in_(bindparam("trials", expanding=True)))


_BELONGINGS = union_all(*_belongings())
