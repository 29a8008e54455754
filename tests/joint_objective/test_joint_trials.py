"""Student and recipe scored together: whole trials on real digits, and what samplers and stock Optuna make of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from joint_trials import FAMILY, PROXY, Stub, build, enqueue, figures, new_study, optimize, space
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from optuna_kd import create_study, front
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import count_flops
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.recipe import Recipe
from optuna_kd.study import RECIPE, recipe_of, space_of
from optuna_kd.training import ImageClassification, LossRejected

ALL = ("cross_entropy", "error", "parameters", "flops", "latency_ms", "budget_gap")


def test_a_trial_carries_all_its_figures(open_task: ImageClassification) -> None:
    study = new_study(objectives=ALL, space=space(), pruner=NopPruner())
    objective = JointDistillationObjective(open_task, proxy=PROXY, budget=5000, max_params=1e6)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    recipe, found = recipe_of(study, trial), trial.user_attrs
    assert recipe.student is not None
    network = build(recipe.student)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert found["parameters"] == parameters
    assert found["flops"] == count_flops(network, torch.zeros(1, 1, 8, 8))
    assert found["latency_ms"] > 0
    assert trial.values == [
        found["cross_entropy"], 1 - found["accuracy"], parameters, found["flops"], found["latency_ms"],
        abs(parameters - 5000) / 5000,
    ]  # fmt: skip
    assert found[RECIPE] == str(Recipe(recipe.distiller))
    assert found["student"]
    assert (found["epochs"], set(found) >= {"cka", "seconds"}) == (2, True)
    assert found[RUNG_VALUES]["2"] == trial.values
    assert [step for step in trial.intermediate_values if step <= 2] == [1, 2]
    assert trial.constraints == {"parameters": parameters / 1e6 - 1}


def test_every_student_of_the_space_can_be_a_trial(open_task: ImageClassification, stub: Stub) -> None:
    study = new_study()
    enqueue(study, *FAMILY.all())
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=8)
    assert len(set(stub.trained)) == 8
    sizes = {trial.user_attrs["parameters"] for trial in study.trials}
    assert sizes == {float(sum(p.numel() for p in build(student).parameters())) for student in FAMILY.all()}


def test_two_runs_of_one_seed_are_equal_and_resume_exactly(open_task: ImageClassification, tmp_path: Path) -> None:
    def run(url: str | None, *totals: int) -> list[Any]:
        for total in totals:  # a new objective and study each time, as after a restart
            study = create_study("uniads", storage=url, study_name="s", seed=4, space=space(), load_if_exists=bool(url))
            optimize(study, JointDistillationObjective(open_task, proxy=PROXY), total)
        return figures(study)

    whole = run(None, 6)
    assert run(f"sqlite:///{tmp_path / 'kd.db'}", 3, 6) == whole
    assert len({str(trial[0]) for trial in whole}) == 6


# Samplers and programs that know nothing of this package.


@pytest.mark.parametrize("sampler", ["uniads", "tpe", "nsga2", "random"])
def test_samplers_meet_pruned_rejected_and_infeasible_trials(
    open_task: ImageClassification, stub: Stub, sampler: str
) -> None:
    good, worse, bad = (1.0, 0.5), (2.0, 1.9), LossRejected("non-finite loss: features is nan")
    stub.scores = itertools.cycle([good, worse, bad, (1.5, 1.4), (3.0, 3.0), good])
    study = new_study(sampler=sampler, space=space())
    objective = JointDistillationObjective(open_task, proxy=PROXY, max_params=12_000)
    optimize(study, objective, 40)
    states = [trial.state for trial in study.trials]
    assert len(states) == 40
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    reasons = {
        trial.user_attrs.get(REJECT_REASON, "pruned").partition(":")[0]
        for trial in study.trials
        if trial.values is None
    }
    assert {"infeasible", "non-finite loss"} <= reasons
    assert len({str(trial.params) for trial in study.trials}) > 20
    assert all(trial.user_attrs["parameters"] <= 12_000 for trial in front(study))


def test_stock_optuna_reads_the_study(open_task: ImageClassification, stub: Stub, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = new_study(storage=url, study_name="s")
    stub.scores = itertools.cycle([(2.0, 1.5), (1.0, 0.5), (1.5, 1.0)])
    optimize(study, JointDistillationObjective(open_task, proxy=PROXY, max_params=12_000), 6)
    stock = optuna.load_study(study_name="s", storage=url)
    assert stock.metric_names == ["cross_entropy", "parameters"]
    assert {trial.number for trial in stock.best_trials} >= {trial.number for trial in front(study)}
    assert [trial.params for trial in stock.trials] == [trial.params for trial in study.trials]
    assert all(space_of(study).recipe(trial.params) for trial in stock.trials)
    stock.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        return 1.0, float(trial.suggest_int("depth_1", 1, 3, step=2))

    stock.optimize(objective, n_trials=3)
    assert len(stock.trials) == 9
