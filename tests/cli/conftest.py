"""Commands in a working directory of their own."""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import Output, Run

from optuna_kd import cli, task_options
from optuna_kd.models import create_model


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a cache beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> Iterator[Run]:
    """Run a command in this process, and undo what a program may do to its process."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli.console, "_width", 200)
    handler = signal.getsignal(signal.SIGTERM)
    handlers = list(logging.getLogger().handlers)

    def call(*arguments: object) -> Output:
        monkeypatch.setattr(sys, "argv", ["optuna-kd", *map(str, arguments)])
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return Output(int(exit_.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def quick_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the teacher of the digits for four epochs only."""
    monkeypatch.setattr(task_options, "DIGITS", dataclasses.replace(task_options.DIGITS, teacher_epochs=4))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A teacher that knows its digits."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = torch.tensor(bundled.images, dtype=torch.float32)[:, None] / 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("resnet8", num_classes=10, in_channels=1, input_size=8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        mean, std = images.mean(), images.std()
        for step in range(60):
            part = slice(step * 64 % 1200, step * 64 % 1200 + 64)
            loss = torch.nn.functional.cross_entropy(
                model((images[part] - mean) / std), torch.tensor(bundled.target[part])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(model.state_dict(), path)
    return path
