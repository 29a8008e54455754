"""The main job: whole searches on a small task, small ones, and what happens when they are run again."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import TrialState
from rich.console import Console

import optuna_kd
from optuna_kd.analysis.statistics import Comparison
from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.runner import search as front_door
from optuna_kd.runner.controls import control_recipes, kd_grid
from optuna_kd.runner.jobs import SESSION
from optuna_kd.runner.plan import Plan, parse_duration
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.result import LABELS, PLAIN, SEARCHED, TUNED, SearchResult, conclude, judge
from optuna_kd.runner.run import Clock
from optuna_kd.runner.search import derived_name
from optuna_kd.runner.teacher import TeacherError
from optuna_kd.search_space import create_space
from optuna_kd.storages import create_storage
from optuna_kd.study import StudyMismatchError, best_recipe, count_finished
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

Task = ImageClassification
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
SMALL: dict[str, Any] = {
    "trials": 4,
    "epochs": 1,
    "seeds": 2,
    "confirm": (2, 1),
    "proxy": ProxyConfig(epochs=2, rungs=(1, 2)),
    "study_name": "small",
    "progress": False,
}


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
def teaching_task(make_task: Callable[..., Task], make_teacher: Callable[[int], Any]) -> Task:
    """The small task with a teacher that knows its digits."""
    apprentice = make_task(student=lambda: make_teacher(0))
    training = StudentTraining(apprentice, Recipe(), ProxyConfig(epochs=12, rungs=(12,)), seed=0)
    for _ in training.train():
        pass
    training.observer.close()
    return make_task(teacher=training.student)


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
def finished(teaching_task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, SearchResult, Notes]:
    """One search, run once for all tests that only look at it."""
    notes = Notes()
    place = Place(teaching_task, tmp_path_factory.mktemp("finished"))
    return place, place.search(progress=notes), notes


@pytest.fixture
def place(finished: tuple[Place, SearchResult, Notes], tmp_path: Path) -> Place:
    """A copy of the finished search, to go on from."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    return Place(finished[0].task, tmp_path / "copy")


@pytest.fixture
def empty(teaching_task: Task, tmp_path: Path) -> Place:
    return Place(teaching_task, tmp_path)


def text_of(table: Any) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def figures(result: SearchResult) -> list[tuple[str, str | None, tuple[float, ...]]]:
    return [(row.method, row.recipe, row.accuracies) for row in result.rows]


def test_a_search_ends_with_a_student_and_a_table(finished: tuple[Place, SearchResult, Notes]) -> None:
    place, result, _ = finished
    assert [row.method for row in result.rows] == ["teacher", LABELS, PLAIN, TUNED, SEARCHED]
    assert [row.recipe for row in result.rows[:3]] == [None, str(Recipe()), "kl@4*1"]
    assert [len(row.accuracies) for row in result.rows] == [1, 2, 2, 2, 2]
    assert all(0 <= value <= 1 for row in result.rows for value in row.accuracies)
    assert all(row.latency_ms > 0 for row in result.rows)
    assert {row.parameters for row in result.rows[1:]} == {place.task.student_parameters}
    assert result.rows[0].parameters > place.task.student_parameters
    assert set(result.comparisons) == {LABELS, PLAIN, TUNED}
    assert result.part == "test"
    assert result.directory == place.folder / "runs" / "small"
    assert result.verdict.endswith(".")
    assert result.study.study_name == "small"
    assert not result.student.training
    assert result.recipe.distiller == best_recipe(result.study).distiller


def test_the_table_can_be_printed(finished: tuple[Place, SearchResult, Notes]) -> None:
    result = finished[1]
    shown = text_of(result.table())
    assert "Test accuracy after the last epoch, mean ± sd over 2 seeds" in shown
    for row in result.rows:
        mean = 100 * sum(row.accuracies) / len(row.accuracies)
        assert any(row.method in line and f"{mean:.2f}" in line for line in shown.splitlines()), row.method
    assert f"{SEARCHED}: {result.rows[-1].recipe}" in shown
    assert f"{finished[0].task.student_parameters:,}" in shown


def test_the_files_are_plain(finished: tuple[Place, SearchResult, Notes], tmp_path: Path) -> None:
    place, result, _ = finished
    weights = torch.load(result.directory / "student.pt", weights_only=True)
    student = place.task.make_student(seed=9)
    student.load_state_dict(weights)
    images = torch.zeros(2, 1, 8, 8)
    assert torch.equal(student.eval()(images), result.student(images))
    assert Recipe.load(result.directory / "recipe.json") == result.recipe

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["study"] == "small"
    assert summary["verdict"] == result.verdict
    assert [row["method"] for row in summary["table"]] == [row.method for row in result.rows]
    assert {method: len(runs) for method, runs in summary["runs"].items()} == dict.fromkeys(
        (LABELS, PLAIN, TUNED, SEARCHED), 2
    )
    assert summary["images"] == {"train": 160, "validation": 40, "test": 100}
    assert set(summary["versions"]) == {"python", "optuna-kd", "optuna", "torch", "torchvision"}
    copied = result.save(tmp_path / "elsewhere")
    assert sorted(file.name for file in copied.iterdir()) == ["recipe.json", "student.pt", "summary.json"]


def test_the_student_is_the_one_with_the_best_validation_accuracy(
    finished: tuple[Place, SearchResult, Notes],
) -> None:
    _, result, _ = finished
    summary = json.loads((result.directory / "summary.json").read_text(encoding="utf-8"))
    runs = summary["runs"][SEARCHED]
    best = max(runs, key=lambda run: run["val_accuracy"])
    digest = Recipe(result.recipe.distiller).digest
    kept = result.directory / "students" / f"{digest}-1-{best['seed']}.pt"
    assert kept.read_bytes() == (result.directory / "student.pt").read_bytes()


def test_controls_and_confirmation_are_never_trials_of_the_study(
    finished: tuple[Place, SearchResult, Notes],
) -> None:
    place, result, notes = finished
    counts = place.counts()
    assert set(counts) == {"small", "small/controls", "small/confirmation", "small/full"}
    assert counts["small"] == 4
    assert count_finished(result.study) == 4
    assert all(trial.params for trial in result.study.trials)
    assert counts["small/controls"] == 17 == len(control_recipes(result.study)) == 1 + len(kd_grid(result.study))
    assert counts["small/confirmation"] in (2, 3, 4)  # 2 recipes and 2 points of the grid; one may be both
    assert counts["small/full"] in (6, 8)  # plain KD may be the best of the grid
    assert notes.phases["Controls"] == (17, 0)
    assert notes.phases["Search"] == (4, 0)
    assert notes.done == sum(counts.values())
    assert any(line.startswith("Teacher    ") and "validation accuracy" in line for line in notes.lines)
    assert any(line.startswith("Layers     teacher layer") for line in notes.lines)


def test_running_it_again_does_nothing_new(place: Place, finished: tuple[Place, SearchResult, Notes]) -> None:
    before, notes = place.counts(), Notes()
    again = place.search(progress=notes)
    assert place.counts() == before
    assert notes.done == 0
    assert notes.phases["Search"] == (4, 4)
    assert figures(again) == figures(finished[1])
    assert again.verdict == finished[1].verdict
    assert again.recipe == finished[1].recipe


def test_more_trials_add_only_what_is_missing(place: Place) -> None:
    old, notes = [trial.params for trial in place.study().trials], Notes()
    result = place.search(trials=6, progress=notes)
    assert count_finished(result.study) == len(result.study.trials) == 6
    assert [trial.params for trial in result.study.trials[:4]] == old
    assert notes.phases["Search"] == (6, 4)
    assert place.counts()["small/controls"] == 17


def test_fewer_trials_than_there_are_keep_them_all(place: Place) -> None:
    assert len(place.search(trials=2).study.trials) == 4


def test_a_budget_instead_of_trials(place: Place) -> None:
    notes = Notes()
    result = place.search(trials=None, budget=0.001, progress=notes)
    assert len(result.study.trials) == 4  # the time is over, and there are trials to choose from
    started = place.search(trials=None, budget="1s", progress=notes).study
    assert len(started.trials) >= 4


def test_a_lost_student_file_is_trained_again(place: Place, finished: tuple[Place, SearchResult, Notes]) -> None:
    shutil.rmtree(place.folder / "runs")
    before, notes = place.counts(), Notes()
    result = place.search(progress=notes)
    assert notes.done == 2
    assert place.counts() == before
    images = torch.ones(2, 1, 8, 8)
    assert torch.allclose(result.student(images), finished[1].student(images))


def test_a_study_is_refused_for_another_task(place: Place, make_task: Callable[..., Task]) -> None:
    other = make_task(teacher=place.task.teacher, lr=0.05)
    with pytest.raises(StudyMismatchError, match=r"lr=0\.1 .*lr=0\.05 "):
        place.search(other)
    with pytest.raises(StudyMismatchError, match="seed is 0, asked for 1"):
        place.search(seed=1)
    with pytest.raises(StudyMismatchError, match=r'"epochs": 2.*"epochs": 3'):
        place.search(proxy=ProxyConfig(epochs=3))
    with pytest.raises(StudyMismatchError, match=r"auto-kd.*feature-only"):
        place.search(space="feature-only")
    assert place.counts()["small"] == 4


@pytest.mark.parametrize("storage", [None, "sqlite:///:memory:", optuna.storages.InMemoryStorage()])
def test_processes_need_a_storage_they_can_open(empty: Place, storage: Any) -> None:
    with pytest.raises(ValueError, match="2 workers need a storage with a URL"):
        empty.search(storage=storage, workers=2)
    assert list(empty.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials must be >= 1; got 0"),
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"workers": 0}, "workers must be >= 1"),
        ({"trials": None, "budget": "0s"}, "budget must be > 0"),
        ({"trials": None, "budget": "soon"}, "A duration reads like 20m.*'soon'"),
        ({"confirm": (2, 0)}, r"confirm is \(recipes, seeds\)"),
        ({"reward": "acuracy"}, "Unknown reward 'acuracy'.*accuracy"),
        ({"sampler": "mtcs"}, "Unknown sampler 'mtcs'.*mcts"),
        ({"space": "autokd"}, "auto-kd"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    empty: Place, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        empty.search(**arguments)
    assert list(empty.folder.iterdir()) == []


class Failing:
    """Makes trials fail where it is told so, by their place in the order of calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, which: set[int], error: type[BaseException]) -> None:
        self.calls = 0
        original = DistillationObjective.__call__

        def call(objective: DistillationObjective, trial: optuna.Trial) -> float:
            self.calls += 1
            if self.calls in which:
                objective.bind(trial.study)[0].suggest(trial)
                raise error("out of luck")
            return original(objective, trial)

        monkeypatch.setattr(DistillationObjective, "__call__", call)


@pytest.mark.usefixtures("quiet_optuna")
def test_a_failing_trial_is_survived_and_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, {1, 2, 4}, RuntimeError)
    notes = Notes()
    result = place.search(trials=6, progress=notes)
    assert count_finished(result.study) == 6
    assert [trial.state for trial in result.study.trials].count(TrialState.FAIL) == 3
    assert [line for line in notes.lines if "failed" in line] == ["A trial failed: RuntimeError: out of luck"] * 3


@pytest.mark.usefixtures("quiet_optuna")
def test_three_failing_trials_in_a_row_end_the_search(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, set(range(1, 99)), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError, match="out of luck"):
        place.search(trials=20)
    assert failing.calls == 3
    assert count_finished(place.study()) == 4


@pytest.mark.usefixtures("quiet_optuna")
def test_an_interrupted_trial_comes_again_with_its_parameters_and_seed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(place.folder / "kd.db", place.folder / "other.db")
    undisturbed = place.search(trials=5, storage=f"sqlite:///{place.folder / 'other.db'}").study.trials[4]
    with monkeypatch.context() as patch:
        Failing(patch, {1}, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            place.search(trials=5)
    stopped = place.study().trials
    assert [trial.state for trial in stopped[4:]] == [TrialState.FAIL, TrialState.WAITING]
    trial = place.search(trials=5).study.trials[5]
    assert len(place.study().trials) == 6
    assert count_finished(place.study()) == 5
    assert trial.params == stopped[4].params == undisturbed.params
    assert trial.intermediate_values == undisturbed.intermediate_values
    assert trial.user_attrs["accuracy"] == undisturbed.user_attrs["accuracy"]
    assert trial.user_attrs[SESSION] != stopped[4].user_attrs.get(SESSION)


def test_trials_of_others_that_still_run_do_not_block(place: Place) -> None:
    """A killed process leaves its trial RUNNING; for a minute nobody can know that it is dead."""
    with pytest.warns(UserWarning, match="Heartbeat"):
        place.study().ask()
    result = place.search(trials=5)
    assert count_finished(result.study) == 5
    assert [trial.state for trial in result.study.trials].count(TrialState.RUNNING) == 1


class PruneAll(BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def test_a_search_without_a_complete_trial_says_so(empty: Place) -> None:
    with pytest.raises(ValueError, match=r"None of the 1 trials ran to its end; 0 were rejected\..*more trials"):
        empty.search(trials=1, pruner=PruneAll())


def test_a_teacher_at_chance_stops_the_search(
    empty: Place, make_task: Callable[..., Task], make_teacher: Callable[[int], Any]
) -> None:
    with pytest.raises(TeacherError, match=r"Likely reasons: .*normalisation"):
        empty.search(make_task(teacher=make_teacher(3)))
    assert not (empty.folder / "runs").exists()
    assert not (empty.folder / "kd.db").exists()


def test_students_that_beat_their_teacher_without_it_bring_a_warning(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "check_teacher", lambda task: 0.0)
    notes = Notes()
    place.search(progress=notes)
    (warning,) = [line for line in notes.lines if line.startswith("Warning")]
    assert "never saw the teacher" in warning
    assert "the teacher 0.00 %" in warning
    monkeypatch.setattr(front_door, "check_teacher", lambda task: 1.0)
    notes = Notes()
    place.search(progress=notes)
    assert not any(line.startswith("Warning") for line in notes.lines)


def test_two_processes_end_like_one(finished: tuple[Place, SearchResult, Notes], empty: Place) -> None:
    result = empty.search(workers=2, pruner=NopPruner())
    counts = empty.counts()
    assert (counts["small"], counts["small/controls"]) == (4, 17)
    assert {trial.state for trial in result.study.trials} <= set(FINISHED)
    assert figures(result)[:3] == figures(finished[1])[:3]  # teacher, labels only, plain KD
    sessions = {trial.user_attrs[SESSION] for trial in result.study.trials}
    assert len(sessions) == 1


# What needs no search.


def compared(difference: float, p: float, n: int = 10) -> Comparison:
    return Comparison("other", difference, 0.01, n, p, p, 0.012)


@pytest.mark.parametrize(
    ("tuned", "plain", "labels", "expected"),
    [
        ((0.02, 0.01), (0.03, 0.01), (0.04, 0.01), "beats tuned KD beyond noise.*and plain KD and labels only as well"),
        ((0.02, 0.01), (0.01, 0.30), (0.04, 0.01), "beats tuned KD beyond noise.*but not plain KD;"),
        ((0.02, 0.01), (0.01, 0.30), (-0.1, 0.01), "beats tuned KD.*but not plain KD or labels only;"),
        ((-0.02, 0.01), (0.03, 0.01), (0.04, 0.01), r"is worse than tuned KD \(-2\.00 points.*Use tuned KD\."),
        ((0.02, 0.20), (0.03, 0.01), (0.04, 0.01), r"does not beat tuned KD beyond noise \(\+2\.00 points, p = 0\.2"),
        ((-0.02, 0.20), (0.03, 0.01), (0.04, 0.01), "does not beat tuned KD beyond noise"),
    ],
)
def test_the_verdict(tuned: Any, plain: Any, labels: Any, expected: str) -> None:
    comparisons = {TUNED: compared(*tuned), PLAIN: compared(*plain), LABELS: compared(*labels)}
    verdict = judge(comparisons)
    assert re.search(expected, verdict)
    assert "10 seeds can show differences from 1.20 points on" in verdict
    assert "Holm" in verdict


def test_the_verdict_with_one_seed_and_with_one_recipe() -> None:
    comparisons = {name: compared(0.02, 1.0, n=1) for name in (TUNED, PLAIN, LABELS)}
    assert "+2.00 points from tuned KD, with one seed: nothing can be said" in judge(comparisons)
    assert "the same recipe" in judge(comparisons, same_recipe=True)


def test_the_verdict_with_too_few_seeds_names_no_impossible_difference() -> None:
    few = {name: dataclasses.replace(compared(0.02, 0.5, n=2), detectable=1.4) for name in (TUNED, PLAIN, LABELS)}
    assert "2 seeds are too few to show a difference" in judge(few)


def run(seed: int, validation: float, test: float | None) -> dict[str, Any]:
    return {
        "seed": seed,
        "val_accuracy": validation,
        "test_accuracy": test,
        "cross_entropy": 1.0,
        "cka": 0.5,
        "seconds": 1.0,
    }


def test_the_student_is_chosen_on_validation_data_alone(teaching_task: Task, tmp_path: Path) -> None:
    for seed in range(3):
        torch.save(teaching_task.make_student(seed).state_dict(), tmp_path / f"{seed}.pt")
    methods = {LABELS: Recipe(), PLAIN: Recipe.from_string("kl@4*1")}
    methods |= {TUNED: Recipe.from_string("kl@2*5"), SEARCHED: Recipe.from_string("none|l2*5 + kl@4*1")}
    scores = [(0.5, 0.9), (0.7, 0.1), (0.6, 0.8)]
    records = {method: [run(seed, *score) for seed, score in enumerate(scores)] for method in methods}
    study = optuna.create_study(study_name="s")
    result = conclude(
        study,
        teaching_task,
        methods,
        records,
        tmp_path / "out",
        student_file=lambda index: tmp_path / f"{index}.pt",
        student_config=StudentConfig("resnet8"),
    )
    expected = teaching_task.make_student(1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in result.student.state_dict().items())
    assert result.rows[-1].accuracies == (0.9, 0.1, 0.8)
    assert result.recipe.student == StudentConfig("resnet8")
    assert Recipe.load(tmp_path / "out" / "recipe.json") == result.recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": None}, "a number of trials or a budget"),
        ({"trials": -1}, "trials must be >= 1"),
        ({"budget": 0.0}, "budget must be > 0"),
        ({"budget": math.nan}, "budget must be > 0"),
        ({"confirm": (-1, 2)}, r"got \(-1, 2\)"),
        ({"confirm": (3, 0)}, r"got \(3, 0\)"),
        ({"epochs": 0}, "epochs must be >= 1; got 0"),
        ({"seeds": 0}, "seeds must be >= 1; got 0"),
        ({"workers": 0}, "workers must be >= 1; got 0"),
    ],
)
def test_a_plan_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**changes)


def test_plans_that_are_fine() -> None:
    assert Plan().trials == 60
    assert Plan(trials=None, budget=1.0).trials is None
    assert Plan(confirm=(0, 0)).confirm == (0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("45s", 45),
        ("20m", 1200),
        ("20min", 1200),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("0.5h", 1800),
        (" 2m ", 120),
        ("1m30", 90),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "h", "-5m", "20 m x", "5d", "m20", "1m1h", "nan", "1e3", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="A duration reads like 20m, 1h30m or 90s"):
        parse_duration(text)


def test_the_clock_measures_after_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("optuna_kd.runner.run.time.monotonic", lambda: now[0])
    clock = Clock(planned=10)
    clock.started = now[0]
    assert clock.left() is None
    now[0] = 130.0  # workers were starting
    clock.advance(2)
    assert clock.left() is None
    now[0] = 134.0
    clock.advance(2)
    assert clock.seconds_per_epoch == 2.0
    assert clock.left() == 12.0
    assert clock.elapsed() == 34.0
    clock.advance(100)
    assert clock.left() == 0.0


def test_a_derived_name_changes_with_what_must_not_change(
    teaching_task: Task, make_task: Callable[..., Task], make_teacher: Callable[[int], Any]
) -> None:
    def name(
        task: Task = teaching_task,
        proxy: ProxyConfig | None = None,
        reward: str = "bounded",
        seed: int = 0,
        space: str = "auto-kd",
        temperatures: tuple[int, ...] | None = None,
        sampler: Any = "mcts",
    ) -> str:
        objective = DistillationObjective(task, proxy=proxy, reward=reward)
        options = {"temperatures": temperatures} if temperatures else {}
        return derived_name("kd", objective, seed, create_space(space, **options), sampler)

    names = [
        name(),
        name(make_task(teacher=teaching_task.teacher, lr=0.05)),
        name(make_task(teacher=make_teacher(7))),
        name(make_task(teacher=teaching_task.teacher, student=lambda: make_teacher(0))),
        name(proxy=ProxyConfig(epochs=3)),
        name(proxy=ProxyConfig(subset=0.5)),
        name(reward="paper"),
        name(seed=1),
        name(space="feature-only"),
        name(temperatures=(1, 4, 8, 16)),
        name(sampler="tpe"),
    ]
    assert len(set(names)) == len(names)
    assert all(one.startswith("kd-") for one in names)
    assert name() == names[0] == name(make_task(teacher=teaching_task.teacher))
    assert name(sampler=optuna.samplers.TPESampler(seed=3)) == name(sampler=optuna.samplers.TPESampler(seed=4))
