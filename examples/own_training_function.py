"""Search with a training of your own: a function from a recipe to a reward becomes the objective.

Optimiser, schedule and score are yours. `report` tells the pruner how a trial is doing and ends it when it is
hopeless; whatever else the function returns is stored with the trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import optuna
import torch
from torch import nn

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model

EPOCHS = 4


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


def accuracy(task: optuna_kd.ImageClassification, student: nn.Module) -> float:
    student.eval()
    with torch.no_grad():
        right = student(task.prepare(task.val_set.images)).argmax(1).cpu() == task.val_set.labels
    student.train()
    return right.float().mean().item()


def training_of(task: optuna_kd.ImageClassification) -> Callable[..., dict[str, float]]:
    def train(recipe: optuna_kd.Recipe, *, seed: int, report: Callable[..., None]) -> dict[str, float]:
        student = task.make_student(seed)
        distiller = optuna_kd.build_distiller(recipe, task, seed=seed)
        optimizer = torch.optim.AdamW([*student.parameters(), *distiller.parameters()], lr=5e-3)
        order = torch.Generator().manual_seed(seed)  # all draws from the seed: the trial can be repeated
        with task.observe(student) as observe:
            for epoch in range(EPOCHS):
                for indices in torch.randperm(len(task.train_set), generator=order).split(64):
                    raw_images, labels = task.train_set.batch(indices)
                    images = task.prepare(raw_images)
                    terms = distiller(observe(images), task.teacher_knowledge(images), labels.to(task.device))
                    optimizer.zero_grad()
                    sum(terms.values()).backward()
                    optimizer.step()
                score = accuracy(task, student)
                report(epoch + 1, score)
        return {"reward": score, "cross_entropy": terms["cross_entropy"].item()}

    return train


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data("digits")
    parts = {"train": data.train, "augment": "none", "batch_size": 64}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=8, seeds=1).student
    task = optuna_kd.ImageClassification(teacher, lambda: make_model("resnet8x0.25"), **parts)

    study = optuna_kd.create_study(storage=None, seed=0)
    study.optimize(optuna_kd.FunctionObjective(training_of(task)), n_trials=8)
    for state, count in Counter(trial.state.name.lower() for trial in study.trials).items():
        print(f"{count} trials {state}")
    print(f"best reward {study.best_value:.3f}: {optuna_kd.best_recipe(study)}")
    print("stored with it:", study.best_trial.user_attrs)
