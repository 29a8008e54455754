"""The files of a finished search as artifacts of its study and of its trials: replaced, never doubled."""

from __future__ import annotations

import mimetypes
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.analysis.dashboard.sheet import Sheet
from optuna_kd.study.settings import STUDY_ID

ARTIFACTS = "artifacts"  # folder of artifacts, beside the results of searches
RESULTS = ("student.pt", "recipe.json", "card.json", "card.md", "report.html")  # what is uploaded, where it is there
_KINDS = {".pt": "application/octet-stream", ".md": "text/markdown"}  # not known, or differently, on every machine
_NAMESPACE = uuid.UUID("6d3c3c1e-6f0b-5c57-9d0f-0b7d2f1f6a55")


class ArtifactFolder(FileSystemArtifactStore):
    """A folder of artifacts: made when the first file comes, and files are there complete or not at all."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        super().__init__(self.folder)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write a file in place of the one that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = f"{artifact_id}.{secrets.token_hex(4)}.partial"
        try:
            super().write(partial, content_body)
            (self.folder / partial).replace(self.folder / artifact_id)
        finally:
            (self.folder / partial).unlink(missing_ok=True)


def upload_results(study: Study, folder: Path, store: Path, students: Mapping[int, Path]) -> None:
    """Hang the results of a search on its study, and students on the trials that they were trained by.

    A file takes the place of the one that an earlier run has uploaded.

    Args:
        study: The study.
        folder: Of its results; what is there of `RESULTS` is taken.
        store: The folder of artifacts.
        students: Files of students, by trial number.
    """
    artifacts, sheet = ArtifactFolder(store), Sheet(study)
    for name in RESULTS:
        _upload(study, None, folder / name, artifacts, sheet)
    trials = study.get_trials(deepcopy=False)
    for number, file in students.items():
        _upload(study, trials[number], file, artifacts, sheet)
    sheet.write()


def _upload(study: Study, trial: FrozenTrial | None, file: Path, store: ArtifactFolder, sheet: Sheet) -> None:
    if not file.is_file():
        return
    owner = study.user_attrs.get(STUDY_ID, study.study_name)
    # The same name every time: so a file is replaced, and links to it stay.
    artifact_id = str(uuid.uuid5(_NAMESPACE, f"{owner}/{'' if trial is None else trial.number}/{file.name}"))
    with file.open("rb") as content:
        store.write(artifact_id, content)
    kind = _KINDS.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    meta = ArtifactMeta(artifact_id, file.name, kind, None)
    sheet.attach(meta, trial)
