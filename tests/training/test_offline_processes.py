"""Two processes that want the same file: one stores it and the other waits, whatever happens to the first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import strided_teacher
from strided_teacher import strided_task

from optuna_kd.training import ImageClassification
from optuna_kd.training.offline import KnowledgeChoices, prepare_knowledge

fcntl = pytest.importorskip("fcntl")
Start = Callable[[Path, float], "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def task(one_thread: None) -> ImageClassification:
    return strided_task()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes that are ready to store once they read a line; none outlives the test."""
    started = []

    def run(folder: Path, seconds: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, strided_teacher.__file__, str(folder), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def storing(folder: Path, pattern: str) -> None:
    """Wait until another process has made such a file."""
    deadline = time.monotonic() + 30
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_builds_and_the_other_waits(start: Start, tmp_path: Path, task: ImageClassification) -> None:
    other = start(tmp_path, 0.3)
    ready(other)
    go(other)
    storing(tmp_path, "*.lock")
    said: list[str] = []
    known = prepare_knowledge(task, KnowledgeChoices(directory=tmp_path, wait=120), say=said.append)
    assert known is not None
    assert len(said) == 2
    assert said[1] == f"Another process is storing {known.file}: waiting, 120 s at most"
    lines = other.communicate(timeout=60)[0].splitlines()
    assert other.returncode == 0
    assert lines[1].startswith("The maps are rounded to float16")
    assert lines[2] == f"sum {float(known.features.double().sum()):.6f}"
    assert [path.suffix for path in tmp_path.iterdir()] == [".bin"]


def test_a_killed_builder_leaves_nothing_in_the_way(start: Start, tmp_path: Path, task: ImageClassification) -> None:
    slow = start(tmp_path, 60)
    ready(slow)
    go(slow)
    storing(tmp_path, "*.partial")
    said: list[str] = []
    choices = KnowledgeChoices(directory=tmp_path, wait=0.3)
    # While it lives, the wait has an end ...
    known = prepare_knowledge(task, choices, say=said.append)
    assert known is not None
    assert known.file is None
    assert [line.partition(" ")[0] for line in said] == ["replay:", "Another", "The", "replay:"]
    assert "(another process has not stored it within 0.3 s): going on without" in said[2]
    assert "in memory" in said[3]
    # ... and once it is killed, its lock and what it wrote are in nobody's way.
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    assert len(list(tmp_path.glob("*.partial"))) == len(list(tmp_path.glob("*.lock"))) == 1
    said.clear()
    known = prepare_knowledge(task, choices, say=said.append)
    assert known is not None
    assert len(said) == 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".bin"]
