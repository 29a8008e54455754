"""From arrays to a distilled student: a task, a study, the best recipe, a full training.

The data are scikit-learn's handwritten digits, the teacher a ResNet-14, the student a ResNet-8 of a quarter of
its width. Eight short trials are few: `optuna-kd search` runs sixty and compares with tuned baselines.
"""

from __future__ import annotations

import optuna
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import optuna_kd
from optuna_kd.models import create_model


def make_teacher() -> torch.nn.Module:
    return create_model("resnet14", num_classes=10, in_channels=1, input_size=8)


def make_student() -> torch.nn.Module:
    return create_model("resnet8x0.25", num_classes=10, in_channels=1, input_size=8)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    digits = load_digits()
    train_images, test_images, train_labels, test_labels = train_test_split(
        digits.images / 16, digits.target, test_size=600, stratify=digits.target, random_state=0
    )
    train, test = (train_images, train_labels), (test_images, test_labels)

    # A teacher is what you bring. Here one is trained first: the recipe without terms is training on the labels.
    labels_only = optuna_kd.Recipe()
    untaught = optuna_kd.ImageClassification(make_teacher(), make_teacher, train, augment="none", batch_size=64)
    teacher = optuna_kd.distill(untaught, labels_only, epochs=8, seeds=1).student

    task = optuna_kd.ImageClassification(teacher, make_student, train, test=test, augment="none", batch_size=64)
    print("compared   ", task.layers())

    study = optuna_kd.create_study(method="auto-kd", storage=None, seed=0)
    study.optimize(optuna_kd.DistillationObjective(task, proxy=optuna_kd.ProxyConfig(epochs=4)), n_trials=8)
    recipe = optuna_kd.best_recipe(study)
    print("best recipe", recipe)

    # Equal seeds start from equal weights and see equal batches, so the two lines differ by the recipe alone.
    for contender in (labels_only, recipe):
        print(optuna_kd.distill(task, contender, epochs=8, seeds=2))
