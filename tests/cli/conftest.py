"""Teachers that are quick to have."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from optuna_kd import task_options
from optuna_kd.models import create_model


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
