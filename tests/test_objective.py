"""The objective, where search meets training: whole studies on real digits, small ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from torch import nn

from optuna_kd import objective as objective_module
from optuna_kd.cards import TaskFacts
from optuna_kd.distillers import DeadTermError, Distiller
from optuna_kd.objective import DistillationObjective, FunctionObjective, dead_cells
from optuna_kd.pruners import REJECT_REASON, CKAPruner
from optuna_kd.pruners.cka import GAPS
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.registry import UnknownNameError
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.search_space import AutoKDSpace, DeadCell
from optuna_kd.seeds import derive_seed
from optuna_kd.storages import retire_trial
from optuna_kd.study import (
    FACTS,
    RECIPE,
    TASK,
    WARM_START,
    StudyMismatchError,
    best_recipe,
    create_study,
    optimize,
    recipe_of,
    space_of,
)
from optuna_kd.training import (
    ImageClassification,
    KnowledgeMismatchError,
    LossRejected,
    store_knowledge,
)

pytestmark = pytest.mark.usefixtures("quiet_optuna")

PROXY = ProxyConfig(epochs=2, rungs=(1, 2), subset=0.5)
Make = Callable[..., ImageClassification]


@pytest.fixture(scope="module")
def objective(task: ImageClassification) -> DistillationObjective:
    return DistillationObjective(task, proxy=PROXY)


def enqueue(study: optuna.Study, *recipes: str) -> None:
    for text in recipes:
        study.enqueue_trial(space_of(study).params(Recipe.from_string(text)))


def test_a_trial_carries_all_its_figures(objective: DistillationObjective, task: ImageClassification) -> None:
    study = create_study(storage=None, seed=0, pruner=optuna.pruners.NopPruner())
    enqueue(study, "none|l2*5 + kl@4*1")
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    attributes = trial.user_attrs
    assert trial.state == TrialState.COMPLETE
    assert attributes[RECIPE] == "none|l2*5 + kl@4*1" == str(recipe_of(study, trial))
    assert set(attributes) >= {"accuracy", "cross_entropy", "cka", "reward_paper", "seconds", "epochs", "parameters"}
    assert attributes["epochs"] == 2
    assert attributes["parameters"] == task.student_parameters
    assert attributes["seconds"] > 0
    assert attributes["reward_paper"] == pytest.approx(1 - attributes["cross_entropy"] - (1 - attributes["cka"]))
    metrics = Metrics(attributes["accuracy"], attributes["cross_entropy"], attributes["cka"], 0.0, 10)
    assert trial.value == pytest.approx(REWARDS["bounded"](metrics))
    assert sorted(trial.intermediate_values) == [1, 2]
    assert trial.intermediate_values[2] == trial.value
    assert attributes[GAPS] == {"1": pytest.approx(attributes[GAPS]["1"]), "2": pytest.approx(1 - attributes["cka"])}


@pytest.mark.parametrize("reward", sorted(REWARDS))
def test_every_reward_searches(task: ImageClassification, reward: str) -> None:
    study = create_study(storage=None, seed=0)
    objective = DistillationObjective(task, proxy=PROXY, reward=reward)
    study.optimize(objective, n_trials=1)
    if reward == "accuracy":
        assert study.best_value == study.best_trial.user_attrs["accuracy"]
    if reward == "paper":
        assert study.best_value == study.best_trial.user_attrs["reward_paper"]
    assert study.user_attrs[TASK]["reward"] == reward


def test_pruned_trials_end_at_their_rung(objective: DistillationObjective) -> None:
    study = create_study(storage=None, seed=0, pruner=CKAPruner(warmup_trials=1, reduction_factor=3))
    study.optimize(objective, n_trials=8)
    states = [trial.state for trial in study.trials]
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert len(pruned) > 0
    assert states.count(TrialState.COMPLETE) + len(pruned) == 8
    for trial in pruned:
        assert list(trial.intermediate_values) == [1]
        assert trial.user_attrs["epochs"] == 1
        assert {"accuracy", "cka", "seconds"} <= set(trial.user_attrs)
        assert REJECT_REASON not in trial.user_attrs


def test_two_runs_of_one_seed_are_equal_and_resume_exactly(task: ImageClassification, tmp_path: Path) -> None:
    def run(url: str | None, *totals: int) -> list[Any]:
        for total in totals:  # a new objective and study each time, as after a restart
            study = create_study(storage=url, study_name="s", seed=4, load_if_exists=url is not None)
            optimize(study, DistillationObjective(task, proxy=PROXY), total_trials=total)
        return [(trial.params, trial.state, trial.value, trial.intermediate_values) for trial in study.trials]

    whole = run(None, 6)
    assert run(f"sqlite:///{tmp_path / 'kd.db'}", 3, 6) == whole
    assert len({str(trial[0]) for trial in whole}) == 6


def test_a_rejected_loss_ends_its_trial_and_not_the_study(make_task: Make) -> None:
    objective = DistillationObjective(make_task(lr=1e6), proxy=PROXY)
    study = create_study(storage=None, seed=0)
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        assert trial.state == TrialState.PRUNED
        assert "loss" in trial.user_attrs[REJECT_REASON]
        assert "seconds" in trial.user_attrs


def test_chains_that_cannot_be_built_are_rejected_before_training(
    objective: DistillationObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_study(storage=None, seed=0, space="naive")
    space = space_of(study)
    chain = {"transform_1": "sample", "transform_2": "multiscale", "transform_3": "none"}
    valid = space.params(Recipe.from_string("mask|l1*5 + kl@4*1"))
    study.enqueue_trial({**valid, **chain})
    study.enqueue_trial(valid)
    study.optimize(objective, n_trials=2)
    first, second = study.trials
    assert first.state == TrialState.PRUNED
    assert "cannot be built" in first.user_attrs[REJECT_REASON]
    assert "sample" in first.user_attrs[REJECT_REASON]
    assert first.intermediate_values == {}
    assert second.state == TrialState.COMPLETE
    assert best_recipe(study) == space.recipe(second.params)


def test_a_dead_term_is_an_error_of_the_program(make_task: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not a bad draw: the space was checked, so this must not pass as a pruned trial.
    objective = DistillationObjective(make_task(), proxy=PROXY)
    study = create_study(storage=None, seed=0)

    def broken(*_: Any) -> None:
        raise DeadTermError({"features": "is zero and has no gradient"})

    monkeypatch.setattr(Distiller, "check_terms", broken)
    with pytest.raises(DeadTermError, match="features"):
        study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.FAIL


@pytest.mark.parametrize(
    ("change", "value", "shown"),
    [
        ("teacher", None, "teacher is "),
        ("lr", 0.01, "optimizer is sgd lr=0.1 wd=0.0005 batch=32, asked for sgd lr=0.01"),
        ("val_share", 0.4, "validation is "),
        ("student", lambda: small_maps(4), "student is ResNet "),
    ],
)
def test_a_study_refuses_another_task_naming_both(
    task: ImageClassification,
    make_task: Make,
    make_teacher: Callable[[int], nn.Module],
    tmp_path: Path,
    change: str,
    value: Any,
    shown: str,
) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", study_name="s", seed=0)
    DistillationObjective(task, proxy=PROXY).bind(study)
    other = make_task(**{change: make_teacher(1) if change == "teacher" else value})
    with pytest.raises(StudyMismatchError) as caught:
        DistillationObjective(other, proxy=PROXY).bind(study)
    assert shown in str(caught.value)
    key = {"lr": "optimizer", "val_share": "validation"}.get(change, change)
    assert task.describe()[key] in str(caught.value)
    assert other.describe()[key] in str(caught.value)
    DistillationObjective(task, proxy=PROXY).bind(study)  # the right one goes on


def test_a_study_refuses_another_proxy_or_reward(task: ImageClassification) -> None:
    study = create_study(storage=None, seed=0)
    DistillationObjective(task, proxy=PROXY).bind(study)
    with pytest.raises(StudyMismatchError, match=r'proxy is \{.*"epochs": 2, .*asked for \{.*"epochs": 3, '):
        DistillationObjective(task, proxy=ProxyConfig(epochs=3)).bind(study)
    with pytest.raises(StudyMismatchError, match="reward is bounded, asked for ce-l1"):
        DistillationObjective(task, proxy=PROXY, reward="ce-l1").bind(study)
    trial = study.ask()
    with pytest.raises(StudyMismatchError):
        DistillationObjective(task, reward="ce")(trial)


def test_one_objective_serves_several_studies(task: ImageClassification) -> None:
    """Also studies of one name in several storages, as in a loop over seeds."""
    objective = DistillationObjective(task, proxy=PROXY)
    for seed in (1, 2):
        study = create_study(storage=None, study_name="same name", seed=seed, space="naive" if seed == 2 else None)
        space, found = objective.bind(study)
        assert found == seed
        assert space == space_of(study)
        assert study.user_attrs[TASK] == {**task.describe(), "proxy": PROXY.to_dict(), "reward": "bounded"}


def small_maps(side: int) -> nn.Module:
    """A network whose only maps are side x side."""
    conv = nn.Conv2d(1, 6, 8 // side, stride=8 // side)
    return nn.Sequential(conv, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * side * side, 10))


DEAD_2X2 = [DeadCell("local", "channel", "kl"), DeadCell("local", "channel", "l2"), DeadCell("local", "none", "gl2")]


def test_dead_options_are_left_out_and_said(make_task: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    task = make_task(teacher=small_maps(2), student=lambda: small_maps(2))
    assert dead_cells(task) == DEAD_2X2
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", study_name="s", seed=0)
    with caplog.at_level(logging.WARNING, logger="optuna_kd.objective"):
        optimize(study, DistillationObjective(task, proxy=PROXY), total_trials=3)
    (record,) = [record for record in caplog.records if record.name == "optuna_kd.objective"]
    assert "these cannot teach and are left out" in record.message
    assert "local>channel|kl, local>channel|l2, local>none|gl2" in record.message
    assert "[6, 2, 2]" in record.message
    assert space_of(study) == AutoKDSpace(dead=tuple(DEAD_2X2))

    # After a restart the frozen space is used, silently.
    caplog.clear()
    again = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", study_name="s", seed=0, load_if_exists=True)
    optimize(again, DistillationObjective(task, proxy=PROXY), total_trials=5)
    assert [record for record in caplog.records if record.name == "optuna_kd.objective"] == []
    assert space_of(again) == AutoKDSpace(dead=tuple(DEAD_2X2))


def test_a_warm_start_is_cut_to_the_maps_too(make_task: Make) -> None:
    task = make_task(teacher=small_maps(2), student=lambda: small_maps(2))
    recipes = ["local>channel|gl2*5 + kl@4*1", "local>channel|kl*5 + kl@4*1"]
    study = create_study(storage=None, seed=0, warm_start=list(map(Recipe.from_string, recipes)), task=task)
    optimize(study, DistillationObjective(task, proxy=PROXY), total_trials=2)
    first, second = study.trials
    assert (first.user_attrs[RECIPE], "left_out" in first.user_attrs[WARM_START]) == (recipes[0], False)
    assert (second.user_attrs[RECIPE] != recipes[1], "left_out" in second.user_attrs[WARM_START]) == (True, True)
    assert TaskFacts.from_dict(study.user_attrs[FACTS]) == task.facts()


def test_nothing_is_dead_on_4x4_maps(task: ImageClassification) -> None:
    assert dead_cells(task) == []


def test_knowledge_can_be_given(task: ImageClassification, make_task: Make, make_teacher: Any, tmp_path: Path) -> None:
    knowledge = store_knowledge(task)
    assert DistillationObjective(task, knowledge=knowledge).knowledge is knowledge
    knowledge.save(tmp_path / "knowledge.pt")
    for path in (tmp_path / "knowledge.pt", str(tmp_path / "knowledge.pt")):
        assert DistillationObjective(task, knowledge=path).knowledge is not None
    other = make_task(teacher=make_teacher(1))
    for given in (knowledge, tmp_path / "knowledge.pt"):
        with pytest.raises(KnowledgeMismatchError, match="teacher: stored"):
            DistillationObjective(other, knowledge=given)


def test_knowledge_is_stored_once(task: ImageClassification, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(given: ImageClassification, images: Any) -> Any:
        calls.append(given)
        return store_knowledge(given)

    monkeypatch.setattr(objective_module, "store_affordable", counted)
    objective = DistillationObjective(task, proxy=PROXY)
    assert calls == []
    create_study(storage=None, seed=0).optimize(objective, n_trials=2)
    assert calls == [task]


def test_wrong_arguments(task: ImageClassification) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown reward 'bounds'. Did you mean 'bounded'"):
        DistillationObjective(task, reward="bounds")
    foreign = optuna.create_study()
    with pytest.raises(StudyMismatchError, match=r"not made by optuna_kd\.create_study"):
        foreign.optimize(DistillationObjective(task), n_trials=1)
    with pytest.raises(StudyMismatchError):
        foreign.optimize(FunctionObjective(lambda recipe, *, seed, report: 0.0), n_trials=1)


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (0.25, 0.25),
        (1, 1.0),
        (Metrics(0.9, 0.3, 0.8, 0.2, 10), 1 - 0.5 / 3.302585092994046),
        ({"reward": 0.5, "accuracy": 0.9, "note": "fine"}, 0.5),
    ],
)
def test_a_function_of_ones_own_returns_what_it_likes(returned: Any, value: float) -> None:
    seen: list[Recipe] = []

    def train(recipe: Recipe, *, seed: int, report: Callable[..., None]) -> Any:
        seen.append(recipe)
        report(1, 0.1, gap=0.7)
        return returned

    study = create_study(storage=None, seed=0)
    study.optimize(FunctionObjective(train), n_trials=1)
    (trial,) = study.trials
    assert trial.value == pytest.approx(value)
    assert trial.user_attrs[RECIPE] == str(seen[0]) == str(recipe_of(study, trial))
    assert trial.user_attrs[GAPS] == {"1": 0.7}
    assert trial.intermediate_values == {1: 0.1}
    assert trial.user_attrs["seconds"] >= 0
    if isinstance(returned, dict):
        assert (trial.user_attrs["accuracy"], trial.user_attrs["note"]) == (0.9, "fine")


def test_a_mapping_without_reward_is_refused() -> None:
    study = create_study(storage=None, seed=0)
    with pytest.raises(ValueError, match=r"returned no 'reward'; its keys are \['accuracy', 'loss'\]"):
        study.optimize(FunctionObjective(lambda recipe, *, seed, report: {"loss": 1, "accuracy": 0.5}), n_trials=1)


def test_report_prunes_and_rejection_is_stored() -> None:
    def train(recipe: Recipe, *, seed: int, report: Callable[..., None]) -> float:
        number = len(numbers)
        numbers.append(seed)
        if number == 7:
            raise LossRejected("non-finite loss: logits is nan")
        report(1, -float(number))
        return -float(number)

    numbers: list[int] = []
    study = create_study(storage=None, seed=0)
    study.optimize(FunctionObjective(train), n_trials=8)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 5  # CKAPruner warms up over four
    assert [REJECT_REASON in trial.user_attrs for trial in study.trials] == [False] * 7 + [True]
    assert study.trials[7].user_attrs[REJECT_REASON] == "non-finite loss: logits is nan"


def test_seeds_come_from_study_and_trial_and_a_retry_keeps_its_own(tmp_path: Path) -> None:
    seeds: list[int] = []

    def train(recipe: Recipe, *, seed: int, report: Callable[..., None]) -> float:
        seeds.append(seed)
        return 0.5

    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=9)
    study.optimize(FunctionObjective(train), n_trials=2)
    with pytest.warns(UserWarning, match="Heartbeat"):
        interrupted = study.ask()
    space_of(study).suggest(interrupted)
    retire_trial(study, study.trials[2])
    study.optimize(FunctionObjective(train), n_trials=2)
    assert seeds == [derive_seed(9, "trial", number) for number in (0, 1, 2, 4)]
    assert study.trials[3].params == study.trials[2].params
