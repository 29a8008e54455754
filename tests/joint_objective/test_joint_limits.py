"""Students that break a limit, or cannot be built, are not trained."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from joint_trials import FAMILY, PROXY, Make, Stub, build, enqueue, new_study
from optuna.trial import TrialState
from torch import nn

from optuna_kd import front, joint_objective
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import create_student
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.recipe import StudentConfig
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.study import space_of
from optuna_kd.training import ImageClassification


def test_a_student_above_a_limit_is_measured_and_not_trained(open_task: ImageClassification, stub: Stub) -> None:
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, large, small)
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_params=5000, max_flops=1e5), n_trials=2)
    refused, taken = study.trials
    assert stub.trained == [str(small)]
    assert (refused.state, taken.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    sizes = refused.user_attrs
    reason = sizes[REJECT_REASON]
    assert reason.startswith("infeasible: ")
    assert f"{sizes['parameters']:,.0f} parameters, allowed 5,000" in reason
    assert f"{sizes['flops']:,.0f} flops, allowed 100,000" in reason
    assert refused.constraints == {"parameters": sizes["parameters"] / 5000 - 1, "flops": sizes["flops"] / 1e5 - 1}
    assert refused.intermediate_values == {}
    assert {"cross_entropy", "epochs"} & set(sizes) == set()
    assert max(taken.constraints.values()) <= 0
    assert front(study) == [taken]


def test_a_student_exactly_at_the_limit_is_allowed(open_task: ImageClassification, stub: Stub) -> None:
    small = FAMILY.all()[0]
    parameters = sum(parameter.numel() for parameter in build(small).parameters())
    for limit, state in ((parameters, TrialState.COMPLETE), (parameters - 1, TrialState.PRUNED)):
        study = new_study()
        enqueue(study, small)
        study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_params=limit), n_trials=1)
        assert study.trials[0].state == state


def test_the_latency_of_a_student_is_measured_once_in_a_study(
    open_task: ImageClassification, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = itertools.count(1.0)
    monkeypatch.setattr(joint_objective, "latency_ms", lambda network, image: next(clock))
    arguments = {"storage": f"sqlite:///{tmp_path / 'kd.db'}", "study_name": "s", "objectives": ("error", "latency_ms")}
    first, second = FAMILY.all()[:2]
    for _ in range(2):  # as after a restart
        study = new_study(**arguments, load_if_exists=True)
        enqueue(study, first, first, second)
        study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_latency_ms=1.5), n_trials=3)
    assert [trial.user_attrs["latency_ms"] for trial in study.trials] == [1, 1, 2, 1, 1, 2]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"] * 2
    assert "2 latency_ms, allowed 1.5" in study.trials[2].user_attrs[REJECT_REASON]


def test_one_objective_for_two_studies_measures_in_each(
    open_task: ImageClassification, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What one study has stored must hold in that study, whichever else the objective has seen.
    objective, other = (JointDistillationObjective(open_task, proxy=PROXY) for _ in range(2))
    studies = [new_study(objectives=("error", "latency_ms")) for _ in range(2)]
    for clock, (study, used) in enumerate(((studies[0], objective), (studies[1], other), (studies[1], objective))):
        monkeypatch.setattr(joint_objective, "latency_ms", lambda network, image, clock=clock: float(clock))
        enqueue(study, FAMILY.all()[0])
        study.optimize(used, n_trials=1)
    assert [trial.user_attrs["latency_ms"] for trial in studies[1].trials] == [1, 1]


@pytest.mark.parametrize("name", ["max_params", "max_flops", "max_latency_ms", "budget"])
@pytest.mark.parametrize("limit", [0, -1.5, math.nan])
def test_limits_are_positive(open_task: ImageClassification, name: str, limit: float) -> None:
    arguments: dict[str, Any] = {name: limit}
    with pytest.raises(ValueError, match=r"limit of \w+ must be > 0; got"):
        JointDistillationObjective(open_task, **arguments)


# Students that cannot be built.


class NoMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: Any) -> Any:
        return self.head(images.flatten(1))


def broken(config: StudentConfig) -> Any:
    kind = config.options["kind"]
    if kind == "raises":
        raise ZeroDivisionError("no such student")
    return {
        "no module": lambda: "a student",
        "classes": lambda: create_student(StudentConfig("resnet8"), num_classes=7, in_channels=1, input_size=8),
        "channels": lambda: create_student(StudentConfig("resnet8"), num_classes=10, in_channels=3, input_size=8),
        "no maps": NoMaps,
        "good": lambda: create_student(StudentConfig("resnet8x0.25"), num_classes=10, in_channels=1, input_size=8),
    }[str(kind)]()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raises", "ZeroDivisionError: no such student"),
        ("no module", "returned str"),
        ("classes", "7 outputs"),
        ("channels", "images of 3 channels"),
        ("no maps", "cannot be built"),
    ],
)
def test_a_student_that_cannot_be_built_is_infeasible(make_open: Make, stub: Stub, kind: str, reason: str) -> None:
    students = StudentSpace("mine", {"kind": ("good", kind)})
    study = new_study(space=UniADSSpace(student=students, distiller=False))
    objective = JointDistillationObjective(make_open(student=broken), proxy=PROXY)
    enqueue(study, students.all()[1], students.all()[0])
    study.optimize(objective, n_trials=2)
    bad, good = study.trials
    assert (bad.state, good.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    assert bad.user_attrs[REJECT_REASON].startswith("infeasible: the student mine(kind=")
    assert reason in bad.user_attrs[REJECT_REASON]
    assert sum(bad.constraints.values()) > 0
    assert bad.values is None
    assert stub.trained == ["mine(kind=good)"]
    assert [trial.number for trial in front(study)] == [1]


def test_a_space_may_begin_with_students_that_cannot_be_built(make_open: Make) -> None:
    # The first student that can be built says what cannot teach on its maps.
    students = StudentSpace("mine", {"kind": ("raises", "good")})
    study = new_study(space=UniADSSpace(student=students))
    JointDistillationObjective(make_open(student=broken), proxy=PROXY).bind(study)
    assert space_of(study) == UniADSSpace(student=students)  # on 4x4 maps and for 10 classes nothing is dead


def test_a_factory_of_ones_own_may_use_any_name(make_open: Make, stub: Stub) -> None:
    """The name and the options are the user's: also the name of a family of this package, with other options."""
    students = StudentSpace("resnet", {"channels": (4, 8)})

    def own(config: StudentConfig) -> nn.Module:
        width = float(str(config.options["channels"])) / 16
        return create_student(StudentConfig(f"resnet8x{width:g}"), num_classes=10, in_channels=1, input_size=8)

    study = new_study(space=UniADSSpace(student=students, distiller=False))
    enqueue(study, *students.all())
    study.optimize(JointDistillationObjective(make_open(student=own), proxy=PROXY), n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [trial.user_attrs["parameters"] for trial in study.trials] == [
        sum(p.numel() for p in own(student).parameters()) for student in students.all()
    ]
