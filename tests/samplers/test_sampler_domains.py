"""How distributions are cut: every piece holds values, and values find their piece again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from optuna_kd.samplers.domains import Cell, Domain, Grid, domain_of

DISTRIBUTIONS = [
    CategoricalDistribution(["a", None, 3, float("nan")]),
    CategoricalDistribution(list(range(3000))),
    IntDistribution(-3, 4),
    IntDistribution(0, 15),
    IntDistribution(0, 16),
    IntDistribution(-1000, 995, step=7),
    IntDistribution(1, 100, log=True),
    IntDistribution(1, 2**40, log=True),
    IntDistribution(0, 2**60),
    FloatDistribution(-10.2, 10.2, step=0.1),
    FloatDistribution(0.0, 1.0, step=0.25),
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-7, 10, log=True),
    FloatDistribution(-1.5e308, 1.5e308),
    FloatDistribution(1.0, float(np.nextafter(1.0, 2.0))),
]


def assert_finds_its_values(distribution: BaseDistribution, rng: np.random.Generator) -> None:
    domain = domain_of(distribution)
    for child in rng.permutation(domain.children)[:20]:
        internal = domain.draw(domain.cell(int(child)), rng)
        assert distribution._contains(distribution.to_internal_repr(distribution.to_external_repr(internal)))
        found = domain.child_at(domain.coordinate(internal))
        # Two neighbours of a continuous range share one point, the bound between them.
        assert found == child or (not isinstance(distribution, IntDistribution) and abs(found - child) == 1)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: str(d)[:60])
def test_values_drawn_for_a_child_are_valid_and_belong_to_it(distribution: BaseDistribution) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert_finds_its_values(distribution, rng)


@given(low=st.integers(1, 10**6), width=st.integers(0, 10**6), log=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_integer_pieces_are_never_empty_and_cover_the_range(low: int, width: int, log: bool, seed: int) -> None:
    distribution = IntDistribution(low, low + width, log=log)
    domain = domain_of(distribution)
    assert_finds_its_values(distribution, np.random.default_rng(seed))
    cells = [domain.cell(child) for child in range(domain.children)]
    assert cells[0].low == 0
    assert cells[-1].high == width
    assert all(cell.low <= cell.high for cell in cells)
    assert all(after.low == before.high + 1 for before, after in itertools.pairwise(cells))


def leaves(domain: Domain, cell: Cell) -> list[Cell]:
    halves = domain.halves(cell)
    return [cell] if halves is None else [leaf for half in halves for leaf in leaves(domain, half)]


@pytest.mark.parametrize("log", [False, True])
def test_halving_ends_at_each_single_value_once(log: bool) -> None:
    domain = domain_of(IntDistribution(1, 40, log=log))
    assert [cell.low for cell in leaves(domain, domain.cell(None))] == list(range(40))


def test_logarithmic_pieces_have_equal_ratios() -> None:
    domain = domain_of(FloatDistribution(1e-4, 1e4, log=True))
    widths = [domain.cell(child).high - domain.cell(child).low for child in range(domain.children)]
    np.testing.assert_allclose(widths, np.log(10.0))


def test_short_ranges_branch_by_value_and_long_ones_by_interval() -> None:
    assert domain_of(IntDistribution(0, 15)).children == 16
    assert domain_of(IntDistribution(0, 16)).children == 8
    assert domain_of(FloatDistribution(0, 1)).children == 8


def test_a_value_from_outside_is_taken_to_the_nearest_child() -> None:
    domain = domain_of(IntDistribution(0, 100))
    assert isinstance(domain, Grid)
    assert domain.child_at(domain.coordinate(-5)) == 0
    assert domain.child_at(domain.coordinate(500)) == domain.children - 1


def test_uniform_draws_are_uniform() -> None:
    domain, rng = domain_of(IntDistribution(0, 99)), np.random.default_rng(0)
    drawn = [domain.draw(domain.cell(None), rng) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(49.5, abs=2)
    assert {0, 99} <= set(drawn)


def test_an_unknown_distribution_is_refused() -> None:
    class Odd(BaseDistribution):
        def to_internal_repr(self, value: object) -> float:
            return 0.0

        def single(self) -> bool:
            return False

        def _contains(self, value: float) -> bool:
            return True

    with pytest.raises(TypeError, match="categorical, int and float"):
        domain_of(Odd())
