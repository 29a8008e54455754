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


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: str(d)[:60])
def test_a_position_leads_back_to_the_value_and_to_its_child(distribution: BaseDistribution) -> None:
    domain, rng = domain_of(distribution), np.random.default_rng(0)
    low, high = domain.bounds()
    for child in rng.permutation(domain.children)[:20]:
        internal = domain.draw(domain.cell(int(child)), rng)
        coordinate = domain.coordinate(internal)
        position = domain.position(coordinate)
        assert low <= position <= high
        assert domain.internal(position) == pytest.approx(internal, rel=1e-12)
        assert domain.nearest(np.array([position]))[0] == pytest.approx(position, rel=1e-12)
        assert domain.children_at(np.array([position]))[0] == domain.child_at(coordinate)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: str(d)[:60])
def test_any_number_has_a_nearest_position_which_is_its_own_nearest(distribution: BaseDistribution) -> None:
    domain = domain_of(distribution)
    low, high = domain.bounds()
    share = np.random.default_rng(0).uniform(-0.1, 1.1, 50)
    with np.errstate(over="ignore"):
        positions = domain.nearest((1 - share) * low + share * high)
    assert ((positions >= low) & (positions <= high)).all()
    np.testing.assert_array_equal(domain.nearest(positions), positions)
    for position in positions.tolist():
        internal = domain.internal(position)
        assert distribution._contains(distribution.to_internal_repr(distribution.to_external_repr(internal)))


@pytest.mark.parametrize(
    "distribution", [IntDistribution(-3, 30, step=3), FloatDistribution(-1, 1, step=0.25), IntDistribution(2, 17)]
)
def test_the_nearest_position_is_the_nearest(distribution: BaseDistribution) -> None:
    domain = domain_of(distribution)
    assert isinstance(domain, Grid)
    existing = np.array([domain.position(index) for index in range(domain.count)])
    wishes = np.random.default_rng(0).uniform(-40, 40, 300)
    distances = np.abs(wishes[:, None] - existing)
    np.testing.assert_allclose(np.abs(domain.nearest(wishes) - wishes), distances.min(axis=1))


def test_the_nearest_of_a_logarithmic_range_is_that_of_the_value() -> None:
    domain = domain_of(IntDistribution(1, 1000, log=True))
    np.testing.assert_allclose(np.exp(domain.nearest(np.log([1.4, 1.6, 700.4, 2000]))), [1, 2, 700, 1000])
    assert domain.bounds() == (0.0, pytest.approx(np.log(1000)))


def test_positions_can_be_compared_between_ranges_of_one_parameter() -> None:
    for narrow, wide in (
        (IntDistribution(3, 9), IntDistribution(0, 100)),
        (FloatDistribution(3, 9, step=0.5), FloatDistribution(0, 100)),
        (IntDistribution(3, 9, log=True), FloatDistribution(1, 100, log=True)),
    ):
        positions = [domain.position(domain.coordinate(4.0)) for domain in (domain_of(narrow), domain_of(wide))]
        assert positions[0] == pytest.approx(positions[1])


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
