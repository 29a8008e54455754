"""Warm starts: what a study begins with, where that is from, and that it begins with it once."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from made_cards import FACTS, LINE, facts, make_card
from optuna.trial import TrialState

from optuna_kd.cards import CardError, save_card
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import OpConfig, Options, Recipe, StudentConfig, canonical
from optuna_kd.search_space import DeadCell, ExtendedSpace, StudentSpace, UniADSSpace, create_space
from optuna_kd.storages import StorageError
from optuna_kd.study import (
    StudyMismatchError,
    WarmStartError,
    create_study,
    freeze_space,
    optimize,
    queue,
    read_sources,
    refit_queue,
    space_of,
)
from optuna_kd.study.settings import FACTS as FACTS_KEY
from optuna_kd.study.settings import SETTINGS
from optuna_kd.study.warm_start import PLAN, WARM_START

pytestmark = [
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),
]

OTHER = "none|l2*5 + kl@4*1"  # the card's runner-up


class Somewhere:
    """A task, as far as a warm start is concerned."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def facts(self) -> Any:
        return facts(**self.changes)


def worth(trial: optuna.Trial) -> float:
    return len(str(space_of(trial.study).suggest(trial))) / 100


def waiting(study: optuna.Study) -> list[str]:
    """Give the recipes that wait, in their order."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [str(space_of(study).recipe(trial.system_attrs["fixed_params"])) for trial in trials]


def lines(*recipes: str) -> list[Recipe]:
    return [Recipe.from_string(recipe) for recipe in recipes]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kd.db'}"


def test_a_study_begins_with_a_card_and_its_runners_up() -> None:
    study = create_study(storage=None, seed=0, warm_start=make_card())
    assert waiting(study) == [LINE, OTHER]
    optimize(study, worth, total_trials=4)
    assert [str(space_of(study).recipe(trial.params)) for trial in study.trials[:2]] == [LINE, OTHER]
    assert len(study.trials) == 4  # the total stays the total
    origin = {"from": "auto-kd-digits-1", "distance": None}
    assert study.trials[0].user_attrs[WARM_START] == {**origin, "place": 0}
    assert study.trials[1].user_attrs[WARM_START] == {**origin, "place": 1}
    assert WARM_START not in study.trials[2].user_attrs


def test_the_first_trials_are_like_others() -> None:
    plain, warm = create_study(storage=None, seed=0), create_study(storage=None, seed=0, warm_start=make_card())
    for text in (LINE, OTHER):
        plain.enqueue_trial(space_of(plain).params(Recipe.from_string(text)))
    for study in (plain, warm):
        optimize(study, worth, total_trials=8)
    assert [trial.params for trial in warm.trials] == [trial.params for trial in plain.trials]


def test_five_recipes_of_the_nearest_tasks_no_two_alike() -> None:
    far = make_card("none|gl2*1 + kl@1*1", task=facts(data_classes=1000), study="far", runners_up=())
    near = make_card(
        "none|kl*1 + kl@1*1", task=facts(student_parameters=2000), study="near",
        runners_up=lines("mask|kl*1 + kl@1*1", "none|kl*5 + kl@1*1", "none|kl*25 + kl@1*1"),
    )  # fmt: skip
    twin = make_card("local|kl*1 + kl@1*1", task=FACTS, study="same", runners_up=())
    assert canonical(twin.recipe) == near.recipe
    study = create_study(storage=None, seed=0, warm_start=[far, near, twin, make_card()], task=Somewhere())  # type: ignore[arg-type]
    found = waiting(study)
    assert found == [
        "local|kl*1 + kl@1*1", LINE, OTHER, "mask|kl*1 + kl@1*1", "none|kl*5 + kl@1*1",
    ]  # fmt: skip
    origins = [trial.user_attrs[WARM_START] for trial in study.trials]
    assert [origin["from"] for origin in origins] == ["same", "auto-kd-digits-1", "auto-kd-digits-1", "near", "near"]
    assert origins[0]["distance"] == 0
    assert origins[3]["distance"] == pytest.approx(0.266, abs=1e-3)  # log2(2000 / 1384) / 2


def test_without_a_task_the_order_given_counts_and_the_best_of_each_comes_first() -> None:
    other = make_card("none|kl*1 + kl@1*1", runners_up=lines("mask|kl*1 + kl@1*1"))
    study = create_study(storage=None, seed=0, warm_start=[make_card(), other])
    assert waiting(study) == [LINE, "none|kl*1 + kl@1*1", OTHER, "mask|kl*1 + kl@1*1"]


def test_of_what_nothing_is_known_comes_last() -> None:
    sources = [*lines("none|kl*1 + kl@1*1"), make_card(task=facts(data_classes=1000))]
    study = create_study(storage=None, seed=0, warm_start=sources, task=Somewhere())
    assert waiting(study) == [LINE, OTHER, "none|kl*1 + kl@1*1"]
    assert study.trials[2].user_attrs[WARM_START] == {"from": "a recipe", "distance": None, "place": 2}


def test_recipes_that_are_not_in_the_space_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    card = make_card("none|kl*3 + kl@4*1", runners_up=lines(OTHER, "labels", "kl@4*1"))
    with caplog.at_level(logging.INFO):
        study = create_study(storage=None, seed=0, warm_start=card)
    assert waiting(study) == [OTHER]
    assert "not in the space 'auto-kd', so left out: none|kl*3 + kl@4*1; labels and 1 more" in caplog.text


def test_that_nothing_could_be_queued_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        study = create_study(storage=None, seed=0, warm_start=make_card("none|kl*3 + kl@4*1", runners_up=()))
    assert waiting(study) == []
    assert {record.levelname for record in caplog.records if "Warm start" in record.message} == {"WARNING"}


def test_a_space_takes_what_it_searches_of_a_recipe() -> None:
    recipe = Recipe.from_string(LINE)
    given = Recipe(recipe.distiller, StudentConfig("resnet8"))
    assert create_space("auto-kd").adopt(given) == recipe
    study = create_study(storage=None, seed=0, warm_start=given)
    assert waiting(study) == [LINE]


def test_a_joint_space_takes_students_of_its_family_with_its_own_fixed_options() -> None:
    published = RECIPES["uniads-resnet56"]
    assert published.student is not None
    space = UniADSSpace(student=StudentSpace("resnet", fixed={"base_width": 0.25}))
    study = create_study("uniads", storage=None, seed=0, space=space, warm_start=["uniads-resnet56", *RECIPES.values()])
    trials = study.get_trials(states=(TrialState.WAITING,))
    found = [space.recipe(trial.system_attrs["fixed_params"]).student for trial in trials]
    assert found[0] == StudentConfig("resnet", Options({**published.student.options, "base_width": 0.25}))
    assert {student.name for student in found if student} == {"resnet"}  # no wide ResNet
    assert trials[0].user_attrs[WARM_START]["from"] == "uniads-resnet56"


def test_a_study_begins_once(url: str) -> None:
    def study(**arguments: Any) -> optuna.Study:
        return create_study(storage=url, study_name="mine", seed=0, load_if_exists=True, **arguments)

    assert waiting(study(warm_start=make_card())) == [LINE, OTHER]
    assert waiting(study(warm_start=make_card())) == [LINE, OTHER]
    assert waiting(study(warm_start=lines("none|kl*1 + kl@1*1"))) == [LINE, OTHER]
    optimize(study(), worth, total_trials=1)
    again = study(warm_start="gone.json")  # what was begun with may be gone
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "WAITING"]


def test_a_study_with_trials_is_not_begun_again(url: str) -> None:
    first = create_study(storage=url, study_name="mine", seed=0)
    optimize(first, worth, total_trials=1)
    again = create_study(storage=url, study_name="mine", load_if_exists=True, warm_start=make_card())
    assert waiting(again) == []
    assert PLAN not in again.user_attrs


def test_what_a_killed_process_did_not_queue_is_queued_later(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue, calls = optuna.Study.enqueue_trial, []

    def killed(self: optuna.Study, *arguments: Any, **options: Any) -> None:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(enqueue(self, *arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            create_study(storage=url, study_name="mine", seed=0, warm_start=make_card())
    study = create_study(storage=url, study_name="mine", load_if_exists=True)
    assert waiting(study) == [LINE, OTHER]


def test_a_space_that_is_cut_to_its_task_names_its_parameters_anew() -> None:
    card = make_card("local>channel|l2*5 + kl@4*1", runners_up=lines("local>channel|kl*5 + kl@4*1"))
    study = create_study(storage=None, seed=0, warm_start=card)
    space = space_of(study).without([DeadCell("local", "channel", "kl")])
    freeze_space(study, space)
    refit_queue(study, space)
    optimize(study, worth, total_trials=2)
    assert str(space.recipe(study.trials[0].params)) == "local>channel|l2*5 + kl@4*1"
    left_out = study.trials[1]
    assert left_out.user_attrs[WARM_START]["left_out"] == "it cannot teach on the maps of this task"
    assert left_out.state == TrialState.COMPLETE  # its place is the sampler's


# Where recipes come from


def test_from_folders_files_and_names(tmp_path: Path, url: str) -> None:
    runs = tmp_path / "runs"
    for name in ("one", "two"):
        (runs / name).mkdir(parents=True)
        save_card(make_card(study=name, runners_up=()), runs / name)
    (runs / "half" / "students").mkdir(parents=True)
    (tmp_path / "alone").mkdir()
    Recipe.from_string(OTHER).save(tmp_path / "alone" / "recipe.json")

    def origins(source: Any) -> list[str]:
        return [candidate.origin for candidate in read_sources(source, runs=runs)[0]]

    assert origins("auto") == origins(runs) == ["one", "two"]
    assert origins("one") == origins(runs / "one") == origins(str(runs / "one" / "card.json")) == ["one"]
    assert origins(tmp_path / "alone" / "recipe.json") == ["recipe.json"]
    assert origins(tmp_path / "alone") == ["alone"]
    assert origins(["two", "one"]) == ["two", "one"]
    assert origins("uniads-resnet56") == ["uniads-resnet56"]
    notes = read_sources("auto", runs=runs)[1]
    assert len(notes) == 1
    assert "half: no card, because it is not finished" in notes[0]
    assert read_sources("auto", runs=tmp_path / "nothing") == ([], [])


def test_from_studies_and_storages(url: str) -> None:
    earlier = create_study(storage=url, study_name="earlier", seed=0)
    optimize(earlier, worth, total_trials=6)
    earlier.set_user_attr(FACTS_KEY, FACTS.to_dict())
    create_study(storage=url, study_name="empty", seed=0)
    optuna.create_study(storage=url, study_name="foreign")
    found, notes = read_sources(url)
    assert [(candidate.origin, candidate.facts, candidate.rank) for candidate in found] == [
        ("earlier", FACTS, rank) for rank in range(len(found))
    ]
    assert len(found) == len({canonical(candidate.recipe) for candidate in found}) > 3
    assert notes == ["foreign: not made by optuna_kd"]
    assert read_sources(earlier)[0] == found
    if url.startswith("sqlite:"):
        assert read_sources(url.removeprefix("sqlite:///"))[0] == found
    assert read_sources("earlier", storage=earlier._storage)[0] == found
    new = create_study(storage=None, seed=1, warm_start=earlier, task=Somewhere(student_parameters=4 * 1384))
    assert waiting(new) == [str(candidate.recipe) for candidate in found[:5]]
    assert {trial.user_attrs[WARM_START]["distance"] for trial in new.trials} == {1.0}


def test_a_damaged_study_of_a_storage_is_left_out_and_said(url: str) -> None:
    for name in ("good", "odd"):
        optimize(create_study(storage=url, study_name=name, seed=0), worth, total_trials=1)
    odd = optuna.load_study(study_name="odd", storage=url)
    odd.set_user_attr(SETTINGS, {"method": "auto-kd", "seed": 0, "space": {"name": "later"}})
    found, notes = read_sources(url)
    assert {candidate.origin for candidate in found} == {"good"}
    assert len(notes) == 1
    assert notes[0].startswith("odd: it cannot be read: Unknown search space 'later'")


def test_a_study_that_a_search_has_finished_hands_on_its_card() -> None:
    study = create_study(storage=None, study_name="s", seed=0)
    study.set_user_attr("optuna_kd_card", make_card().to_dict())
    assert [str(candidate.recipe) for candidate in read_sources(study)[0]] == [LINE, OTHER]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere", WarmStartError, "nothing to begin with called 'nowhere': no file or folder.*Published: uniads"),
        ("sqlite:///nowhere.db", StorageError, "Cannot read the storage sqlite:///nowhere.db: there is no file"),
        ("empty", WarmStartError, "There is no recipe to begin with in empty"),
        ("half", WarmStartError, "no recipe to begin with in half: .*it is not finished"),
        ("bad.json", CardError, "bad.json: This is not JSON"),
        ("other.json", CardError, 'other.json: This is not a recipe: it needs "format"'),
    ],
)
def test_nothing_to_begin_with_is_an_error_before_the_study_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("half/one/checkpoints").mkdir(parents=True)
    Path("bad.json").write_text("{")
    Path("other.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(error, match=message):
        create_study(study_name="mine", warm_start=source)
    assert optuna.get_all_study_names("sqlite:///optuna_kd.db") == []


@pytest.mark.parametrize("source", [5, [5], {"recipe": "labels"}])
def test_other_things_are_no_source(source: Any) -> None:
    with pytest.raises(TypeError, match=r"A warm start takes a card, a recipe, a study, a path, .*; got "):
        create_study(storage=None, warm_start=source)


def test_a_study_of_somebody_else_is_refused() -> None:
    with pytest.raises(StudyMismatchError, match="was not made by optuna_kd"):
        create_study(storage=None, warm_start=optuna.create_study(study_name="foreign"))


def test_what_is_queued_is_said() -> None:
    study = create_study(storage=None, seed=0)
    found, _ = read_sources([make_card(), *lines("labels")])
    assert queue(study, found, FACTS, space_of(study)) == [
        "2 recipes from auto-kd-digits-1, at distance 0",
        "not in the space 'auto-kd', so left out: labels",
    ]
    nothing = create_study(storage=None, seed=0)
    assert queue(nothing, [], None, space_of(nothing)) == ["no recipe to begin with"]
    assert waiting(nothing) == []


def test_recipes_of_the_extended_space_stay_in_it() -> None:
    space = ExtendedSpace()
    recipe = space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(0)).ask())
    assert OpConfig("none") not in recipe.distiller.terms[0].transforms
    study = create_study(storage=None, seed=0, space=space, warm_start=recipe)
    assert waiting(study) == [str(recipe)]
