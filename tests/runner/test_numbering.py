"""Numbers of worker processes: lowest first, and free again however a process ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from optuna_kd.runner.numbering import take_number

TAKER = """
import pathlib, sys, time
from optuna_kd.runner.numbering import take_number
print(take_number(pathlib.Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


@pytest.fixture
def takers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_a_number_is_free_again_when_its_process_was_killed(
    takers: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    def start() -> None:
        command = [sys.executable, "-c", TAKER, str(tmp_path)]
        takers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def number(taker: subprocess.Popen[str]) -> int:
        assert taker.stdout is not None
        return int(taker.stdout.readline())

    assert take_number(tmp_path) == 0
    start()
    start()
    assert sorted(map(number, takers)) == [1, 2]
    victim = takers[0]
    victim.kill()
    victim.wait()
    start()
    start()
    assert sorted(map(number, takers[2:])) in ([1, 3], [2, 3])
    another_run = tmp_path / "another"
    another_run.mkdir()
    assert take_number(another_run) == 0
