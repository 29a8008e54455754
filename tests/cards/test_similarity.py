"""How far two tasks are apart: by hand, and as a distance has to be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cards import FACTS, facts

from optuna_kd.cards import DataFacts, NetworkFacts, TaskFacts, distance

networks = st.builds(
    NetworkFacts,
    st.sampled_from(["resnet8", "resnet8x4", "wrn_16_2", "Net", ""]),
    st.none() | st.integers(0, 10**9),
    st.none() | st.tuples(*[st.integers(1, 512)] * 3),
)
data = st.builds(
    DataFacts,
    st.sampled_from(["digits", "cifar10"]),
    st.integers(1, 1000),
    st.tuples(*[st.integers(1, 512)] * 3),
    *[st.integers(0, 10**6)] * 3,
)
tasks = st.builds(TaskFacts, data, networks, networks)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"data_validation": 1, "data_test": 1}, 0),  # how well it is known, not what it is
        ({"data_name": "letters"}, 1),
        ({"data_classes": 40}, 2),
        ({"data_classes": 5}, 1),
        ({"data_train": 4 * 958}, 1),
        ({"data_image_shape": (3, 32, 32)}, 1 + 2),
        ({"student_name": "resnet32"}, 0),
        ({"student_name": "wrn_16_2"}, 1),
        ({"student_parameters": 4 * 1384}, 1),
        ({"student_parameters": None}, 1),
        ({"student_layer": (16, 8, 8)}, 0.5 + 0.5),
        ({"student_layer": None}, 1),
        ({"teacher_name": "MyTeacher", "teacher_parameters": 272_186 // 2}, 1.5),
    ],
)
def test_the_distance(changes: dict[str, object], expected: float) -> None:
    assert distance(FACTS, facts(**changes)) == pytest.approx(expected)


@given(tasks, tasks)
def test_it_is_finite_symmetric_and_never_below_zero(one: TaskFacts, other: TaskFacts) -> None:
    far = distance(one, other)
    assert math.isfinite(far)
    assert far >= 0
    assert far == pytest.approx(distance(other, one))


@given(tasks)
def test_a_task_that_says_everything_is_at_no_distance_of_itself(task: TaskFacts) -> None:
    networks = (task.teacher, task.student)
    unknown = sum((network.parameters is None) + (network.layer is None) for network in networks)
    assert distance(task, task) == unknown
