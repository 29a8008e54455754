"""What the processes of the chaos tests run: trials of one study on the digits, until it has its total.

python digits_worker.py URL CHECKPOINTS TOTAL
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.pruners import NopPruner
from sklearn.datasets import load_digits

from optuna_kd import DistillationObjective, ImageClassification, ProxyConfig, create_study, optimize
from optuna_kd.models import create_model

NAME, SEED = "chaos", 7


def create_objective(checkpoints: Path | None) -> DistillationObjective:
    """Seconds of training on one core, with four rungs."""
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
        (images[:300], labels[:300]),
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


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, checkpoints, total = sys.argv[1:]
    optimize(join_study(url), create_objective(Path(checkpoints)), total_trials=int(total))
