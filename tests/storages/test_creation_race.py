"""Eight processes begin at the same time with an empty database."""

from __future__ import annotations

import subprocess
import sys
import time

import optuna
import pytest
from optuna.study import Study

from optuna_kd.storages import create_storage
from optuna_kd.study import SETTINGS

PROCESSES = 8
CREATE = """
import sys, time
import optuna
from optuna_kd.study import create_study
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
for round_ in range(int(sys.argv[3])):
    url = sys.argv[1].replace("ROUND", str(round_))
    study = create_study(storage=url, study_name="raced", load_if_exists=True)
    print(study.user_attrs["optuna_kd"]["seed"], study.user_attrs["optuna_kd_id"])
    study._storage._backend.engine.dispose()
    time.sleep(max(0.0, float(sys.argv[2]) + 1.5 * (round_ + 1) - time.time()))
"""
ROUNDS = 10


def settings(url: str) -> Study:
    return optuna.load_study(study_name="raced", storage=create_storage(url))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_creates_and_the_others_find(kind: str, tmp_path, request: pytest.FixtureRequest) -> None:  # type: ignore[no-untyped-def]
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/kdROUND.db"
        urls = [url.replace("ROUND", str(round_)) for round_ in range(ROUNDS)]
    else:
        server = request.getfixturevalue("server")
        urls = [server.create_database("race") for _ in range(ROUNDS)]
        url = urls[0].replace("/race0", "/raceROUND")
    start = str(time.time() + 12)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, url, start, str(ROUNDS)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    answers = [process.communicate(timeout=240) for process in processes]
    failed = [error[-1500:] for process, (_, error) in zip(processes, answers, strict=True) if process.returncode]
    assert failed == []
    seen = [out.splitlines() for out, _ in answers]
    for round_, here in enumerate(urls):
        stored = settings(here).user_attrs
        expected = f"{stored[SETTINGS]['seed']} {stored['optuna_kd_id']}"
        assert [lines[round_] for lines in seen] == [expected] * PROCESSES
