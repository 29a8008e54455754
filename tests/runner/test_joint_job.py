"""A search for student and recipe: a small one, run again, with limits, and with students of one's own."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

import optuna_kd
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import count_parameters, create_student
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.recipe import Options, ProxyConfig, Recipe, StudentConfig
from optuna_kd.runner.controls import control_recipes
from optuna_kd.runner.jobs import WorkerSpec, run_full, run_proxy
from optuna_kd.runner.joint_job import knee_sentence
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.result import LABELS, PLAIN, SEARCHED, TUNED, FrontRow, SearchResult
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.storages import create_storage
from optuna_kd.study import StudyMismatchError, best_recipe, create_study, front, recipe_of
from optuna_kd.training import ImageClassification
from optuna_kd.training.trainer import StudentTraining

Task = ImageClassification
FAMILY = StudentSpace(
    "resnet", {"depth_1": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "depth_3": 1, "base_width": 0.25}
)
# Plain KD for every student: they all learn, so that small searches have a front. Few temperatures: few controls.
SPACE = UniADSSpace(student=FAMILY, distiller=False, temperatures=(4,))
CONTROLS = 1 + 4  # labels only, and four weights at one temperature
SMALL: dict[str, Any] = {
    "method": "uniads",
    "space": SPACE,
    "trials": 5,
    "epochs": 1,
    "seeds": 2,
    "confirm": (2, 1),
    "proxy": ProxyConfig(epochs=2, rungs=(2,), subset=0.5),
    "study_name": "small",
    "progress": False,
}

build = functools.partial(create_student, num_classes=10, in_channels=1, input_size=8)


def student(**options: Any) -> StudentConfig:
    return StudentConfig("resnet", Options({**FAMILY.fixed, "depth_1": 1, "width": 1.0, **options}))


class Notes(SilentReporter):
    """Remembers what was said and how many pieces of work were done."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: dict[str, tuple[int, int]] = {}
        self.done = 0

    def note(self, text: str) -> None:
        self.lines.append(text)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.phases[name] = (total, done)

    def advance(self, text: str = "", *, left: float | None = None) -> None:
        self.done += 1


@pytest.fixture(scope="session")
def make_open(make_task: Callable[..., Task], make_teacher: Callable[[int], Any]) -> Callable[..., Task]:
    """Give tasks whose student is to be chosen, with a teacher that knows its digits."""
    apprentice = make_task(student=lambda: make_teacher(0))
    training = StudentTraining(apprentice, Recipe(), ProxyConfig(epochs=12, rungs=(12,)), seed=0)
    for _ in training.train():
        pass
    training.observer.close()
    common = {"student": build, "batch_size": 16, "optimizer": "adamw", "lr": 0.01}
    return lambda **changes: make_task(**{**common, "teacher": training.student, **changes})


@pytest.fixture(scope="session")
def open_task(make_open: Callable[..., Task]) -> Task:
    return make_open()


@dataclasses.dataclass
class Place:
    """A storage and a folder, and searches that use them."""

    task: Task
    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'kd.db'}"

    def search(self, task: Task | None = None, **changes: Any) -> SearchResult:
        arguments = {"storage": self.url, "directory": self.folder / "runs", **SMALL, **changes}
        return optuna_kd.search(task or self.task, **arguments)

    def study(self, name: str = "small") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=create_storage(self.url))

    def counts(self) -> dict[str, int]:
        return {
            summary.study_name: len(self.study(summary.study_name).trials)
            for summary in optuna.get_all_study_summaries(self.url)
        }


@pytest.fixture(scope="session")
def finished(open_task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, SearchResult, Notes]:
    """One search, run once for all tests that only look at it."""
    notes, place = Notes(), Place(open_task, tmp_path_factory.mktemp("joint"))
    return place, place.search(progress=notes), notes


@pytest.fixture
def place(finished: tuple[Place, SearchResult, Notes], tmp_path: Path) -> Place:
    """A copy of the finished search, to go on from."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Place(finished[0].task, tmp_path / "copy")


@pytest.fixture
def empty(open_task: Task, tmp_path: Path) -> Place:
    return Place(open_task, tmp_path)


def test_a_search_ends_with_a_front_and_a_table_for_its_knee(finished: tuple[Place, SearchResult, Notes]) -> None:
    place, result, notes = finished
    study = place.study()
    trials = front(study)
    assert sorted(row.trial for row in result.front) == sorted(trial.number for trial in trials)
    assert len(result.front) >= 2
    sizes = [row.costs["parameters"] for row in result.front]
    assert sizes == sorted(sizes)
    assert [row.values["cross_entropy"] for row in result.front] == sorted(
        (row.values["cross_entropy"] for row in result.front), reverse=True
    )  # larger is better, or it would not be on the front
    assert result.recipe == recipe_of(study, trials[0]) == best_recipe(study)
    assert [row.method for row in result.rows] == ["teacher", LABELS, PLAIN, TUNED, SEARCHED]
    assert result.recipe.student is not None
    knee = count_parameters(build(result.recipe.student))
    assert {row.parameters for row in result.rows[1:]} == {knee}  # all methods train the knee's student
    assert count_parameters(result.student) == knee
    assert f"{knee:,} parameters (trial {trials[0].number})" in result.knee
    assert any(line.startswith("Tried      5 students and recipes") for line in notes.lines)
    assert any("one for each student" in line for line in notes.lines)


def test_every_row_of_the_front_was_trained_and_kept(finished: tuple[Place, SearchResult, Notes]) -> None:
    place, result, _ = finished
    images = torch.ones(3, 1, 8, 8)
    for row in result.front:
        assert row.folder == result.directory / "front" / f"trial-{row.trial}"
        assert sorted(file.name for file in row.folder.iterdir()) == ["recipe.json", "student.pt", "summary.json"]
        assert Recipe.load(row.folder / "recipe.json") == row.recipe
        loaded = optuna_kd.load_student(row.folder)
        assert loaded(images).shape == (3, 10)
        assert count_parameters(loaded) == row.costs["parameters"]
        summary = json.loads((row.folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["runs"][0]["val_accuracy"] == row.val_accuracy
        assert 0 <= (row.test_accuracy or 0) <= 1
        labels = place.task.val_set.labels
        hits = (loaded(place.task.val_set.batch(torch.arange(len(labels)))[0]).argmax(1) == labels).float().mean()
        assert float(hits) == pytest.approx(row.val_accuracy)
    assert torch.equal(optuna_kd.load_student(result.directory)(images), result.student(place.task.prepare(images)))


def test_what_is_printed(finished: tuple[Place, SearchResult, Notes]) -> None:
    result = finished[1]
    shown = str(result)
    assert "Pareto front" in shown
    assert all(f"{row.costs['parameters']:,.0f}" in shown for row in result.front)
    (marked,) = [line for line in shown.splitlines() if line.strip().startswith("* ")]
    assert f"{result.rows[-1].parameters:,}" in marked
    assert shown.endswith(result.verdict)


def test_the_files_are_plain(finished: tuple[Place, SearchResult, Notes]) -> None:
    result = finished[1]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["knee"] == result.knee
    assert [row["trial"] for row in summary["front"]] == [row.trial for row in result.front]
    assert [Recipe.from_dict(row["recipe"]) for row in summary["front"]] == [row.recipe for row in result.front]
    assert all((result.directory / row["folder"] / "student.pt").is_file() for row in summary["front"])
    assert {method: len(runs) for method, runs in summary["runs"].items()} == dict.fromkeys(
        (LABELS, PLAIN, TUNED, SEARCHED), 2
    )
    assert Recipe.load(result.directory / "recipe.json") == result.recipe


def test_controls_and_trainings_are_never_trials_of_the_study(finished: tuple[Place, SearchResult, Notes]) -> None:
    place, result, notes = finished
    counts = place.counts()
    assert set(counts) == {"small", "small/controls", "small/confirmation", "small/full"}
    assert counts["small"] == 5
    assert all(trial.params for trial in result.study.trials)
    assert counts["small/controls"] == CONTROLS == len(control_recipes(result.study))
    assert counts["small/confirmation"] == 2
    assert notes.done == sum(counts.values())
    assert notes.phases["Front"] == (len(result.front), 0)
    assert notes.phases["Search"] == (5, 0)


def test_running_it_again_does_nothing_new(place: Place, finished: tuple[Place, SearchResult, Notes]) -> None:
    before, notes = place.counts(), Notes()
    again = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == 0
    assert (again.recipe, again.knee, again.verdict) == (finished[1].recipe, finished[1].knee, finished[1].verdict)
    assert [(row.method, row.accuracies) for row in again.rows] == [
        (row.method, row.accuracies) for row in finished[1].rows
    ]
    assert [dataclasses.replace(row, folder=None) for row in again.front] == [
        dataclasses.replace(row, folder=None) for row in finished[1].front
    ]


def test_more_trials_go_on_and_the_front_on_disk_is_that_of_the_study(place: Place) -> None:
    old = [trial.params for trial in place.study().trials]
    stale = place.folder / "runs" / "small" / "front"
    # A better and smaller student than all others: the front is another one, with one row.
    study = place.study()
    best = min(study.trials, key=lambda trial: trial.user_attrs.get("parameters", 1e9))
    attributes = {**best.user_attrs, "parameters": 1.0}
    study.add_trial(
        optuna.trial.create_trial(
            values=[0.001, 1.0], params=best.params, distributions=best.distributions, user_attrs=attributes
        )
    )
    result = place.search(trials=7)
    assert [trial.params for trial in result.study.trials[:5]] == old
    assert len(result.study.trials) == 7
    assert [row.trial for row in result.front] == [5]
    assert [folder.name for folder in stale.iterdir()] == ["trial-5"]


def test_a_lost_student_of_the_front_is_trained_again(
    place: Place, finished: tuple[Place, SearchResult, Notes]
) -> None:
    shutil.rmtree(place.folder / "runs")
    before, notes = place.counts(), Notes()
    result = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == len(result.front) + 1  # the knee has two seeds, the first of them is that of the front
    for old, new in zip(finished[1].front, result.front, strict=True):
        assert old.folder is not None
        assert new.folder is not None
        first, second = (torch.load(row / "student.pt", weights_only=True) for row in (old.folder, new.folder))
        assert all(torch.allclose(first[key], second[key]) for key in first)


def test_two_searches_of_one_seed_are_equal(finished: tuple[Place, SearchResult, Notes], tmp_path: Path) -> None:
    place, result, _ = finished
    memory = place.search(storage=None, directory=tmp_path)
    for one, other in zip(result.study.trials, memory.study.trials, strict=True):
        assert (one.params, one.values, one.state) == (other.params, other.values, other.state)
    assert [row.accuracies for row in memory.rows] == [row.accuracies for row in result.rows]
    assert memory.recipe == result.recipe


def test_the_study_is_refused_with_other_limits_or_objectives(place: Place) -> None:
    for changes, message in (
        ({"max_params": 9000}, "9000"),
        ({"objectives": ("error", "parameters")}, "objectives is"),
        ({"seed": 1}, "seed is 0, asked for 1"),
        ({"space": UniADSSpace(student=FAMILY)}, "space is"),
    ):
        with pytest.raises(StudyMismatchError, match=message):
            place.search(**changes)
    assert place.counts()["small"] == 5


# Limits and students that cannot be built.


@pytest.mark.parametrize(
    ("limit", "name", "allowed"),
    [
        ({"max_params": 100}, "parameters", "100"),
        ({"max_flops": 10.0, "max_params": 1e9}, "flops", "10"),
        ({"max_latency_ms": 1e-7}, "latency_ms", "1e-07"),
    ],
)
def test_limits_that_nobody_keeps_are_told_with_the_nearest(
    empty: Place, limit: dict[str, Any], name: str, allowed: str
) -> None:
    with pytest.raises(ValueError, match="No student that was tried keeps the limits") as caught:
        empty.search(trials=4, **limit)
    trials = empty.study().trials
    nearest = min(trial.user_attrs[name] for trial in trials)
    assert f"has {nearest:,.6g} {name}, allowed {allowed}" in str(caught.value)
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 4
    assert all(trial.user_attrs[REJECT_REASON].startswith("infeasible") for trial in trials)
    assert not (empty.folder / "runs").exists()


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
    with pytest.raises(ValueError, match="cannot be built: RuntimeError: out of stock") as caught:
        empty.search(make_open(student=out_of_stock), trials=2)
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


def test_limits_that_exclude_each_other_are_told_as_limits(empty: Place, make_open: Callable[..., Task]) -> None:
    """Each limit is kept by a student, and no student keeps both."""
    task = make_open(student=lambda config: Odd(str(config.options["kind"])))
    space = UniADSSpace(student=StudentSpace("odd", {"kind": ("busy", "heavy")}), distiller=False)
    with pytest.raises(ValueError, match=r"infeasible|limits") as caught:
        empty.search(task, space=space, trials=4, max_params=5000, max_flops=100_000)
    found = {trial.params["kind"]: trial.user_attrs for trial in empty.study().trials}
    assert found["busy"]["parameters"] < 5000 < found["heavy"]["parameters"]
    assert found["heavy"]["flops"] < 100_000 < found["busy"]["flops"]
    assert "learning rate" not in str(caught.value)  # no rate would make them smaller


# Students of one's own.


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


# What does not belong together.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "auto-kd", "space": None}, "still to be chosen: use JointDistillationObjective"),
        ({"reward": "accuracy"}, "no reward; got reward='accuracy'"),
        ({"max_params": 0}, "max_params must be > 0; got 0"),
        ({"budget_params": -1}, "budget must be > 0"),
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
        ({"method": "auto-kd", "space": "auto-kd", "objectives": ("error", "flops")}, "no objectives to choose"),
        ({"method": "auto-kd", "space": UniADSSpace(student=FAMILY)}, "student"),
    ],
)
def test_a_task_with_one_student_has_none_to_choose(empty: Place, arguments: dict[str, Any], message: str) -> None:
    closed = empty.task.with_student(student())
    with pytest.raises(ValueError, match=message):
        empty.search(closed, **{"seeds": 1, "confirm": 0, "trials": 1, **arguments})
    assert list(empty.folder.iterdir()) == []


def test_jobs_outside_of_the_study_train_the_student_of_their_recipe(empty: Place) -> None:
    study = create_study("uniads", storage=empty.url, study_name="s", space=SPACE, seed=0)
    objective = JointDistillationObjective(empty.task, proxy=SMALL["proxy"], max_params=10)
    worker = WorkerSpec(
        task=empty.task, objective=type(objective), options=objective.options(), knowledge=None, storage=empty.url,
        study_name="s", sampler="uniads", pruner=study.pruner, seed=0, session="here",
    )()  # fmt: skip
    assert isinstance(worker.objective, JointDistillationObjective)
    assert worker.objective.limits == {"parameters": 10}
    recipe = Recipe(Recipe.from_string("kl@4*1").distiller, student(width=0.5))
    found = run_proxy(worker, recipe, seed=1)
    assert found["recipe"] == str(recipe)
    assert 0 <= found["reward"] <= 1
    file = empty.folder / "deep" / "student.pt"
    run_full(worker, recipe, epochs=1, index=0, file=str(file))
    build(student(width=0.5)).load_state_dict(torch.load(file, weights_only=True))


def row(trial: int, parameters: float, error: float, width: float) -> FrontRow:
    return FrontRow(
        trial,
        Recipe(student=student(width=width)),
        {"error": error, "parameters": parameters},
        {"parameters": parameters},
    )


def test_the_sentence_about_the_knee() -> None:
    rows = [row(7, 1000, 0.5, 0.5), row(3, 20_000, 0.25, 1.0), row(4, 300_000, 0.2, 2.0)]
    told = [knee_sentence(rows, one.recipe, ["error", "parameters"]) for one in rows]
    assert "20,000 parameters (trial 3)" in told[1]
    assert "the next smaller one (1,000) changes its error by +0.25" in told[1]
    assert "the next larger one (300,000) changes its error by -0.05" in told[1]
    assert "smaller" not in told[0]
    assert "larger" not in told[2]
    assert "next" not in knee_sentence(rows[:1], rows[0].recipe, ["error", "parameters"])


def test_the_sentence_about_the_knee_compares_qualities() -> None:
    rows = [row(7, 1000, 0.5, 0.5), row(3, 20_000, 0.25, 1.0)]
    assert "changes its error by -0.25" in knee_sentence(rows, rows[0].recipe, ["parameters", "error"])
