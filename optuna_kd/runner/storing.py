"""What a search keeps of the teacher's knowledge, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.progress import Reporter
from optuna_kd.training.knowledge_plan import LIMIT, KnowledgePlan, plan_knowledge
from optuna_kd.training.offline import TeacherKnowledge, prepare_knowledge
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import proxy_images


@dataclass(frozen=True)
class Storing:
    """How the teacher's knowledge is kept during a search; see `optuna_kd.training.prepare_knowledge`.

    Args:
        mode: "auto", "replay", "aligned" or "online".
        limit: Bytes that may be stored.
        directory: Keep it on disk, in half precision, in this folder; None keeps it in memory, or on the device.
        keep: Whether files stay for the next search.
    """

    mode: str = "auto"
    limit: int = LIMIT
    directory: Path | None = None
    keep: bool = True

    def plan(self, task: ImageClassification, proxy: ProxyConfig) -> KnowledgePlan:
        """Decide, without asking the teacher.

        Not by the number of epochs: a study that gets more trials later has to go on with the views it began with.

        Raises:
            UnknownNameError: For an unknown mode.
            ValueError: For a negative limit.
        """
        return plan_knowledge(task, proxy_images(task, proxy)[0], **self._arguments())

    def prepare(self, task: ImageClassification, proxy: ProxyConfig, say: Reporter) -> TeacherKnowledge | None:
        """Ask the teacher, after saying what is going to be stored; None asks it online."""
        return prepare_knowledge(
            task,
            proxy_images(task, proxy)[0],
            keep=self.keep,
            say=lambda line: say.note(f"Knowledge  {line}"),
            **self._arguments(),
        )

    def _arguments(self) -> dict[str, Any]:
        place = "auto" if self.directory is None else "disk"
        return {"mode": self.mode, "limit": self.limit, "place": place, "directory": self.directory}
