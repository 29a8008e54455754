"""A recipe in a training loop of your own: the distiller is a module that returns named loss terms.

Optuna plays no part here. Use it for a recipe that was found elsewhere, or written by hand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import optuna_kd
from optuna_kd.data import load_data
from optuna_kd.models import create_model

EPOCHS = 6


def make_model(name: str) -> nn.Module:
    return create_model(name, num_classes=10, in_channels=1, input_size=8)


if __name__ == "__main__":
    data = load_data("digits")
    parts = {"train": data.train, "test": data.test, "augment": "none", "batch_size": 64}
    untaught = optuna_kd.ImageClassification(make_model("resnet14"), lambda: make_model("resnet14"), **parts)
    teacher = optuna_kd.distill(untaught, optuna_kd.Recipe(), epochs=8, seeds=1).student

    task = optuna_kd.ImageClassification(teacher, lambda: make_model("resnet8x0.25"), **parts)
    recipe = optuna_kd.Recipe.from_string("attention>multiscale>channel|kl*5 + pearson@4*1")

    student = task.make_student(seed=0)
    distiller = optuna_kd.build_distiller(recipe, task)
    # The distiller's own parameters are the adapters between the two widths; they are not part of the student.
    optimizer = torch.optim.AdamW([*student.parameters(), *distiller.parameters()], lr=5e-3)
    loader = DataLoader(TensorDataset(data.train.images, data.train.labels), batch_size=64, shuffle=True)

    with task.observe(student) as observe:  # hands out maps and logits; taken off again afterwards
        for epoch in range(EPOCHS):
            student.train()
            for raw_images, labels in loader:
                images = task.prepare(raw_images)
                labels = labels.to(task.device)
                terms = distiller(observe(images), task.teacher_knowledge(images), labels, progress=epoch / EPOCHS)
                optimizer.zero_grad()
                sum(terms.values()).backward()
                optimizer.step()
            print(f"epoch {epoch + 1}  " + "  ".join(f"{name} {term:.3f}" for name, term in terms.items()))

    student.eval()
    with torch.no_grad():
        right = student(task.prepare(data.test.images)).argmax(1).cpu() == data.test.labels
    print(f"test accuracy {100 * right.float().mean():.1f} %")
