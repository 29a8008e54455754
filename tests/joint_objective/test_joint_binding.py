"""What belongs together: tasks, studies, spaces and objectives; the rest is refused with a reason."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from joint_trials import FAMILY, PLAIN, PROXY, Make, build, new_study, space
from torch import nn

from optuna_kd import create_study
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.search_space import UniADSSpace
from optuna_kd.study import TASK, StudyMismatchError
from optuna_kd.training import ImageClassification


def test_objectives_and_tasks_that_do_not_fit_say_so(open_task: ImageClassification, task: ImageClassification) -> None:
    with pytest.raises(ValueError, match=r"one student.*function that takes a StudentConfig.*DistillationObjective"):
        JointDistillationObjective(task)
    with pytest.raises(ValueError, match=r"still to be chosen: use JointDistillationObjective, or task\.with_student"):
        DistillationObjective(open_task)
    with pytest.raises(ValueError, match="has one student"):
        task.with_student(FAMILY.all()[0])
    with pytest.raises(ValueError, match=r"use task\.with_student"):
        open_task.make_student(0)


def test_a_task_with_one_of_the_students(open_task: ImageClassification) -> None:
    student = FAMILY.all()[3]
    closed = open_task.with_student(student)
    assert (closed.is_open, open_task.is_open) == (False, True)
    assert closed.student_config == student
    assert closed.for_recipe(Recipe()) is closed
    assert open_task.for_recipe(Recipe(student=student)).student_config == student
    assert closed.student_parameters == sum(p.numel() for p in build(student).parameters())
    assert closed.train_set is open_task.train_set
    assert DistillationObjective(closed, proxy=PROXY).task is closed
    with pytest.raises(ValueError, match="names none"):
        open_task.for_recipe(Recipe())


@pytest.mark.parametrize("arguments", [{"method": "auto-kd"}, {"method": "auto-kd", "space": PLAIN}])
def test_a_study_of_one_reward_is_refused(open_task: ImageClassification, arguments: dict[str, Any]) -> None:
    study = create_study(**arguments, storage=None, seed=0)
    with pytest.raises(StudyMismatchError, match=r"create_study\(method='uniads'"):
        JointDistillationObjective(open_task, proxy=PROXY).bind(study)


@pytest.mark.parametrize("where", ["bind", "optimize"])
def test_a_study_of_several_objectives_is_refused_for_one_student(task: ImageClassification, where: str) -> None:
    study, objective = new_study(), DistillationObjective(task, proxy=PROXY)
    with pytest.raises(StudyMismatchError):
        objective.bind(study) if where == "bind" else study.optimize(objective, n_trials=1)


def test_a_space_that_chooses_students_is_refused_for_one_student(task: ImageClassification) -> None:
    # It would train the one student, and say that it had trained the one of the recipe.
    study = create_study("auto-kd", space=space(), storage=None, seed=0)
    with pytest.raises(StudyMismatchError, match="student"):
        DistillationObjective(task, proxy=PROXY).bind(study)


def test_a_space_without_students_is_refused(open_task: ImageClassification) -> None:
    for wrong in (UniADSSpace(student=None), "auto-kd"):
        study = new_study(space=wrong)
        with pytest.raises(StudyMismatchError, match="has no students"):
            study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)


def test_studies_without_the_names_of_objectives_are_refused(open_task: ImageClassification) -> None:
    objective = JointDistillationObjective(open_task, proxy=PROXY)
    foreign = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(
        StudyMismatchError, match=r"2 directions and the metric names \[\]; each direction needs one of"
    ):
        foreign.optimize(objective, n_trials=1)
    foreign.set_metric_names(["cross_entropy", "size"])
    with pytest.raises(
        StudyMismatchError, match=r"'size'.*cross_entropy, error, parameters, flops, latency_ms, budget_g"
    ):
        objective.bind(foreign)
    foreign.set_metric_names(["cross_entropy", "parameters"])
    with pytest.raises(StudyMismatchError, match=r"not made by optuna_kd\.create_study"):
        objective.bind(foreign)


def test_budget_gap_needs_a_budget(open_task: ImageClassification) -> None:
    study = new_study(objectives=("cross_entropy", "budget_gap"))
    with pytest.raises(ValueError, match=r"budget_gap needs a budget: pass budget="):
        JointDistillationObjective(open_task, proxy=PROXY).bind(study)
    assert TASK not in study.user_attrs
    JointDistillationObjective(open_task, proxy=PROXY, budget=1000).bind(study)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"max_params": 2000}, r"parameters.*1000.*asked for.*2000"),
        ({"budget": 9}, "asked for.*budget"),
        ({"max_params": None}, "1000"),
        ({"proxy": ProxyConfig(epochs=3)}, r'"epochs": 2.*"epochs": 3'),
    ],
)
def test_a_study_goes_on_with_the_same_limits_only(
    open_task: ImageClassification, change: dict[str, Any], shown: str
) -> None:
    arguments: dict[str, Any] = {"proxy": PROXY, "max_params": 1000}
    study = new_study()
    JointDistillationObjective(open_task, **arguments).bind(study)
    JointDistillationObjective(open_task, **arguments).bind(study)
    with pytest.raises(StudyMismatchError, match=shown):
        JointDistillationObjective(open_task, **{**arguments, **change}).bind(study)


def test_options_create_the_same_objective_elsewhere(open_task: ImageClassification) -> None:
    objective = JointDistillationObjective(open_task, proxy=PROXY, max_params=9e4, max_latency_ms=3, budget=1e4)
    again = JointDistillationObjective(open_task, **objective.options())
    assert again.describe(PLAIN) == objective.describe(PLAIN)
    plain = JointDistillationObjective(open_task)
    assert JointDistillationObjective(open_task, **plain.options()).describe(PLAIN) == plain.describe(PLAIN)
    assert (plain.proxy.epochs, plain.proxy.rungs) == (24, (3, 6, 12, 24))  # UniADS, section 4


def test_a_student_function_that_was_edited_is_refused(open_task: ImageClassification, make_open: Make) -> None:
    study = new_study()
    JointDistillationObjective(open_task, proxy=PROXY).bind(study)

    def edited(config: StudentConfig) -> nn.Module:
        return nn.Sequential(build(config), nn.Identity())

    with pytest.raises(StudyMismatchError, match="students is"):
        JointDistillationObjective(make_open(student=edited), proxy=PROXY).bind(study)
