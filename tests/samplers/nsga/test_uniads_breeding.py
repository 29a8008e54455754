"""Children: whose genes they have, which branches they open, how numbers move."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from optuna_kd.samplers.domains import domain_of
from optuna_kd.samplers.nsga.breeding import Breeding, breed, mutated, tournament
from optuna_kd.samplers.nsga.shrinkage import Tally
from optuna_kd.samplers.surrogate.slots import Slots

RNG = np.random.default_rng


def space(**distributions: BaseDistribution) -> tuple[Slots, dict[int, Tally]]:
    slots, tallies = Slots(), {}
    for name, distribution in distributions.items():
        domain = domain_of(distribution)
        nothing = np.zeros(domain.children, np.int64)
        tallies[slots.number(name, domain, 0)] = Tally(domain, nothing, nothing)
    return slots, tallies


def test_a_tournament_is_won_by_the_better_of_two() -> None:
    won = np.bincount(tournament(4, 16000, RNG(0)), minlength=4) / 16000
    assert won == pytest.approx([7 / 16, 5 / 16, 3 / 16, 1 / 16], abs=0.02)


def test_genes_come_from_either_parent_and_missing_ones_from_the_one_who_has_them() -> None:
    slots, tallies = space(
        gate=CategoricalDistribution(range(9)), left=FloatDistribution(0, 9), right=FloatDistribution(0, 9)
    )
    population = np.array([[0.0, 1.0, np.nan], [2.0, np.nan, 3.0]])
    children = breed(slots, population, tallies, Breeding(crossover=1, mutation=0), 4000, RNG(0))
    assert set(np.unique(children[:, 0])) == {0.0, 2.0}
    mixed = children[:, 0] == 0
    assert mixed.mean() == pytest.approx(0.75, abs=0.03)  # the first wins three tournaments of four
    # Where both parents are the same member, half of the genes that it lacks are donated, the others drawn.
    assert (children[:, 1] == 1.0).mean() > 0.8
    assert (children[:, 2] == 3.0).mean() > 0.6
    both = (children[:, 0] == 2) & (children[:, 1] == 1) & (children[:, 2] == 3)
    assert both.any()  # a child that has the genes of both branches, whichever it turns out to take


def test_without_crossover_children_are_copies_of_one_parent() -> None:
    slots, tallies = space(a=CategoricalDistribution(range(9)), b=CategoricalDistribution(range(9)))
    population = np.array([[1.0, 2.0], [3.0, 4.0]])
    children = breed(slots, population, tallies, Breeding(crossover=0, mutation=0), 200, RNG(0))
    assert {tuple(child) for child in children.tolist()} == {(1.0, 2.0), (3.0, 4.0)}


def test_one_gene_mutates_on_average() -> None:
    slots, tallies = space(**{name: CategoricalDistribution(range(5)) for name in "abcd"})
    children = breed(slots, np.zeros((1, 4)), tallies, Breeding(), 4000, RNG(0))
    assert (children != 0).sum(axis=1).mean() == pytest.approx(1.0, abs=0.06)


def test_a_choice_mutates_to_another_one_by_the_shrunken_weights() -> None:
    slots, _ = space(a=CategoricalDistribution("abc"))
    tally = Tally(slots[0].domain, np.array([0, 2, 2]), np.array([0, 0, 2]))  # weights 1/2, 3/4, 1/4
    moved = mutated(slots, 0, np.zeros(4000), tally, RNG(0))
    assert np.bincount(moved.astype(int), minlength=3) / 4000 == pytest.approx([0, 3 / 4, 1 / 4], abs=0.03)


def test_a_number_mutates_mostly_to_its_surroundings_and_never_beyond_its_range() -> None:
    slots, tallies = space(x=FloatDistribution(-1e308, 1e308), y=FloatDistribution(1, 3))
    moved = mutated(slots, 1, np.full(4000, 2.0), tallies[1], RNG(0))
    assert (moved >= 1).all()
    assert (moved <= 3).all()
    assert (np.abs(moved - 2) < 0.2).mean() > 0.5
    assert np.isfinite(mutated(slots, 0, np.full(100, 1e308), tallies[0], RNG(0))).all()
