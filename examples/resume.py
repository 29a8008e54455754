"""Stop a study and go on later: what is finished stays, and the rest comes out as if nothing had happened.

All state is in the storage, and every draw derives from (study seed, trial number, role): three trials now and
three after a restart are the six that one run would have made.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import optuna
from torch import nn

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


def run(task: optuna_kd.ImageClassification, storage: str | None, total_trials: int) -> optuna.Study:
    """What your script does: the same lines every time it is started."""
    study = optuna_kd.create_study(storage=storage, study_name="digits", seed=0, load_if_exists=True)
    objective = optuna_kd.DistillationObjective(task, proxy=optuna_kd.ProxyConfig(epochs=2))
    optuna_kd.optimize(study, objective, total_trials=total_trials)  # in total, earlier runs included
    print(f"{len(study.trials)} trials, best {study.best_value:.4f}: {optuna_kd.best_recipe(study)}")
    return study


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data("digits")
    parts = {"train": data.train, "augment": "none", "batch_size": 64}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=6, seeds=1).student
    task = optuna_kd.ImageClassification(teacher, lambda: make_model("resnet8x0.25"), **parts)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        url = f"sqlite:///{Path(directory, 'optuna_kd.db').as_posix()}"
        run(task, url, total_trials=3)
        resumed = run(task, url, total_trials=6)
        at_once = run(task, None, total_trials=6)
        same = [trial.params for trial in resumed.trials] == [trial.params for trial in at_once.trials]
        print(f"the same six recipes as without the interruption: {same}")
