"""What stock optuna-dashboard shows of a study: our figures as cards, notes, artifacts; and opening it.

Everything is written into the study's storage in the dashboard's own format: whoever opens it with stock
optuna-dashboard sees it, with nothing else installed. Nothing here imports torch; plotly is imported when something is
published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_kd.lazy import lazily

if TYPE_CHECKING:
    from optuna_kd.analysis.dashboard.artifacts import ARTIFACTS, ArtifactFolder, upload_results
    from optuna_kd.analysis.dashboard.publisher import Publisher
    from optuna_kd.analysis.dashboard.publishing import publish
    from optuna_kd.analysis.dashboard.serving import serve_dashboard

__all__ = ["ARTIFACTS", "ArtifactFolder", "Publisher", "publish", "serve_dashboard", "upload_results"]

_HOMES = {
    "ARTIFACTS": "artifacts",
    "ArtifactFolder": "artifacts",
    "Publisher": "publisher",
    "publish": "publishing",
    "serve_dashboard": "serving",
    "upload_results": "artifacts",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
