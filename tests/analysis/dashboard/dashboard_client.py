"""The dashboard without a server: what it answers to a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna_dashboard
from optuna.study import Study

from optuna_kd.analysis.dashboard import ArtifactFolder


class Client:
    """Asks stock optuna-dashboard on the storage of a study."""

    def __init__(self, study: Study, artifacts: Path | None = None) -> None:
        self.study = study
        store = None if artifacts is None else ArtifactFolder(artifacts)
        self._app = optuna_dashboard.wsgi(study._storage, artifact_store=store)

    def get(self, path: str) -> bytes:
        environment: dict[str, Any] = {"PATH_INFO": path, "HTTP_ACCEPT_ENCODING": ""}
        setup_testing_defaults(environment)
        told: list[str] = []
        body = b"".join(self._app(environment, lambda status, headers, *_: told.append(status)))
        assert told == ["200 OK"], (path, told, body[:500])
        return body

    @property
    def page(self) -> dict[str, Any]:
        """What the page of the study is drawn from."""
        found: dict[str, Any] = json.loads(self.get(f"/api/studies/{self.study._study_id}"))
        return found

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        """The figures on it."""
        return {card["id"]: json.loads(card["graph_object"]) for card in self.page["plotly_graph_objects"]}

    @property
    def note(self) -> str:
        """The note of the study."""
        return str(self.page["note"]["body"])

    def trial(self, number: int) -> dict[str, Any]:
        """What the page of a trial is drawn from."""
        return next(trial for trial in self.page["trials"] if trial["number"] == number)

    def notes(self) -> dict[int, str]:
        """The notes of trials that have one."""
        return {trial["number"]: trial["note"]["body"] for trial in self.page["trials"] if trial["note"]["body"]}
