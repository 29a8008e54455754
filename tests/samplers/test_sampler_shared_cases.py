"""The test cases that Optuna ships for third-party samplers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase

from optuna_kd.samplers import MCTSSampler


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")  # some change the space as they go
class TestMCTSSampler(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self, selection: str) -> Callable[[], optuna.samplers.BaseSampler]:
        return functools.partial(MCTSSampler, selection=selection)
