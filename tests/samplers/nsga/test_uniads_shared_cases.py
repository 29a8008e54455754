"""The test cases that Optuna ships for third-party samplers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from optuna_kd.samplers import UniADSSampler


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
class TestUniADSSampler(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture(params=[True, False], ids=["screening", "plain"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], optuna.samplers.BaseSampler]:
        return functools.partial(UniADSSampler, screening=request.param)
