"""Results that hang on a study and on its trials, and are replaced when they come again."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from dashboard_client import Client
from optuna.artifacts import get_all_artifact_meta
from optuna.study import Study

from optuna_kd.analysis.dashboard import ArtifactFolder, publish, upload_results
from optuna_kd.study import STUDY_ID


@pytest.fixture
def study() -> Study:
    study = optuna.create_study()
    study.set_user_attr(STUDY_ID, "8d47")
    study.add_trials([optuna.create_trial(value=float(n)) for n in range(3)])
    return study


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "kd"
    folder.mkdir(parents=True)
    (folder / "student.pt").write_bytes(b"weights")
    (folder / "recipe.json").write_text("{}")
    (folder / "profile.txt").write_text("not for others")
    return folder


def test_they_are_on_the_page_and_can_be_fetched(study: Study, results: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs" / "artifacts"
    upload_results(study, results, store, {2: results / "student.pt"})
    client = Client(study, store)
    found = {meta["filename"]: meta for meta in client.page["artifacts"]}
    assert {name: meta["mimetype"] for name, meta in found.items()} == {
        "student.pt": "application/octet-stream",
        "recipe.json": "application/json",
    }
    assert client.get(f"/artifacts/0/{found['student.pt']['artifact_id']}") == b"weights"
    (student,) = client.trial(2)["artifacts"]
    assert student["artifact_id"] != found["student.pt"]["artifact_id"]
    assert client.get(f"/artifacts/0/{study.trials[2]._trial_id}/{student['artifact_id']}") == b"weights"
    assert client.trial(1)["artifacts"] == []
    assert {meta.filename for meta in get_all_artifact_meta(study)} == {"student.pt", "recipe.json"}


def test_again_they_are_replaced(study: Study, results: Path, tmp_path: Path) -> None:
    store = tmp_path / "artifacts"
    upload_results(study, results, store, {2: results / "student.pt"})
    before, files = Client(study, store).page, sorted(path.name for path in store.iterdir())
    (results / "student.pt").write_bytes(b"better weights")
    upload_results(study, results, store, {2: results / "student.pt"})
    after = Client(study, store)
    assert after.page == before
    assert sorted(path.name for path in store.iterdir()) == files
    student = next(meta for meta in after.page["artifacts"] if meta["filename"] == "student.pt")
    assert after.get(f"/artifacts/0/{student['artifact_id']}") == b"better weights"
    (results / "report.html").write_text("<!doctype html>")
    upload_results(study, results, store, {})
    assert len(Client(study, store).page["artifacts"]) == 3
    assert after.trial(2)["artifacts"]


def test_two_studies_share_a_folder(study: Study, results: Path, tmp_path: Path) -> None:
    other = optuna.create_study(study_name="other")  # of ours, made before studies had an id
    for each in (study, other):
        upload_results(each, results, tmp_path / "artifacts", {})
    assert len(list((tmp_path / "artifacts").iterdir())) == 4


def test_one_that_was_removed_is_not_named_in_the_note(study: Study, results: Path, tmp_path: Path) -> None:
    upload_results(study, results, tmp_path / "artifacts", {})
    study.set_user_attr("optuna_kd", {"method": "auto-kd", "space": {}, "seed": 0})
    publish(study, whole=False)
    assert "*Study Artifacts*: recipe\\.json and student\\.pt" in Client(study).note
    key = next(
        key
        for key, value in study._storage.get_study_system_attrs(0).items()
        if key.startswith("artifacts:") and "recipe" in value
    )
    study._storage.set_study_system_attr(0, key, json.dumps(None))  # as the dashboard removes one
    publish(study, whole=False)
    assert "*Study Artifacts*: student\\.pt" in Client(study).note


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path / "deep" / "artifacts")
    (tmp_path / "file").write_bytes(b"whole")
    with (tmp_path / "file").open("rb") as content:
        folder.write("aa", content)

    class Broken:
        def read(self, size: int = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        folder.write("aa", Broken())  # type: ignore[arg-type]
    assert folder.open_reader("aa").read() == b"whole"
    assert [path.name for path in folder.folder.iterdir()] == ["aa"]
