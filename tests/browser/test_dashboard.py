"""Stock optuna-dashboard in a real browser, on studies made by searches: cards, notes, artifacts."""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import InMemoryStorage
from optuna.study import Study
from real_browser import Visit

import optuna_kd
from optuna_kd.analysis.dashboard import ARTIFACTS
from optuna_kd.analysis.dashboard.cards import CARDS
from optuna_kd.analysis.dashboard.serving import Dashboard
from optuna_kd.models import create_student
from optuna_kd.recipe import ProxyConfig
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.storages import create_storage

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis" / "figures"))
import made_up

Open = Callable[..., Visit]

COMMON: Mapping[str, Any] = {"epochs": 1, "seeds": 2, "confirm": (2, 1), "study_name": "small", "progress": False}
FAMILY = StudentSpace(
    "resnet", {"depth_1": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "depth_3": 1, "base_width": 0.25}
)
METHODS: Mapping[str, Mapping[str, Any]] = {
    "auto-kd": {"trials": 8, "proxy": ProxyConfig(epochs=2, rungs=(1, 2))},
    "uniads": {
        "trials": 6,
        "space": UniADSSpace(student=FAMILY, distiller=False, temperatures=(4,)),
        "proxy": ProxyConfig(epochs=2, rungs=(2,), subset=0.5),
    },
}
IMAGES: Mapping[str, Any] = {"num_classes": 10, "in_channels": 1, "input_size": 8}
DRAWN = """(name) => {
  const card = document.getElementById(`user-defined-plot:${name}`);
  return Boolean(card && card.querySelector(".main-svg, .icicle") && card.querySelector(".gtitle")
    && card.getBoundingClientRect().height >= 400);
}"""
TEXT = "(name) => document.getElementById(`user-defined-plot:${name}`).textContent"
CUT = """(name) => {
  const card = document.getElementById(`user-defined-plot:${name}`), room = card.getBoundingClientRect();
  return [...card.querySelectorAll("svg")].filter((svg) => svg.getBoundingClientRect().bottom > room.bottom + 1).length;
}"""


@dataclass
class Searched:
    """A finished search, and the dashboard on its storage."""

    study: Study
    dashboard: Dashboard
    folder: Path
    make_student: Callable[[], torch.nn.Module]  # where its recipe names none

    @property
    def page(self) -> str:
        return f"{self.dashboard.address}/dashboard/studies/{self.study._study_id}"

    def cards(self) -> list[str]:
        """The names of the cards that were published."""
        names = self.study._storage.get_study_system_attrs(self.study._study_id)
        found = {name.split(":")[2] for name in names if name.startswith("dashboard:plot_data:")}
        return [name for name in CARDS.values() if name in found]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('database') / 'kd.db'}"
    address: str = request.getfixturevalue("server").create_database()
    return address


@pytest.fixture(scope="module", params=METHODS)
def searched(
    request: pytest.FixtureRequest,
    browser: object,  # nothing is searched where it cannot be shown
    url: str,
    tmp_path_factory: pytest.TempPathFactory,
    make_task: Callable[..., Any],
    knowing_teacher: Any,
) -> Iterator[Searched]:
    method, runs = request.param, tmp_path_factory.mktemp(request.param)
    if method == "auto-kd":
        task = make_task(teacher=knowing_teacher)
    else:
        build = functools.partial(create_student, **IMAGES)
        task = make_task(teacher=knowing_teacher, student=build, batch_size=16, optimizer="adamw", lr=0.01)
    name = f"small-{method}"
    arguments = {**COMMON, **METHODS[method], "method": method, "study_name": name}
    result = optuna_kd.search(task, storage=url, directory=runs, **arguments)
    storage = create_storage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    optuna_kd.publish(study)  # with what needs a fit, for which this search was too short
    with served(study, storage, runs / ARTIFACTS) as dashboard:
        yield Searched(study, dashboard, result.directory, lambda: task.make_student(seed=0))


class served:
    """A dashboard that answers in a thread of its own."""

    def __init__(self, study: Study, storage: Any, artifacts: Path) -> None:
        self.dashboard = Dashboard(storage, artifacts=artifacts, port=0)
        self._thread = threading.Thread(target=self.dashboard.run)

    def __enter__(self) -> Dashboard:
        self._thread.start()
        return self.dashboard

    def __exit__(self, *_: object) -> None:
        self.dashboard.stop()
        self._thread.join()


def draw_all(visited: Visit, names: list[str]) -> None:
    for name in names:
        visited.page.wait_for_function(DRAWN, arg=name, timeout=60_000)


def test_the_cards_are_drawn(searched: Searched, visit: Open, request: pytest.FixtureRequest) -> None:
    visited = visit(searched.page, width=1500, height=5200)
    names = searched.cards()
    assert {"optuna_kd.history", "optuna_kd.importance", "optuna_kd.tree", "optuna_kd.survival"} <= set(names)
    assert ("optuna_kd.front" in names) is (len(searched.study.directions) > 1)
    draw_all(visited, names)
    for name in names:
        assert visited.page.evaluate(CUT, name) == 0, name
    order = visited.page.evaluate("[...document.querySelectorAll('[id^=\"user-defined-plot:\"]')].map((e) => e.id)")
    assert order == [f"user-defined-plot:{name}" for name in names]
    visited.picture(f"dashboard-{searched.study.study_name}", whole=False)
    assert visited.complaints == []
    assert visited.page.get_by_text("Hyperparameter Importance").count()  # the dashboard's own are there as well


def test_importance_has_the_conditional_parameters(searched: Searched, visit: Open) -> None:
    visited = visit(searched.page, width=1500, height=3000)
    draw_all(visited, ["optuna_kd.importance"])
    shown = visited.page.evaluate(TEXT, "optuna_kd.importance")
    trials = searched.study.get_trials(deepcopy=False)
    everywhere = set.intersection(*(set(trial.params) for trial in trials))
    known = {name for trial in trials for name in trial.params}
    own = visited.page.evaluate("document.body.innerText")
    assert any(name in shown for name in known)
    for name in known - everywhere:
        assert name in shown or "The first 8 of" in shown
        assert name in own


def test_the_note_says_what_was_found(searched: Searched, visit: Open) -> None:
    visited = visit(f"{searched.page}/note", height=1400)
    page = visited.page
    page.get_by_role("heading", name=searched.study.study_name).wait_for()
    text = page.evaluate("document.body.innerText")
    assert "searched recipe" in text  # the closing table
    assert "student.pt" in text
    assert "[optuna_kd]" not in text  # the mark is not drawn
    assert "| method" not in text
    assert page.locator("table").count() >= 1
    visited.picture(f"note-{searched.study.study_name}", whole=False)
    page.get_by_role("link", name="trial").first.click()
    page.get_by_text("Artifacts").first.wait_for()
    assert visited.complaints == []


def test_the_student_can_be_fetched_and_loads(searched: Searched, visit: Open, tmp_path: Path) -> None:
    visited = visit(searched.page, width=1500, height=6000)
    draw_all(visited, ["optuna_kd.history"])
    names = ["student.pt", "recipe.json", "card.json", "report.html"]
    for name in names:
        visited.page.get_by_text(name, exact=True).first.wait_for()
    files = {}
    links = visited.page.locator("a[download]")
    for place in range(links.count()):
        with visited.page.expect_download() as coming:
            links.nth(place).click()
        files[coming.value.suggested_filename] = tmp_path / coming.value.suggested_filename
        coming.value.save_as(files[coming.value.suggested_filename])
    assert set(names) <= set(files)
    for name in names:
        assert files[name].read_bytes() == (searched.folder / name).read_bytes()
    state = torch.load(files["student.pt"], weights_only=True)
    student = optuna_kd.Recipe.load(files["recipe.json"]).student
    network = searched.make_student() if student is None else create_student(student, **IMAGES)
    network.load_state_dict(state)
    assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert visited.complaints == []


def test_trials_that_are_worth_a_look_have_notes(searched: Searched, visit: Open) -> None:
    attributes = searched.study._storage.get_study_system_attrs(searched.study._study_id)
    trials = {str(trial._trial_id): trial.number for trial in searched.study.get_trials(deepcopy=False)}
    students = [
        trials[name.split(":")[2]]
        for name, value in attributes.items()
        if name.startswith("dashboard:artifacts:") and json.loads(value)["filename"] == "student.pt"
    ]
    assert students
    visited = visit(f"{searched.page}/trials?numbers={students[0]}", height=2000)
    visited.page.get_by_text("student.pt", exact=True).first.wait_for()
    noted = [trials[name.split(":")[1]] for name in attributes if name.endswith(":note_ver") and name.count(":") == 2]
    visited.page.goto(f"{searched.page}/trials?numbers={noted[0]}")
    visited.page.get_by_role("heading", name="The").or_(visited.page.get_by_role("heading", name="On the")).or_(
        visited.page.get_by_role("heading", name="Scored")
    ).or_(visited.page.get_by_role("heading", name="Rejected")).first.wait_for()
    visited.picture(f"trial-{searched.study.study_name}", whole=False)
    assert visited.complaints == []


def test_a_note_that_is_changed_on_the_page_stays(searched: Searched, visit: Open) -> None:
    visited = visit(f"{searched.page}/note", height=1400)
    page = visited.page
    page.get_by_role("heading", name=searched.study.study_name).wait_for()
    page.get_by_role("button").filter(has=page.locator("[data-testid=EditIcon]")).first.click()
    page.locator("textarea").first.fill("Mine")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Mine").first.wait_for()
    optuna_kd.publish(searched.study, whole=False)
    page.reload()
    page.get_by_text("Mine").first.wait_for()
    assert "searched recipe" not in page.evaluate("document.body.innerText")


def test_names_with_mark_up_do_nothing(browser: object, tmp_path: Path, visit: Open) -> None:
    nasty = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>[a](javascript:window.pwned=1)"
    storage = create_storage(f"sqlite:///{tmp_path / 'kd.db'}")
    study = optuna.create_study(storage=storage, study_name=nasty)

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("recipe", nasty)
        return trial.suggest_float(nasty, 0, 1) + len(trial.suggest_categorical("kind", [nasty, "b"]))

    study.optimize(objective, n_trials=12)
    optuna_kd.publish(study)
    with served(study, storage, tmp_path / "artifacts") as dashboard:
        visited = visit(f"{dashboard.address}/dashboard/studies/{study._study_id}", width=1500, height=4000)
        draw_all(visited, ["optuna_kd.history", "optuna_kd.importance"])
        visited.page.goto(f"{dashboard.address}/dashboard/studies/{study._study_id}/note")
        visited.page.get_by_text("Best so far").wait_for()
        assert visited.page.evaluate("window.pwned") is None
        assert visited.page.locator("a[href^=javascript]").count() == 0
        assert visited.complaints == []


def test_five_thousand_trials_are_a_page_that_can_be_used(browser: object, tmp_path: Path, visit: Open) -> None:
    few = made_up.auto_kd(250)
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="large", direction="maximize")
    for name, value in few.user_attrs.items():
        study.set_user_attr(name, value)
    study.add_trials(few.get_trials(deepcopy=False) * 20)
    optuna_kd.publish(study)
    with served(study, storage, tmp_path / "artifacts") as dashboard:
        began = time.monotonic()
        visited = visit(f"{dashboard.address}/dashboard/studies/{study._study_id}", width=1500, height=5200)
        draw_all(visited, ["optuna_kd.history", "optuna_kd.importance", "optuna_kd.tree"])
        assert time.monotonic() - began < 60
        assert "trials are drawn, evenly spaced" in visited.page.evaluate(TEXT, "optuna_kd.history")
        visited.picture("dashboard-5000", whole=False)
        began = time.monotonic()
        visited.page.get_by_role("link", name="Note").or_(visited.page.get_by_role("button", name="Note")).first.click()
        visited.page.get_by_text("Best so far").wait_for()
        assert time.monotonic() - began < 10  # the page is not frozen
        assert visited.complaints == []
