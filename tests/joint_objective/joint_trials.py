"""What the tests of the joint objective share: small students, studies of them, and a stub of a training."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
import pytest
from torch import nn

from optuna_kd import create_study, joint_objective
from optuna_kd import optimize as total_optimize
from optuna_kd.models import create_student
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.rewards import Metrics
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.study import space_of
from optuna_kd.training import ImageClassification
from optuna_kd.training.lesson import Rung

Make = Callable[..., ImageClassification]
Factory = Callable[[StudentConfig], nn.Module]
PROXY = ProxyConfig(epochs=2, rungs=(1, 2))
FAMILY = StudentSpace(
    "resnet", {"depth_1": (1, 3), "depth_3": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "base_width": 0.25}
)
build: Factory = functools.partial(create_student, num_classes=10, in_channels=1, input_size=8)


def space(**options: Any) -> UniADSSpace:
    return UniADSSpace(**{"student": FAMILY, **options})


PLAIN = space(distiller=False)


def new_study(**arguments: Any) -> optuna.Study:
    return create_study("uniads", **{"storage": None, "seed": 0, "space": PLAIN, **arguments})


class Stub:
    """Takes the place of a training: gives the next cross-entropies of a list, one for each rung."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.scores: Iterator[Sequence[float] | Exception] = itertools.repeat((1.0, 1.0))
        stub = self

        class Training:
            def __init__(self, task: Any, recipe: Recipe, proxy: ProxyConfig, **_: Any) -> None:
                self.proxy = proxy
                stub.trained.append(str(recipe.student))

            def lessons(self) -> Iterator[Rung]:
                scores = next(stub.scores)
                if isinstance(scores, Exception):
                    raise scores
                for epoch, score in zip(self.proxy.rungs, scores, strict=True):
                    yield Rung(epoch, Metrics(math.exp(-score), score, 0.5, 0.5, 10))

        monkeypatch.setattr(joint_objective, "StudentTraining", Training)
        monkeypatch.setattr(joint_objective, "probe_points", lambda *_: {})  # takes seconds; 4x4 maps have no dead ones


def enqueue(study: optuna.Study, *students: StudentConfig) -> None:
    distiller = Recipe.from_string("kl@4*1").distiller
    for student in students:
        study.enqueue_trial(space_of(study).params(Recipe(distiller, student)))


def optimize(study: optuna.Study, objective: Any, total: int) -> None:
    total_optimize(study, objective, total_trials=total)


def figures(study: optuna.Study) -> list[Any]:
    return [(t.params, t.state, t.values, t.intermediate_values.get(1)) for t in study.trials]
