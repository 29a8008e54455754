"""Search, controls, confirmation, full trainings and an honest table in one call.

The budgets are tiny, so that this ends soon and shows the form of the result, not its worth: the defaults are
60 trials, proxies of 12 epochs and full trainings of 60.
"""

from __future__ import annotations

import tempfile

from rich.console import Console
from torch import nn

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


if __name__ == "__main__":
    data = load_data("digits")
    parts = {"train": data.train, "test": data.test, "augment": "none", "batch_size": 64}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=8, seeds=1).student

    task = optuna_kd.ImageClassification(teacher, lambda: make_model("resnet8x0.125"), **parts)
    with tempfile.TemporaryDirectory() as directory:
        result = optuna_kd.search(
            task,
            trials=4,
            workers=1,
            storage=None,  # in memory; leave it out for sqlite:///optuna_kd.db, which resumes and has a dashboard
            proxy=optuna_kd.ProxyConfig(epochs=2, subset=0.5),
            confirm=(2, 1),
            epochs=3,
            seeds=2,
            directory=directory,
            progress=False,
        )
        print("files:", ", ".join(sorted(path.name for path in result.directory.glob("*.*"))))
    result.show(Console(width=110))
