"""What the dashboard reads of a study, changed in memory and written at once: nobody sees half a figure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.artifacts import ArtifactMeta
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.analysis.dashboard import formats
from optuna_kd.storages import write_study

# A reference that nothing refers to: Markdown draws nothing for it.
_MARK = (
    '[optuna_kd]: # "{digest}: optuna_kd writes this note anew while the study goes on. A note that somebody has '
    'changed stays as it is; an empty one is written again."'
)
_OURS = re.compile(r'(?s)(?P<text>.*)\n\n\[optuna_kd\]: # "(?P<digest>[0-9a-f]{12}): [^"\n]*"\s*')


class Sheet:
    """The system attributes of a study, where the dashboard looks for what it shows.

    What is the same as before is not written again.

    Args:
        study: Any study.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._known = study._storage.get_study_system_attrs(study._study_id)
        self._now = dict(self._known)

    def get(self, key: str, default: Any = None) -> Any:
        """Give one attribute, as it will be."""
        return self._now.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Change one attribute."""
        self._now[key] = value

    def has_card(self, name: str) -> bool:
        """Whether there is a figure of this name."""
        return bool(formats.joined(self._now, formats.card_prefix(name)))

    def draw(self, name: str, figure: str) -> None:
        """Put a figure, as JSON, in place of the one of this name."""
        self._now |= formats.in_pieces(figure, formats.card_prefix(name), self._now)

    def note(self, trial: FrozenTrial | None = None) -> str:
        """Give the note of the study, or of a trial; empty where there is none."""
        return formats.joined(self._now, formats.note_prefix(_id(trial)))

    def write_note(self, text: str, trial: FrozenTrial | None = None) -> None:
        """Replace the note of the study, or of a trial, if it is empty or as it was written here."""
        before = self.note(trial)
        after = signed(text) if text else ""
        if before != after and (not before.strip() or is_ours(before)):
            version = formats.note_version(_id(trial))
            self.set(version, self.get(version, 0) + 1)
            self._now |= formats.in_pieces(after, formats.note_prefix(_id(trial)), self._now)

    def noted(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Give those trials that have, or had, a note."""
        return [trial for trial in trials if formats.note_version(trial._trial_id) in self._now]

    def attach(self, meta: ArtifactMeta, trial: FrozenTrial | None = None) -> None:
        """Tell of an artifact of the study, or of a trial."""
        self.set(*formats.artifact_attribute(meta, _id(trial)))

    def artifacts(self) -> list[str]:
        """Give the names of the files that hang on the study."""
        stored = [json.loads(value) for key, value in self._now.items() if key.startswith(formats.ARTIFACT)]
        return [meta["filename"] for meta in stored if meta is not None]  # nothing is left of one that was removed

    @property
    def changes(self) -> Mapping[str, Any]:
        """What `write` is going to write."""
        missing = object()
        return {key: value for key, value in self._now.items() if self._known.get(key, missing) != value}

    def write(self) -> None:
        """Write what has changed; into a database in one transaction."""
        if changes := self.changes:
            write_study(self._study, changes)
        self._known = dict(self._now)


def signed(text: str) -> str:
    """Put a mark below a note, by which it is known as ours while nobody has changed it."""
    return f"{text}\n\n{_MARK.format(digest=_digest(text))}"


def is_ours(note: str) -> bool:
    """Whether a note was written here and has not been changed since."""
    found = _OURS.fullmatch(note)
    return found is not None and found["digest"] == _digest(found["text"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _id(trial: FrozenTrial | None) -> int | None:
    return None if trial is None else trial._trial_id
