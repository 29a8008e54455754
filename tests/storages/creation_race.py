"""Processes that begin at the same time with an empty database, round after round."""

from __future__ import annotations

import subprocess
import sys
import time

PROCESSES, ROUNDS = 8, 10
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


def race(url: str) -> tuple[list[str], list[list[str]]]:
    """Let all processes create the same study in each database.

    Args:
        url: Of the databases, with ROUND in place of their number.

    Returns:
        What the processes that failed have said; and of each process, for each round, the seed and the identity of the
        study that it has got.
    """
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
    return failed, [out.splitlines() for out, _ in answers]
