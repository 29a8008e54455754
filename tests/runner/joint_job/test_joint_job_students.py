"""The student of a recipe, in and after a search; also students of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from joint_searches import SMALL, SPACE, build, student
from small_searches import Place, Task
from torch import nn

import optuna_kd
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import count_parameters
from optuna_kd.recipe import Options, Recipe, StudentConfig
from optuna_kd.runner.jobs import WorkerSpec, run_full, run_proxy
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.study import create_study
from optuna_kd.training.together import learn_alone


class Bricks(nn.Module):
    """A network that is in no registry."""

    def __init__(self, channels: int, head: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(channels, 10, bias=head == "biased")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return logits


def lay(config: StudentConfig) -> nn.Module:
    return Bricks(int(str(config.options["channels"])), str(config.options["head"]))


OWN = UniADSSpace(
    student=StudentSpace("bricks", {"channels": (4, 8, 16), "head": ("plain", "biased")}), temperatures=(4,)
)


def test_a_search_over_students_and_recipes_of_ones_own(empty: Place, make_open: Callable[..., Task]) -> None:
    task = make_open(student=lay)
    result = empty.search(
        task, space=OWN, trials=6, seeds=1, confirm=0, objectives=("error", "flops", "budget_gap"), budget_params=150,
        max_latency_ms=1000,
    )  # fmt: skip
    config = result.recipe.student
    assert config is not None
    assert config in OWN.student.all()  # type: ignore[union-attr]
    for row in result.front:
        assert list(row.values) == ["error", "flops", "budget_gap"]
        assert row.values["budget_gap"] == pytest.approx(abs(row.costs["parameters"] - 150) / 150)
        assert row.values["flops"] == row.costs["flops"]
    # No registered model: its weights are a plain state_dict, and the error says so.
    with pytest.raises(ValueError, match=r"state_dict|class of your own"):
        optuna_kd.load_student(result.directory)
    network = lay(config)
    network.load_state_dict(torch.load(result.directory / "student.pt", weights_only=True))


def test_distill_trains_the_student_of_the_recipe(make_open: Callable[..., Task], tmp_path: Path) -> None:
    task, config = make_open(), student(width=0.5)
    recipe = Recipe(Recipe.from_string("none|l2*1 + kl@4*1").distiller, config)
    result = optuna_kd.distill(task, recipe, epochs=1, seeds=1)
    assert result.recipe == recipe
    assert count_parameters(result.student) == count_parameters(build(config))
    loaded = optuna_kd.load_student(result.save(tmp_path / "run"))
    assert count_parameters(loaded) == count_parameters(result.student)
    with pytest.raises(ValueError, match=r"to be chosen, but the recipe kl@4\*1 names none"):
        optuna_kd.distill(task, "kl@4*1", epochs=1, seeds=1)
    with pytest.raises(ValueError, match="depth"):
        optuna_kd.distill(task, Recipe(student=student(depth_1=0)), epochs=1, seeds=1)


@pytest.mark.parametrize("is_open", [True, False])
def test_distill_keeps_the_name_of_a_student_of_ones_own(make_open: Callable[..., Task], is_open: bool) -> None:
    config = StudentConfig("bricks", Options(channels=4, head="plain"))
    task, recipe = make_open(student=lay), Recipe(Recipe.from_string("kl@4*1").distiller, config)
    result = optuna_kd.distill(task if is_open else task.with_student(config), recipe, epochs=1, seeds=1)
    assert result.recipe == recipe


def test_distill_drops_the_name_of_another_student(make_open: Callable[..., Task]) -> None:
    task = make_open().with_student(student(width=1.0))
    recipe = Recipe(Recipe.from_string("kl@4*1").distiller, student(width=0.5))
    assert optuna_kd.distill(task, recipe, epochs=1, seeds=1).recipe.student is None


def test_build_distiller_fits_the_student_of_the_recipe(open_task: Task) -> None:
    recipe = Recipe(Recipe.from_string("none|mse*1 + kl@4*1").distiller, student(width=0.5))
    distiller = optuna_kd.build_distiller(recipe, open_task)
    closed = open_task.for_recipe(recipe)
    observe = closed.observe(closed.make_student(seed=0))
    raw, labels = closed.train_set.batch(torch.arange(4))
    images = closed.prepare(raw)
    terms = distiller(observe(images), closed.teacher_knowledge(images), labels)
    assert set(terms) >= {"cross_entropy"}
    assert len(terms) == 3
    assert all(torch.isfinite(term) for term in terms.values())
    observe.close()
    with pytest.raises(ValueError, match="names none"):
        optuna_kd.build_distiller("kl@4*1", open_task)


def test_jobs_outside_of_the_study_train_the_student_of_their_recipe(empty: Place) -> None:
    study = create_study("uniads", storage=empty.url, study_name="s", space=SPACE, seed=0)
    objective = JointDistillationObjective(empty.task, proxy=SMALL["proxy"], max_params=10)
    worker = WorkerSpec(
        task=empty.task, objective=type(objective), options=objective.options(), knowledge=None, storage=empty.url,
        study_name="s", sampler="uniads", pruner=study.pruner, seed=0, session="here", checkpoints=None,
    )()  # fmt: skip
    assert isinstance(worker.objective, JointDistillationObjective)
    assert worker.objective.limits == {"parameters": 10}
    recipe = Recipe(Recipe.from_string("kl@4*1").distiller, student(width=0.5))
    found = learn_alone(run_proxy(worker, recipe, seed=1))
    assert found["recipe"] == str(recipe)
    assert 0 <= found["reward"] <= 1
    file = empty.folder / "deep" / "student.pt"
    learn_alone(run_full(worker, recipe, epochs=1, index=0, file=str(file)))
    build(student(width=0.5)).load_state_dict(torch.load(file, weights_only=True))
