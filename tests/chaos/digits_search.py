"""What the chaos tests of Ray run: a whole search on the digits.

python digits_search.py URL FOLDER ENGINE WORKERS TRIALS [apart]

With `apart` the workers see as little of the files here as if they were on another machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from optuna.pruners import NopPruner
from sklearn.datasets import load_digits
from torch import nn

from optuna_kd import ImageClassification, ProxyConfig, Recipe, search
from optuna_kd.models import create_model
from optuna_kd.runner import ray_workers
from optuna_kd.runner.engines import ENGINES
from optuna_kd.runner.ray_workers import RayWorkers
from optuna_kd.training.trainer import StudentTraining

NAME, SEED = "chaos", 7


def network(width: float) -> nn.Module:
    """A ResNet-8 for digits."""
    return create_model(f"resnet8x{width:g}", num_classes=10, in_channels=1, input_size=8)


def create_task() -> ImageClassification:
    """A small student and a teacher that knows its digits."""
    bundled = load_digits()
    images = np.round(bundled.images * 255 / 16).astype(np.uint8)[:, None]
    labels = bundled.target.astype(np.int64)
    data, test = (images[:300], labels[:300]), (images[300:400], labels[300:400])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untaught = network(0.5)
    lesson = ImageClassification(untaught, lambda: network(0.5), data, batch_size=32, device="cpu")
    training = StudentTraining(lesson, Recipe(), ProxyConfig(epochs=12, rungs=(12,)), seed=0)
    for _ in training.run():
        pass
    training.observer.close()
    return ImageClassification(
        training.student, lambda: network(0.25), data, test=test, batch_size=32, views=2, device="cpu"
    )


def keep_apart() -> None:
    """Hide the files of this machine from the workers."""
    hire = RayWorkers._hire

    def hire_elsewhere(self: RayWorkers) -> None:
        assert self._ray
        self._mark.unlink(missing_ok=True)
        hire(self)

    RayWorkers._hire = hire_elsewhere  # type: ignore[method-assign]
    ray_workers.fingerprint = lambda path: "of another file"


if __name__ == "__main__":
    torch.set_num_threads(1)
    url, folder, engine, workers, trials = sys.argv[1:6]
    if "apart" in sys.argv:
        keep_apart()
    search(
        create_task(),
        storage=url,
        study_name=NAME,
        seed=SEED,
        sampler="random",
        pruner=NopPruner(),
        engine=ENGINES[engine](cpus_per_worker=0.5) if engine == "ray" else engine,
        workers=int(workers),
        trials=int(trials),
        proxy=ProxyConfig(epochs=16, rungs=(4, 8, 12, 16)),
        epochs=2,
        seeds=1,
        confirm=0,
        directory=Path(folder),
    )
