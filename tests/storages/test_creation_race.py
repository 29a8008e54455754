"""Eight processes begin at the same time with an empty database."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import sqlalchemy
from creation_race import PROCESSES, ROUNDS, race
from optuna.storages._rdb.models import BaseModel

from optuna_kd.storages import create_storage
from optuna_kd.study import SETTINGS, create_study


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_creates_and_the_others_find(kind: str, tmp_path, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/kdROUND.db"
        urls = [url.replace("ROUND", str(round_)) for round_ in range(ROUNDS)]
    else:
        server = request.getfixturevalue("server")
        urls = [server.create_database("race") for _ in range(ROUNDS)]
        url = urls[0].replace("/race0", "/raceROUND")
    failed, seen = race(url)
    assert failed == []
    for round_, here in enumerate(urls):
        stored = optuna.load_study(study_name="raced", storage=create_storage(here)).user_attrs
        expected = f"{stored[SETTINGS]['seed']} {stored['optuna_kd_id']}"
        assert [lines[round_] for lines in seen] == [expected] * PROCESSES


def test_a_program_without_our_lock_creates_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/kd.db"
    others: list[str] = []

    def create_first(*_: object, **__: object) -> None:
        # SQLAlchemy has looked for the tables, found none, and is about to create them.
        if not others:
            others.append("of another program")
            optuna.create_study(storage=url, study_name=others[0])

    sqlalchemy.event.listen(BaseModel.metadata, "before_create", create_first)
    try:
        create_study(storage=url, study_name="ours")
    finally:
        sqlalchemy.event.remove(BaseModel.metadata, "before_create", create_first)
    assert others
    assert optuna.get_all_study_names(url) == ["of another program", "ours"]
