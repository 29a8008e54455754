"""Load a distilled student and predict with it: three lines.

The training at the top stands for `optuna-kd search`, which leaves the same files in runs/<study>/.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model
from optuna_kd.recipe import StudentConfig

STUDENT = "resnet8x0.25"


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


def distilled(directory: str) -> Path:
    data = load_data("digits")
    parts = {"train": data.train, "test": data.test, "augment": "none", "batch_size": 64}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=8, seeds=1).student
    task = optuna_kd.ImageClassification(teacher, lambda: make_model(STUDENT), **parts)
    terms = optuna_kd.Recipe.from_string("attention>sample|gl2*5 + pearson@4*0.5").distiller
    # With its name in the recipe file, load_student can build the network; a class of your own you build yourself.
    recipe = optuna_kd.Recipe(terms, StudentConfig(STUDENT))
    return optuna_kd.distill(task, recipe, epochs=8, seeds=1).save(directory)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        folder = distilled(directory)

        student = optuna_kd.load_student(folder)
        images = load_data("digits").test.images[:10]  # raw: the student brings its normalisation
        predicted = student(images).argmax(1)

        print("predicted", [student.class_names[label] for label in predicted])
        print("true     ", [student.class_names[label] for label in load_data("digits").test.labels[:10]])
