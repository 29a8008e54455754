"""Children of a population over a conditional space: crossover gene by gene, and mutation.

A child is a wish for every parameter of the space, also for those that it will turn out not to have: which genes
are asked for is known only once the gates before them are decided. A gene that one parent has is inherited from it;
one that neither has comes from another member of the population that has it, or from the shrunken space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optuna_kd.samplers.nsga.shrinkage import Tally
from optuna_kd.samplers.surrogate.slots import Slots

_DONATED = 0.5  # how often a gene that neither parent has comes from another member of the population
_STEPS = (0.02, 0.3)  # how far a number moves, in ranges
_REDRAWN = 0.2  # how often a number that mutates is drawn anew instead

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Breeding:
    """How children are made.

    Args:
        crossover: Probability that a child has two parents.
        swapping: Probability of a gene to come from the second parent.
        mutation: Probability of a gene to change; None: 1 / (number of the first parent's genes).
    """

    crossover: float = 0.9
    swapping: float = 0.5
    mutation: float | None = None


def breed(
    slots: Slots,
    population: Array,
    tallies: Mapping[int, Tally],
    breeding: Breeding,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Make children.

    Args:
        slots: The parameters.
        population: Positions of the members, the best first, NaN where they lack a parameter; [members, slots].
        tallies: The shrunken space, by slot.
        breeding: How.
        count: Number of children.
        rng: The source of all draws.

    Returns:
        A position for every parameter of every child; [children, slots].
    """
    first, second = (tournament(len(population), count, rng) for _ in range(2))
    alone = rng.random(count) >= breeding.crossover
    children = population[first]
    others = population[second]
    active = np.maximum((~np.isnan(children)).sum(axis=1), 1)
    for column in slots.canonical:
        swapped = (rng.random(count) < breeding.swapping) & ~alone
        gene = np.where(swapped, others[:, column], children[:, column])
        lacking = np.isnan(gene) & ~alone
        gene[lacking] = np.where(swapped, children[:, column], others[:, column])[lacking]
        lacking = np.isnan(gene)
        if lacking.any():
            gene[lacking] = _from_elsewhere(population[:, column], tallies[column], int(lacking.sum()), rng)
        mutating = rng.random(count) < (1 / active if breeding.mutation is None else breeding.mutation)
        if mutating.any():
            gene[mutating] = mutated(slots, column, gene[mutating], tallies[column], rng)
        children[:, column] = gene
    return children


def tournament(members: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose members by binary tournament: of two, the one that stands before the other."""
    return rng.integers(members, size=(2, count)).min(axis=0)


def mutated(slots: Slots, column: int, positions: Array, tally: Tally, rng: np.random.Generator) -> Array:
    """Change a gene: another option by the shrunken weights, a Gaussian step of a number, or a new draw of it."""
    low, high = slots[column].domain.bounds()
    count = len(positions)
    if slots[column].is_categorical:
        weights = np.repeat(tally.probabilities[None, :], count, axis=0)
        if weights.shape[1] > 1:
            weights[np.arange(count), positions.astype(np.int64)] = 0.0
        cumulated = np.cumsum(weights, axis=1)
        targets = rng.random(count) * cumulated[:, -1]
        return (cumulated <= targets[:, None]).sum(axis=1).astype(float)
    smallest, largest = _STEPS
    steps = smallest * (largest / smallest) ** rng.random(count) * rng.normal(size=count)
    with np.errstate(over="ignore"):  # the widest ranges: infinity is cut off like anything beyond the ends
        moved = np.clip(positions + steps * high - steps * low, low, high)
    redrawn = rng.random(count) < _REDRAWN
    return np.where(redrawn, tally.draw(count, rng), moved)


def _from_elsewhere(column: Array, tally: Tally, count: int, rng: np.random.Generator) -> Array:
    drawn = tally.draw(count, rng)
    donors = column[~np.isnan(column)]
    if not len(donors):
        return drawn
    donated = donors[rng.integers(len(donors), size=count)]
    return np.where(rng.random(count) < _DONATED, donated, drawn)


def from_space(slots: Slots, tallies: Mapping[int, Tally], count: int, rng: np.random.Generator) -> Array:
    """Draw from the shrunken space; [count, slots]."""
    wishes = np.empty((count, len(slots)))
    for column in slots.canonical:
        wishes[:, column] = tallies[column].draw(count, rng)
    return wishes
