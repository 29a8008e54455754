"""A teacher that is worth searching with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_searches import Task
from torch import nn


@pytest.fixture(scope="session")
def teaching_task(make_task: Callable[..., Task], knowing_teacher: nn.Module) -> Task:
    """The small task with that teacher."""
    return make_task(teacher=knowing_teacher)
