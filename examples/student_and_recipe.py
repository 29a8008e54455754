"""Search the student together with its recipe (UniADS): a network of your own, an error and a latency.

The function that makes students takes a `StudentConfig`; what it may hold is a `StudentSpace`. Students above the
limit are not trained. The study is a plain Optuna study with two objectives: any program that knows Optuna opens it.
"""

from __future__ import annotations

import sklearn.datasets
import torch
from torch import nn

import optuna_kd
from optuna_kd.models import create_model
from optuna_kd.search_space import StudentSpace, UniADSSpace

digits = sklearn.datasets.load_digits()
images, labels = (digits.images * 15).astype("uint8"), digits.target
train, test = (images[:600], labels[:600]), (images[600:900], labels[600:900])


def make_student(config: optuna_kd.StudentConfig) -> nn.Module:
    """Any network; its options come from the space."""
    channels, blocks = int(config.options["channels"]), int(config.options["blocks"])  # type: ignore[arg-type]
    layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def main() -> None:
    torch.manual_seed(0)
    teacher = create_model("resnet8", num_classes=10, in_channels=1, input_size=8)  # yours would be trained
    task = optuna_kd.ImageClassification(teacher, make_student, train, test=test, batch_size=32)
    study = optuna_kd.create_study(
        method="uniads",
        storage=None,
        seed=0,
        space=UniADSSpace(student=StudentSpace("mine", {"channels": (4, 8, 16, 32), "blocks": (1, 2, 3)})),
        objectives=("error", "latency_ms"),
    )
    proxy = optuna_kd.ProxyConfig(epochs=4, rungs=(2, 4))
    objective = optuna_kd.JointDistillationObjective(task, proxy=proxy, max_params=20_000)
    study.optimize(objective, n_trials=12)
    for trial in optuna_kd.front(study):
        error, latency = trial.values
        print(f"error {error:.3f}  {latency:.3f} ms  {trial.user_attrs['student']}  {trial.user_attrs['recipe']}")
    rejected = [t.user_attrs["reject_reason"] for t in study.trials if "reject_reason" in t.user_attrs]
    print(
        f"{len(rejected)} of {len(study.trials)} trials were rejected, for example: {rejected[0] if rejected else '-'}"
    )


if __name__ == "__main__":
    main()
