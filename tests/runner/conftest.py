"""A teacher that is worth searching with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from small_searches import Task
from torch import nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training.trainer import StudentTraining


@pytest.fixture(scope="session")
def knowing_teacher(make_task: Callable[..., Task], make_teacher: Callable[[int], Any]) -> nn.Module:
    """A teacher that knows its digits."""
    apprentice = make_task(student=lambda: make_teacher(0))
    training = StudentTraining(apprentice, Recipe(), ProxyConfig(epochs=12, rungs=(12,)), seed=0)
    for _ in training.run():
        pass
    training.observer.close()
    return training.student


@pytest.fixture(scope="session")
def teaching_task(make_task: Callable[..., Task], knowing_teacher: nn.Module) -> Task:
    """The small task with that teacher."""
    return make_task(teacher=knowing_teacher)
