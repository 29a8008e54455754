"""Trials that are too large for one GPU: several processes train each student together, one of them has the study.

    torchrun --nproc-per-node 2 examples/trials_on_several_processes.py

Rank 0 asks the study for a recipe and decides at every rung; the others follow. Without `torchrun` it is one process,
and the same code.
"""

from __future__ import annotations

import optuna
from torch import nn

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model
from optuna_kd.training import StudentTraining, join_ranks

PROXY = optuna_kd.ProxyConfig(epochs=4, rungs=(1, 2, 4))
TRIALS = 4


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


def train(task, ranks, recipe, seed, ends=lambda rung: False):
    """What all ranks do, each with its slice of every batch; give what the last rung brought."""
    training = StudentTraining(task, optuna_kd.Recipe.from_string(recipe), PROXY, seed=seed, ranks=ranks)
    *_, last = training.run(ends)  # asked on rank 0 alone; all end at the same rung
    training.observer.close()
    return last


def search(task, ranks):
    """What rank 0 does."""

    def objective(trial):
        weight = trial.suggest_float("weight", 0.1, 10, log=True)
        recipe, seed = ranks.agree(lambda: [f"kl@4*{weight:.3g}", trial.number])

        def ends(rung):
            trial.report(rung.metrics.cross_entropy, rung.epoch)
            return trial.should_prune()

        last = train(task, ranks, recipe, seed, ends)
        if last.epoch < PROXY.epochs:
            raise optuna.TrialPruned
        return last.metrics.cross_entropy

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner(2))
    study.optimize(objective, n_trials=TRIALS)
    ranks.agree(lambda: None)  # there is nothing more to do
    return study


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data("digits")
    with join_ranks() as ranks:
        device = ranks.device("auto")  # each process takes a GPU of its own, or a share of the cores
        parts = {"train": data.train, "augment": "none", "batch_size": 64, "device": device}
        untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
        teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=4, seeds=1, ranks=ranks).student
        task = optuna_kd.ImageClassification(teacher, lambda: make_model("resnet8x0.25"), **parts)
        if ranks.leads:
            study = search(task, ranks)
            best = f"{study.best_value:.3f} {study.best_params}"
            print(f"{ranks.size} processes, {len(study.trials)} trials, best {best}")
        else:
            while (order := ranks.agree(lambda: None)) is not None:
                train(task, ranks, *order)
