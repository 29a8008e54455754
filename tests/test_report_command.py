"""Reports from a storage: which study is meant, nothing but the report is written, one line for what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from made_cards import compared_card

from optuna_kd import reporting
from optuna_kd.reporting import report_from_storage, report_of_search
from optuna_kd.storages import StorageError, create_storage
from optuna_kd.study import CARD, create_study, optimize, space_of

pytestmark = pytest.mark.usefixtures("quiet_optuna")
URL = "sqlite:///kd.db"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def objective(trial: optuna.Trial) -> float:
    return len(str(space_of(trial.study).suggest(trial))) / 100


def search(name: str, trials: int = 2) -> optuna.Study:
    study = create_study(storage=URL, study_name=name, seed=0)
    optimize(study, objective, total_trials=trials)
    return study


def text_of(study: str | None = None, storage: str = URL) -> str:
    return report_from_storage(study, storage, "out")[1].read_text(encoding="utf-8")


def test_the_one_searched_study_needs_no_name() -> None:
    search("mine").set_user_attr(CARD, compared_card().to_dict())
    for companion in ("controls", "confirmation", "full"):
        optuna.create_study(storage=create_storage(URL), study_name=f"mine/{companion}")
    optuna.create_study(storage=create_storage(URL), study_name="somebody's")
    text = text_of()
    assert text.startswith("# Report of `mine`")
    assert "Better than tuned KD, beyond noise" in text
    assert "optuna-kd dashboard --storage sqlite:///kd.db" in text
    assert text_of("somebody's").startswith("# Report of `somebody's`")
    assert text_of("mine/full").startswith("# Report of `mine/full`")


def test_the_only_study_needs_none_either() -> None:
    optuna.create_study(storage=create_storage(URL), study_name="somebody's")
    assert "was not made by optuna" in text_of()


def test_several_studies_are_listed() -> None:
    for name in ("one", "two"):
        create_study(storage=URL, study_name=name, seed=0)
    with pytest.raises(ValueError, match=r"sqlite:///kd\.db holds 2 studies; say which: 'one', 'two'\."):
        text_of()
    with pytest.raises(ValueError, match=r"Unknown study in sqlite:///kd\.db: 'oen'\. Did you mean 'one'\?"):
        text_of("oen")


def test_a_storage_without_studies_says_so() -> None:
    optuna.delete_study(study_name=search("gone").study_name, storage=URL)
    for name in (None, "gone"):
        with pytest.raises(ValueError, match="holds no studies"):
            text_of(name)


@pytest.mark.parametrize(
    ("url", "said"),
    [("sqlite:///nowhere.db", "there is no file"), ("postgresql+psycopg://me:secret@127.0.0.1:1/x", "me:\\*\\*\\*@")],
)
def test_a_storage_that_cannot_be_read_is_one_line(url: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as error:
        text_of(storage=url)
    assert "secret" not in str(error.value)
    assert not Path("out").exists()


def test_a_storage_is_only_read() -> None:
    study = search("mine")
    storage = study._storage
    storage.remove_session()
    storage._backend.engine.dispose()  # type: ignore[attr-defined]
    content = Path("kd.db").read_bytes()
    Path("kd.db").chmod(0o400)
    text_of()
    assert Path("kd.db").read_bytes() == content
    assert sorted(path.name for path in Path("out").iterdir()) == ["report.html", "report.md"]


def test_a_running_study_of_another_process_is_read_between_two_writes() -> None:
    study = search("mine")
    running = study.ask()
    objective(running)
    assert "1 trial is still running" in text_of()
    study.tell(running, 0.5)
    assert "still running" not in text_of()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    search("mine")
    Path("out").write_text("a file")
    with pytest.raises(OSError, match="out"):
        text_of()


def test_the_command_needs_no_torch() -> None:
    search("mine")
    code = "import atexit, sys; sys.argv[1:] = ['report', '--out', 'deep/page.html', '--storage', 'sqlite:///kd.db']\n"
    code += "atexit.register(lambda: print('torch' in sys.modules)); from optuna_kd.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    page, text = Path("deep/page.html"), Path("deep/page.md")
    assert done.stdout.splitlines() == [f"Wrote {page}", f"Wrote {text}", "False"]
    assert page.stat().st_size > 1_000_000


def test_a_search_gets_its_report_and_never_fails_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    study = search("mine")
    assert report_of_search(study, Path("runs")) == f"Report     {Path('runs', 'report.html')}"
    assert Path("runs/report.md").is_file()

    def fail(_: object) -> None:
        raise KeyError("figure")

    monkeypatch.setattr(reporting, "build_report", fail)
    line = report_of_search(study, Path("other"))
    assert line == "Report     could not be written (KeyError: 'figure'); `optuna-kd report` tries again"
    assert not Path("other").exists()
