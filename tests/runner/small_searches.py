"""What the tests of whole searches share: where a search runs, and what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna

import optuna_kd
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.result import SearchResult
from optuna_kd.storages import create_storage
from optuna_kd.training.task import ImageClassification

Task = ImageClassification


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


@dataclasses.dataclass
class Place:
    """A storage and a folder, and searches that use them with the same arguments, unless told otherwise."""

    task: Task
    folder: Path
    arguments: dict[str, Any]

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'kd.db'}"

    def search(self, task: Task | None = None, **changes: Any) -> SearchResult:
        arguments = {"storage": self.url, "directory": self.folder / "runs", **self.arguments, **changes}
        return optuna_kd.search(task or self.task, **arguments)

    def study(self, name: str = "small") -> optuna.Study:
        return optuna.load_study(study_name=name, storage=create_storage(self.url))

    def counts(self) -> dict[str, int]:
        return {
            summary.study_name: len(self.study(summary.study_name).trials)
            for summary in optuna.get_all_study_summaries(self.url)
        }


Finished = tuple[Place, SearchResult, Notes]
