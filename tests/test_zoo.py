"""The zoo: what is found where, in which order, and a line for all that has no row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from made_cards import LINE, facts, make_card
from rich.console import Console

from optuna_kd.cards import MethodResult, RecipeCard, save_card
from optuna_kd.storages import create_storage
from optuna_kd.study import create_study, optimize, space_of
from optuna_kd.study.settings import CARD, SETTINGS
from optuna_kd.zoo import Zoo, visit

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(name: str, card: RecipeCard | None = None) -> None:
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    save_card(card or make_card(study=name, study_id=name), folder)


def scored(mean: float, study: str, epochs: int = 15, date: str = "2026-11-22T00:00:00+00:00") -> RecipeCard:
    result = MethodResult("searched recipe", LINE, (mean - 0.01, mean + 0.01), (0.5, 0.5))
    return make_card(result=result, study=study, study_id=study, protocol={"epochs": epochs}, date=date)


def text_of(zoo: Zoo) -> str:
    console = Console(width=160, record=True, file=open("out.txt", "w", encoding="utf-8"))  # noqa: SIM115
    for table in zoo.tables():
        console.print(table)
    console.file.close()
    return console.export_text()


def objective(trial: optuna.Trial) -> float:
    return len(str(space_of(trial.study).suggest(trial))) / 100


def test_nothing_yet() -> None:
    assert visit().notes == ["Nothing is here yet: no folder 'runs' and no storage sqlite:///optuna_kd.db."]
    assert list(Path().iterdir()) == []  # looking makes nothing
    Path("runs").mkdir()
    assert visit().notes == ["runs: no studies and no cards."]
    assert (visit().rows, visit().unread) == ([], 0)


def test_a_card_is_a_row() -> None:
    keep("one")
    (row,) = visit().rows
    assert row.cells() == ("92.00 ± 4.97", "better", LINE, "one", "2026-11-22")
    assert row.title == f"digits: resnet20 -> resnet8x0.125  (comparable {make_card().comparable[:6]})"
    assert row.source == str(Path("runs", "one", "card.json"))
    shown = text_of(visit())
    for text in (*row.cells(), row.title):
        assert text in shown


def test_one_seed_has_no_interval_and_validation_is_said() -> None:
    keep("one", make_card(result=MethodResult("distill", LINE, (0.5,), (0.5,)), part="validation", study="one"))
    assert visit().rows[0].cells()[0] == "50.00 (validation)"


def test_comparable_ones_stand_together_the_best_first_the_newest_on_top() -> None:
    keep("a", scored(0.90, "a"))
    keep("b", scored(0.95, "b"))
    keep("c", scored(0.99, "c", epochs=30, date="2020-01-01T00:00:00+00:00"))
    keep("d", scored(0.97, "d"))
    zoo = visit()
    assert [row.name for row in zoo.rows] == ["d", "b", "a", "c"]
    assert len(list(zoo.tables())) == 2


def test_studies_and_their_cards_are_found_in_storages() -> None:
    url = "sqlite:///kd.db"
    storage = create_storage(url)
    for name in ("done", "running", "empty", "damaged", "future"):
        create_study(storage=storage, study_name=name, seed=0)
    for companion in ("controls", "confirmation", "full"):
        optuna.create_study(storage=storage, study_name=f"done/{companion}")
    optuna.create_study(storage=storage, study_name="somebody's/else")

    def study(name: str) -> optuna.Study:
        return optuna.load_study(study_name=name, storage=storage)

    study("done").set_user_attr(CARD, make_card(study="done").to_dict())
    study("damaged").set_user_attr(CARD, {"format": "optuna_kd.card", "version": 2})
    study("future").set_user_attr(SETTINGS, {"method": "later", "seed": 0, "space": {}})
    optimize(study("running"), objective, total_trials=3)
    zoo = visit([url])
    assert [(row.name, row.source) for row in zoo.rows] == [("done", url), ("running", url)]
    running = zoo.rows[1]
    assert running.card is None
    assert running.worth == f"reward {study('running').best_value:.3f}, 3 trials"
    assert running.recipe in text_of(zoo)
    assert zoo.unread == 0
    notes = {note.partition("study '")[2].partition("'")[0]: note for note in zoo.notes}
    assert len(zoo.notes) == 4
    assert "its card cannot be read: This recipe card has version 2" in notes["damaged"]
    assert "no card: 0 finished trials" in notes["empty"]
    assert "Unknown method 'later'" in notes["future"]
    assert any('"somebody\'s/else": not made by optuna_kd' in note for note in zoo.notes)


def test_a_database_may_be_named_by_its_file() -> None:
    optimize(create_study(storage="sqlite:///kd.db", study_name="one", seed=0), objective, total_trials=1)
    assert [(row.name, row.source) for row in visit(["kd.db"]).rows] == [("one", "sqlite:///kd.db")]


@pytest.mark.parametrize(
    "space",
    [{"name": "naive", "dead": []}, {"name": "later", "dead": []}, {"name": "auto-kd", "dead": [], "more": 1}, {}],
)
def test_a_study_whose_space_is_wrong_is_a_line(space: dict[str, object]) -> None:
    study = create_study(storage="sqlite:///kd.db", study_name="odd", seed=0)
    optimize(study, objective, total_trials=1)
    study.set_user_attr(SETTINGS, {"method": "auto-kd", "seed": 0, "space": space})
    zoo = visit(["sqlite:///kd.db"])
    assert zoo.rows == []
    assert zoo.notes[0].startswith("sqlite:///kd.db, study 'odd': it cannot be read: ")


def test_a_front_without_a_card_is_a_row() -> None:
    study = create_study("uniads", storage="sqlite:///kd.db", study_name="joint", seed=0)
    study.optimize(lambda trial: (len(str(space_of(study).suggest(trial))), trial.number), n_trials=3)
    (row,) = visit(["sqlite:///kd.db"]).rows
    assert row.worth == "3 trials"
    assert "-> resnet(" in row.recipe


def test_a_search_in_its_folder_and_in_its_storage_is_one_row() -> None:
    card = make_card(study="done")
    keep("done", card)
    create_study(study_name="done", seed=0).set_user_attr(CARD, card.to_dict())
    (row,) = visit().rows
    assert row.source.endswith("card.json")
    assert len(visit(["sqlite:///optuna_kd.db"]).rows) == 1


def test_what_cannot_be_read_is_a_line_and_the_rest_is_shown() -> None:
    keep("one")
    keep("two")
    Path("runs/two/card.json").write_text("{")
    Path("runs/three/checkpoints").mkdir(parents=True)
    zoo = visit(["runs", "nowhere", "sqlite:///nowhere.db", "postgresql+psycopg://me:secret@127.0.0.1:1/x"])
    assert [row.name for row in zoo.rows] == ["one"]
    assert zoo.unread == 3
    starts = ("runs/three: no card", "runs/two/card.json: This is not JSON", "nowhere: there is no such file")
    starts += ("Cannot read the storage sqlite:///nowhere.db", "Cannot read the storage postgresql+psycopg://me:***@")
    for note, start in zip(zoo.notes, starts, strict=True):
        assert note.replace("\\", "/").startswith(start)
        assert len(note.splitlines()) == 1
    assert visit(["runs/two/card.json"]).unread == 1  # named itself


def test_names_do_nothing_in_a_terminal() -> None:
    keep("one", make_card(study="\x1b[31m[bold]x[/]\n", task=facts(data_name="\x07[red]", teacher_name="[/]")))
    shown = text_of(visit())
    assert "�[31m[bold]x[/]" in shown
    assert "�[red]: [/] -> resnet8x0.125" in shown
    assert "\x1b" not in Path("out.txt").read_text(encoding="utf-8")


def test_machines_get_all_of_it() -> None:
    keep("one")
    Path("runs/half/students").mkdir(parents=True)
    data = json.loads(visit().to_json())
    assert RecipeCard.from_dict(data["rows"][0]["card"]) == make_card(study="one", study_id="one")
    assert len(data["notes"]) == 1


def test_the_command_needs_no_torch() -> None:
    keep("one")
    create_study(study_name="running", seed=0)
    code = "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['zoo']; from optuna_kd.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "92.00 ± 4.97" in done.stdout
    assert "study 'running': no card" in done.stderr
