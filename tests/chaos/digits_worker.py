"""What the processes of the chaos tests run: trials of one study on the digits, until it has its total."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial, TrialState
from sklearn.datasets import load_digits

from optuna_kd import DistillationObjective, ImageClassification, ProxyConfig, create_study, optimize
from optuna_kd.models import create_model
from optuna_kd.study.optimizing import run_trial

NAME, SEED = "chaos", 7


def create_objective(checkpoints: Path | None) -> DistillationObjective:
    """Half a second of training on one core, with four rungs."""
    torch.set_num_threads(1)
    bundled = load_digits()
    images = np.round(bundled.images * 255 / 16).astype(np.uint8)[:, None]
    labels = bundled.target.astype(np.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = create_model("resnet8x0.5", num_classes=10, in_channels=1, input_size=8)
    task = ImageClassification(
        teacher,
        lambda: create_model("resnet8x0.25", num_classes=10, in_channels=1, input_size=8),
        (images[:200], labels[:200]),
        batch_size=32,
        views=2,
        device="cpu",
    )
    return DistillationObjective(task, proxy=ProxyConfig(epochs=16, rungs=(4, 8, 12, 16)), checkpoints=checkpoints)


def join_study(url: str | None) -> optuna.Study:
    """Create or find the study; its trials depend on the seed and their number alone."""
    return create_study(
        storage=url, study_name=NAME, seed=SEED, sampler="random", pruner=NopPruner(), load_if_exists=True
    )


def work(url: str, checkpoints: Path, total: int, log: Path) -> None:
    """Run trials in a process of its own, which writes to a log what it would have said."""
    with log.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optimize(join_study(url), create_objective(checkpoints), total_trials=total)


def undisturbed(numbers: Sequence[int]) -> dict[int, FrozenTrial]:
    """Run the trials of these numbers one after another, with nobody beside."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, objective = join_study(None), create_objective(None)
    objective.bind(study)
    for number in range(max(numbers, default=-1) + 1):
        trial = study.ask()
        if number in numbers:
            run_trial(study, trial, objective, ())
        else:
            study.tell(trial, state=TrialState.FAIL)
    return {number: study.trials[number] for number in numbers}
