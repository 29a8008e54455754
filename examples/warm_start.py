"""Recipes travel: a card says what was found, and a new study begins with what did best on the most similar task.

A recipe is searched for one student, trained in full, and kept with its card. Then a study for another student begins
with the best recipes of the first one; they are its first trials, and count like all others.
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


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data("digits")
    parts = {"train": data.train, "test": data.test, "augment": "none", "batch_size": 64, "data_name": "digits"}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=6, seeds=1).student

    def task_for(student: str) -> optuna_kd.ImageClassification:
        names = {"student_name": student, "teacher_name": "resnet14"}
        return optuna_kd.ImageClassification(teacher, lambda: make_model(student), **names, **parts)

    proxy = optuna_kd.ProxyConfig(epochs=2)
    task = task_for("resnet8x0.25")
    study = optuna_kd.create_study(storage=None, study_name="first", seed=0)
    optuna_kd.optimize(study, optuna_kd.DistillationObjective(task, proxy=proxy), total_trials=6)

    with tempfile.TemporaryDirectory() as runs:
        result = optuna_kd.distill(task, optuna_kd.best_recipe(study), epochs=3, seeds=3)
        folder = result.save(Path(runs, "first"))
        card = optuna_kd.load_card(folder)
        low, high = card.result.bounds or (card.result.mean, card.result.mean)
        print(f"{card.recipe}: {card.result.mean:.3f}, 95 % interval {low:.3f} to {high:.3f}")
        print("may be compared with all that have", card.comparable)
        print("files:", ", ".join(sorted(file.name for file in folder.iterdir())))  # card.md is for people

        # Of a study, a card, a recipe file, a folder of them, a storage URL, or "auto": or of several of these.
        later = task_for("resnet8x0.125")
        warm = optuna_kd.create_study(storage=None, seed=1, warm_start=[study, folder], task=later)
        optuna_kd.optimize(warm, optuna_kd.DistillationObjective(later, proxy=proxy), total_trials=6)

    for trial in warm.trials:
        origin = trial.user_attrs.get("warm_start", {"from": "the sampler"})["from"]
        print(f"trial {trial.number} from {origin:<12} {trial.state.name.lower():<9} {trial.user_attrs['recipe']}")
