"""Where optuna-dashboard (0.21) looks for figures, notes and artifacts: names and values of attributes of a study.

Its own `save_plotly_graph_object` and `save_note` write the same. But they write piece by piece, so that whoever looks
meanwhile reads half a figure; `save_note` refuses trials that have ended; and to import them loads scikit-learn.
Optuna's `upload_artifact` gives a file another name at every upload, and refuses ended trials, too. The tests hold what
is written here against what the dashboard reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from optuna.artifacts import ArtifactMeta

PIECE = 2045  # characters of a figure or a note in one attribute: what MySQL takes
ARTIFACT = "artifacts:"  # what the names of attributes begin with that tell of a study's artifacts


def card_prefix(name: str) -> str:
    """Give what the names of attributes begin with that hold a figure as JSON."""
    return f"dashboard:plot_data:{name}:"


def note_prefix(trial_id: int | None) -> str:
    """Give what the names of attributes begin with that hold the text of a note: of a study, or of a trial."""
    return "dashboard:note_str:" if trial_id is None else f"dashboard:{trial_id}:note_str:"


def note_version(trial_id: int | None) -> str:
    """Give the name of the attribute that counts the versions of a note."""
    return "dashboard:note_ver" if trial_id is None else f"dashboard:{trial_id}:note_ver"


def joined(attributes: Mapping[str, Any], prefix: str) -> str:
    """Read a text that is kept in pieces; empty where there is none."""
    pieces: list[str] = []
    while (name := f"{prefix}{len(pieces)}") in attributes:
        pieces.append(str(attributes[name]))
    return "".join(pieces)


def in_pieces(text: str, prefix: str, attributes: Mapping[str, Any]) -> dict[str, str]:
    """Cut a text into pieces; those of a longer one before become empty, because attributes cannot be removed."""
    pieces = {f"{prefix}{place // PIECE}": text[place : place + PIECE] for place in range(0, len(text), PIECE)}
    while (name := f"{prefix}{len(pieces)}") in attributes:
        pieces[name] = ""
    return pieces


def artifact_attribute(meta: ArtifactMeta, trial_id: int | None) -> tuple[str, str]:
    """Give name and value of the attribute that tells of an artifact of a study, or of one of its trials."""
    prefix = ARTIFACT if trial_id is None else f"dashboard:{ARTIFACT}{trial_id}:"
    return f"{prefix}{meta.artifact_id}", json.dumps(asdict(meta))
