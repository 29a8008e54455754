"""Made-up studies, as the figures have them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass
