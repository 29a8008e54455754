"""Studies: plain Optuna studies with the parts of a method, that go on where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_kd.pruners import CKAPruner
from optuna_kd.recipe import Recipe
from optuna_kd.registry import UnknownNameError
from optuna_kd.samplers import MCTSSampler
from optuna_kd.search_space import AutoKDSpace, DeadCell, NaiveSpace
from optuna_kd.study import (
    SAMPLER,
    SETTINGS,
    StudyMismatchError,
    best_recipe,
    count_finished,
    create_study,
    freeze_space,
    load_study,
    optimize,
    recipe_of,
    record_confirmed,
    settings_of,
    space_of,
    top_recipes,
)

pytestmark = [
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),  # asked for without Study.optimize
]

DEAD = DeadCell("local", "channel", "kl")


def worth(recipe: Recipe) -> float:
    """A landscape without chance in which some operations are better than others."""
    text = str(recipe)
    return 0.1 * ("channel" in text) + 0.2 * ("|gl2" in text) + 0.05 * ("pearson" in text) + len(text) / 1000


def objective(trial: optuna.Trial) -> float:
    value = worth(space_of(trial.study).suggest(trial))
    for step in (1, 2):
        trial.report(value * step / 2, step)
        if step < 2 and trial.should_prune():
            raise optuna.TrialPruned
    return value


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kd.db'}"


def enqueue(study: optuna.Study, *values: tuple[str, float | None]) -> None:
    """Run recipes with given values; None prunes."""
    for text, value in values:
        study.enqueue_trial(space_of(study).params(Recipe.from_string(text)))
        trial = study.ask()
        space_of(study).suggest(trial)
        study.tell(trial, value, state=TrialState.PRUNED if value is None else None)


def test_defaults_are_those_of_auto_kd() -> None:
    study = create_study(storage=None)
    assert type(study) is optuna.Study
    assert isinstance(study.sampler, MCTSSampler)
    assert isinstance(study.pruner, CKAPruner)
    assert study.direction == StudyDirection.MAXIMIZE
    assert space_of(study) == AutoKDSpace()


@pytest.mark.parametrize(
    ("given", "kept"), [(None, "mcts"), ("tpe", "tpe"), (optuna.samplers.RandomSampler(), "RandomSampler")]
)
def test_a_study_remembers_what_sampler_it_was_begun_with(url: str, given: Any, kept: str) -> None:
    for sampler in (given, "random"):
        study = create_study(storage=url, study_name="kd", sampler=sampler, load_if_exists=True)
        assert study.user_attrs[SAMPLER] == kept


def test_the_default_storage_is_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_study(study_name="mine")
    assert (tmp_path / "optuna_kd.db").is_file()
    assert load_study("mine").study_name == "mine"


def test_every_part_is_replaceable() -> None:
    sampler, pruner, space = TPESampler(seed=1), optuna.pruners.NopPruner(), AutoKDSpace(temperatures=(1, 4, 8, 16))
    study = create_study(storage=None, sampler=sampler, pruner=pruner, space=space)
    assert (study.sampler, study.pruner) == (sampler, pruner)
    assert space_of(study) == space


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mcts", MCTSSampler), ("random", RandomSampler), ("tpe", TPESampler), ("nsga2", NSGAIISampler)],
)
def test_samplers_by_name_take_the_seed_of_the_study(name: str, kind: type) -> None:
    def params(seed: int) -> list[dict[str, Any]]:
        study = create_study(storage=None, sampler=name, seed=seed)
        assert isinstance(study.sampler, kind) or str(study.sampler).startswith(kind.__name__)
        study.optimize(objective, n_trials=5)
        return [trial.params for trial in study.trials]

    assert params(2**40 + 1) == params(2**40 + 1)
    assert params(1) != params(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "auto-kf"}, "Unknown method 'auto-kf'. Did you mean 'auto-kd'"),
        ({"space": "naiv"}, "Unknown search space 'naiv'. Did you mean 'naive'"),
        ({"sampler": "mtcs"}, "Unknown sampler 'mtcs'. Did you mean 'mcts'"),
    ],
)
def test_unknown_names_leave_nothing_half_written(
    tmp_path: Path, url: str, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(UnknownNameError, match=message):
        create_study(storage=url, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_seed_space_and_method_are_stored(url: str) -> None:
    create_study(storage=url, study_name="s", seed=7, space="naive")
    assert settings_of(load_study("s", storage=url)) == {
        "method": "auto-kd",
        "space": {"name": "naive", "dead": []},
        "seed": 7,
    }


def test_a_seed_that_was_not_given_is_drawn_and_stored() -> None:
    seeds = {settings_of(create_study(storage=None))["seed"] for _ in range(8)}
    assert len(seeds) == 8
    assert all(isinstance(seed, int) and seed >= 0 for seed in seeds)


def test_an_existing_study_is_not_overwritten(url: str) -> None:
    create_study(storage=url, study_name="s", seed=0)
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        create_study(storage=url, study_name="s", seed=0)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"seed": 2}, "seed is 1, asked for 2"),
        (
            {"space": "naive"},
            'space is {"dead": [], "name": "auto-kd", "temperatures": [1, 2, 4, 8]}, '
            'asked for {"dead": [], "name": "naive"}',
        ),
        (
            {"space": AutoKDSpace(temperatures=(1, 4, 8, 16))},
            '[1, 2, 4, 8]}, asked for {"dead": [], "name": "auto-kd", "temperatures": [1, 4, 8, 16]}',
        ),
    ],
)
def test_a_study_with_other_settings_is_refused_with_both_values(
    url: str, arguments: dict[str, Any], values: str
) -> None:
    create_study(storage=url, study_name="s", seed=1)
    with pytest.raises(StudyMismatchError) as caught:
        create_study(storage=url, study_name="s", load_if_exists=True, **arguments)
    assert values in str(caught.value)
    assert "study 's'" in str(caught.value)
    assert settings_of(load_study("s", storage=url))["seed"] == 1


def test_another_method_is_refused_with_both_names(url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=1)
    study.set_user_attr(SETTINGS, {**settings_of(study), "method": "uniads"})
    with pytest.raises(StudyMismatchError, match="method is uniads, asked for auto-kd"):
        create_study(storage=url, study_name="s", load_if_exists=True)


def test_the_same_settings_or_none_go_on(url: str) -> None:
    first = create_study(storage=url, study_name="s", seed=1)
    # Dead cells are found when a study meets its task; they are not another space.
    freeze_space(first, space_of(first).without([DEAD]))
    for arguments in ({}, {"seed": 1}, {"space": "auto-kd"}, {"seed": 1, "space": AutoKDSpace()}):
        study = create_study(storage=url, study_name="s", load_if_exists=True, **arguments)
        assert space_of(study) == AutoKDSpace(dead=(DEAD,))
        assert settings_of(study)["seed"] == 1


def test_studies_of_others_are_refused(url: str) -> None:
    foreign = optuna.create_study(storage=url, study_name="foreign", direction="maximize")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyMismatchError, match="'foreign' was not made by optuna_kd: it has trials"):
        create_study(storage=url, study_name="foreign", load_if_exists=True)
    for read in (settings_of, space_of, best_recipe):
        with pytest.raises(StudyMismatchError, match=r"'foreign' was not made by optuna_kd.create_study"):
            read(foreign)
    with pytest.raises(StudyMismatchError, match="foreign"):
        load_study("foreign", storage=url)
    assert SETTINGS not in foreign.user_attrs


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "minimize"]])
def test_empty_studies_of_another_direction_are_refused(url: str, directions: list[str]) -> None:
    optuna.create_study(storage=url, study_name="foreign", directions=directions)
    with pytest.raises(StudyMismatchError, match="or another direction"):
        create_study(storage=url, study_name="foreign", load_if_exists=True)


def test_an_empty_study_of_the_same_direction_is_adopted(url: str) -> None:
    # Made by Optuna's command line, say.
    optuna.create_study(storage=url, study_name="empty", direction="maximize")
    assert space_of(create_study(storage=url, study_name="empty", load_if_exists=True)) == AutoKDSpace()


def test_load_study_brings_the_parts(url: str) -> None:
    create_study(storage=url, study_name="s", seed=5)
    study = load_study("s", storage=url)
    assert isinstance(study.sampler, MCTSSampler)
    assert isinstance(study.pruner, CKAPruner)
    pruner = optuna.pruners.NopPruner()
    assert "RandomSampler" in str(load_study("s", storage=url, sampler="random").sampler)
    assert load_study("s", storage=url, pruner=pruner).pruner is pruner
    with pytest.raises(KeyError):
        load_study("nobody", storage=url)


def test_optimize_counts_in_total_pruned_ones_included(url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=0, sampler="uct")
    optimize(study, objective, total_trials=12)
    assert len(study.trials) == count_finished(study) == 12
    assert len(study.get_trials(states=(TrialState.PRUNED,))) > 0
    optimize(load_study("s", storage=url), objective, total_trials=12)
    assert len(study.trials) == 12
    optimize(load_study("s", storage=url), objective, total_trials=15)
    assert len(study.trials) == 15
    optimize(study, objective, total_trials=3)
    optimize(study, objective, total_trials=0)
    assert len(study.trials) == 15
    study.optimize(objective, n_trials=2)  # Optuna's own meaning is kept
    assert len(study.trials) == 17


def test_optimize_does_not_count_failed_and_running_trials() -> None:
    study = create_study(storage=None, seed=0)
    study.ask()  # its process was killed
    failing = iter([True, False, True, True, False, False])

    def flaky(trial: optuna.Trial) -> float:
        if next(failing):
            raise ConnectionError
        return objective(trial)

    optimize(study, flaky, total_trials=3, catch=ConnectionError)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.FAIL) == 3
    assert count_finished(study) == 3
    assert len(states) == 7


def test_optimize_ends_when_all_trials_fail() -> None:
    def broken(trial: optuna.Trial) -> float:
        raise ConnectionError

    study = create_study(storage=None, seed=0)
    with pytest.raises(RuntimeError, match="10 trials in a row failed, the last is number 9"):
        optimize(study, broken, total_trials=3, catch=ConnectionError)
    with pytest.raises(ConnectionError):
        optimize(study, broken, total_trials=3)


def test_optimize_honours_a_stop_and_a_timeout() -> None:
    study = create_study(storage=None, seed=0)

    def stopping(trial: optuna.Trial) -> float:
        trial.study.stop()
        return objective(trial)

    optimize(study, stopping, total_trials=100)
    assert len(study.trials) == 1
    optimize(study, objective, total_trials=100, timeout=0)
    assert len(study.trials) == 1

    def slow(trial: optuna.Trial) -> float:
        threading.Event().wait(0.05)
        return objective(trial)

    optimize(study, slow, total_trials=1000, timeout=0.2)
    assert 2 <= len(study.trials) <= 8


def history(study: optuna.Study) -> list[tuple[dict[str, Any], TrialState, float | None]]:
    return [(trial.params, trial.state, trial.value) for trial in study.trials]


def test_25_and_25_trials_are_50(url: str) -> None:
    whole = create_study(storage=None, seed=11)
    optimize(whole, objective, total_trials=50)

    create_study(storage=url, study_name="s", seed=11)
    optimize(load_study("s", storage=url), objective, total_trials=25)
    optimize(create_study(storage=url, study_name="s", load_if_exists=True), objective, total_trials=50)
    assert history(load_study("s", storage=url)) == history(whole)
    assert {trial.state for trial in whole.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_the_preset_finds_good_recipes() -> None:
    study = create_study(storage=None, seed=0)
    optimize(study, objective, total_trials=60)
    found = str(best_recipe(study))
    assert "|gl2" in found
    assert "channel" in found


def test_best_recipe_is_the_best_mean() -> None:
    study = create_study(storage=None, seed=0)
    lucky, steady = "none|l2*5 + kl@4*1", "mask|l2*5 + kl@4*1"
    enqueue(study, (lucky, 0.9), (lucky, 0.1), (steady, 0.6), (steady, 0.6), ("none|kl*5 + kl@4*1", 0.2))
    assert str(best_recipe(study)) == steady
    assert [str(recipe) for recipe in top_recipes(study, 5)] == [steady, lucky, "none|kl*5 + kl@4*1"]
    assert str(study.best_trial.params["global_transform"]) == "none"  # Optuna's own best is the lucky one
    assert str(recipe_of(study, study.trials[2])) == steady


def test_equivalent_recipes_are_repeats_of_one() -> None:
    study = create_study(storage=None, seed=0)
    enqueue(study, ("local|l2*5 + kl@4*1", 0.9), ("none|l2*5 + kl@4*1", 0.3), ("none|gl2*5 + kl@4*1", 0.7))
    assert [str(recipe) for recipe in top_recipes(study, 2)] == ["none|gl2*5 + kl@4*1", "none|l2*5 + kl@4*1"]


def test_pruned_trials_have_no_say() -> None:
    study = create_study(storage=None, seed=0)
    enqueue(study, ("mask|l2*5 + kl@4*1", None))
    with pytest.raises(ValueError, match="no complete trial yet; run some first"):
        best_recipe(study)
    enqueue(study, ("none|l2*5 + kl@4*1", 0.1))
    assert str(best_recipe(study)) == "none|l2*5 + kl@4*1"


def test_the_confirmed_recipe_wins(url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=0)
    enqueue(study, ("none|l2*5 + kl@4*1", 0.9), ("mask|l2*5 + kl@4*1", 0.8))
    confirmed = Recipe.from_string("mask|l2*5 + kl@4*1")
    record_confirmed(study, confirmed)
    assert best_recipe(load_study("s", storage=url)) == confirmed
    assert str(top_recipes(study, 1)[0]) == "none|l2*5 + kl@4*1"


def test_a_confirmation_ends_with_the_next_trial(url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=0)
    enqueue(study, ("none|l2*5 + kl@4*1", 0.9), ("mask|l2*5 + kl@4*1", 0.8))
    record_confirmed(study, Recipe.from_string("mask|l2*5 + kl@4*1"))
    enqueue(study, ("channel|kl*5 + kl@4*1", 0.95))
    assert str(best_recipe(study)) == "channel|kl*5 + kl@4*1"


def test_optimize_refuses_another_task_before_a_trial(url: str) -> None:
    class Bound:
        def bind(self, study: optuna.Study) -> None:
            raise StudyMismatchError("another task")

        def __call__(self, trial: optuna.Trial) -> float:
            return 0.0

    study = create_study(storage=url, study_name="s", seed=0)
    with pytest.raises(StudyMismatchError, match="another task"):
        optimize(study, Bound(), total_trials=1)
    assert study.trials == []


def test_the_naive_space_is_read_back(url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=0, space=NaiveSpace(), sampler="random")
    study.optimize(lambda trial: float(len(str(space_of(study).suggest(trial)))), n_trials=5)
    assert best_recipe(study) in {space_of(study).recipe(trial.params) for trial in study.trials}


def test_a_study_opens_without_this_package(tmp_path: Path, url: str) -> None:
    study = create_study(storage=url, study_name="s", seed=0)
    optimize(study, objective, total_trials=6)
    code = (
        "import sys, json; sys.modules['optuna_kd'] = None\n"
        "import optuna\n"
        f"study = optuna.load_study(study_name='s', storage={url!r})\n"
        "study.trials_dataframe() if 'pandas' in sys.modules else None\n"
        "print(json.dumps([len(study.trials), study.best_value, study.user_attrs['optuna_kd']['seed'],\n"
        "                  sorted(study.best_params)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [6, study.best_value, 0, sorted(AutoKDSpace().factors())]
