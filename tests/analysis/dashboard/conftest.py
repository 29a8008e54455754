"""Studies to publish: those that all figures are tried on."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from optuna.study import Study

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "figures")]
import made_up  # noqa: E402


@pytest.fixture(params=made_up.KINDS)
def study(request: pytest.FixtureRequest) -> Study:
    """One study of each kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made_up.KINDS[request.param]()
