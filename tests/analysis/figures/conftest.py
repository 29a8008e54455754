"""The kinds of studies that all figures are tried on."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from optuna.study import Study

sys.path.insert(0, str(Path(__file__).parent))
import made_up


@pytest.fixture(scope="session", params=made_up.KINDS)
def study(request: pytest.FixtureRequest) -> Study:
    """One study of each kind; figures do not change it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made_up.KINDS[request.param]()
