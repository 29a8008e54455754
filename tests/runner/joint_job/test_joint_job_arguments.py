"""What does not belong together is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest
from joint_searches import FAMILY, SPACE, student
from small_searches import Place

from optuna_kd.search_space import UniADSSpace


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "auto-kd", "space": None}, "still to be chosen: use JointDistillationObjective"),
        ({"reward": "accuracy"}, "no reward; got reward='accuracy'"),
        ({"max_params": 0}, "max_params must be > 0; got 0"),
        ({"budget_params": -1}, "budget must be > 0"),
        ({"budget_params": 5000}, r"for the objective budget_gap; .* max_params"),
        ({"screen": 1.5}, r"screen is a share of the students, in \[0, 1\)"),
        ({"objectives": ("cross_entropy", "size")}, "Unknown objective 'size'"),
        ({"objectives": ("cross_entropy",)}, "two different objectives"),
        ({"objectives": ("parameters", "flops")}, "quality"),
        ({"objectives": ("cross_entropy", "budget_gap")}, "needs a budget"),
        ({"space": "auto-kd"}, "student"),
        ({"space": UniADSSpace(student=None)}, "student"),
        ({"sampler": "mcts"}, "objective"),
        ({"sampler": "uniad"}, "Did you mean 'uniads'"),
        ({"workers": 2, "storage": None}, "2 workers need a storage with a URL"),
        ({"trials": 0}, "trials must be >= 1"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    empty: Place, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        empty.search(**arguments)
    assert list(empty.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": SPACE}, "one student, so there is none to choose"),
        ({"method": "auto-kd", "space": "auto-kd", "max_params": 1000}, "got max_params for one student"),
        ({"method": "auto-kd", "space": "auto-kd", "screen": 0.5}, "got screen for one student"),
        ({"method": "auto-kd", "space": "auto-kd", "objectives": ("error", "flops")}, "no objectives to choose"),
        ({"method": "auto-kd", "space": UniADSSpace(student=FAMILY)}, "student"),
    ],
)
def test_a_task_with_one_student_has_none_to_choose(empty: Place, arguments: dict[str, Any], message: str) -> None:
    closed = empty.task.with_student(student())
    with pytest.raises(ValueError, match=message):
        empty.search(closed, **{"seeds": 1, "confirm": 0, "trials": 1, **arguments})
    assert list(empty.folder.iterdir()) == []
