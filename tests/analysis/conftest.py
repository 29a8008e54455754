"""What the tests of the analysis share."""

from __future__ import annotations

import pytest

from optuna_kd.analysis import importance, marginals


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Average over fewer recipes: quicker, and rougher; what the trials leave plausible is the same."""
    monkeypatch.setattr(marginals, "_RECIPES", (32,))
    monkeypatch.setattr(importance, "_POINTS", 512)
