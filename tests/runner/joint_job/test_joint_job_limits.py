"""Searches with limits that nobody keeps, and with students that cannot be built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from joint_searches import build, student
from optuna.trial import TrialState
from small_searches import Place, Task
from torch import nn

from optuna_kd.pruners import REJECT_REASON
from optuna_kd.recipe import StudentConfig
from optuna_kd.search_space import StudentSpace, UniADSSpace

LIMITS = pytest.mark.parametrize(
    ("limit", "name", "allowed"),
    [
        ({"max_params": 100}, "parameters", "100"),
        ({"max_flops": 10.0, "max_params": 1e9}, "flops", "10"),
        ({"max_latency_ms": 1e-7}, "latency_ms", "1e-07"),
    ],
)


@LIMITS
def test_limits_that_nobody_keeps_are_refused_before_anything_is_written(
    empty: Place, limit: dict[str, Any], name: str, allowed: str
) -> None:
    with pytest.raises(ValueError, match=r"None of the \d+ students keeps the limits") as caught:
        empty.search(trials=4, **limit)
    assert f"{name}, allowed {allowed}. Relax" in str(caught.value)
    assert list(empty.folder.iterdir()) == []


@LIMITS
def test_of_too_many_students_to_look_at_the_trials_tell(
    empty: Place, limit: dict[str, Any], name: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optuna_kd.joint_objective.MOST_LOOKED_AT", 1)
    with pytest.raises(ValueError, match="No student that was tried keeps the limits") as caught:
        empty.search(trials=4, **limit)
    trials = empty.study().trials
    nearest = min(trial.user_attrs[name] for trial in trials)
    assert f"has {nearest:,.6g} {name}, allowed {allowed}" in str(caught.value)
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 4
    assert all(trial.user_attrs[REJECT_REASON].startswith("infeasible") for trial in trials)
    assert not any(path.is_file() for path in (empty.folder / "runs").rglob("*"))


def test_the_first_trial_keeps_the_limits_however_few_students_do(empty: Place) -> None:
    smallest = build(student(depth_1=1, width=0.5))
    limit = sum(parameter.numel() for parameter in smallest.parameters())
    result = empty.search(trials=1, max_params=limit, seeds=1, confirm=0)
    (trial,) = result.study.trials
    assert (trial.params["depth_1"], trial.params["width"]) == (1, 0.5)
    assert trial.state == TrialState.COMPLETE


def test_a_search_without_limits_begins_with_the_smallest_student(empty: Place) -> None:
    (trial,) = empty.search(trials=1, seeds=1, confirm=0).study.trials
    assert (trial.params["depth_1"], trial.params["width"]) == (1, 0.5)


def picky(config: StudentConfig) -> nn.Module:
    if config.options["width"] == 1.0:
        raise RuntimeError("wide ones are out of stock")
    return build(config)


def out_of_stock(config: StudentConfig) -> nn.Module:
    raise RuntimeError("out of stock")


def test_students_that_cannot_be_built_are_passed_over(empty: Place, make_open: Callable[..., Task]) -> None:
    result = empty.search(make_open(student=picky), seeds=1, confirm=0, seed=3)
    refused = [trial for trial in result.study.trials if trial.params["width"] == 1.0]
    assert refused
    for trial in refused:
        assert trial.state == TrialState.PRUNED
        assert "RuntimeError: wide ones are out of stock" in trial.user_attrs[REJECT_REASON]
    assert all(row.recipe.student and row.recipe.student.options["width"] == 0.5 for row in result.front)


def test_a_task_none_of_whose_students_can_be_built_says_why(empty: Place, make_open: Callable[..., Task]) -> None:
    with pytest.raises(ValueError, match=r"failed for all 4 students.*RuntimeError: out of stock") as caught:
        empty.search(make_open(student=out_of_stock), trials=2)
    assert list(empty.folder.iterdir()) == []
    assert "learning rate" not in str(caught.value)  # no rate would build them


class Odd(nn.Module):
    """Few parameters that are used often, or many that are never used."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.repeats = 20 if kind == "busy" else 1
        self.stem, self.again = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.spare = nn.Parameter(torch.zeros(10_000 if kind == "heavy" else 1))
        self.head = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.stem(images)
        for _ in range(self.repeats):
            maps = self.again(maps).relu()
        logits: torch.Tensor = self.head(maps.mean((2, 3)))
        return logits


def test_limits_that_exclude_each_other_are_told_as_limits(
    empty: Place, make_open: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each limit is kept by a student, and no student keeps both."""
    task = make_open(student=lambda config: Odd(str(config.options["kind"])))
    space = UniADSSpace(student=StudentSpace("odd", {"kind": ("busy", "heavy")}), distiller=False)
    with pytest.raises(ValueError, match="None of the 2 students keeps the limits") as caught:
        empty.search(task, space=space, trials=4, max_params=5000, max_flops=100_000)
    assert "nearest is odd(kind=heavy): 10," in str(caught.value)
    monkeypatch.setattr("optuna_kd.joint_objective.MOST_LOOKED_AT", 1)
    with pytest.raises(ValueError, match=r"infeasible|limits") as caught:
        empty.search(task, space=space, trials=4, max_params=5000, max_flops=100_000)
    found = {trial.params["kind"]: trial.user_attrs for trial in empty.study().trials}
    assert found["busy"]["parameters"] < 5000 < found["heavy"]["parameters"]
    assert found["heavy"]["flops"] < 100_000 < found["busy"]["flops"]
    assert "learning rate" not in str(caught.value)  # no rate would make them smaller
