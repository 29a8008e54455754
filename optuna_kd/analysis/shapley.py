"""How much of the variance of a function over a conditional space each parameter explains.

Let U be the independent uniform shares of all parameters (`space`), f(U) the value of the recipe they lead to, and
c(S) = Var(E[f | U_S]) the variance explained by a set S of parameters. The importance of parameter p is

    V_p = E_π[c(S_π(p) ∪ {p}) − c(S_π(p))],

with S_π(p) what stands before p in an order π. The orders: gates (parameters that decide whether others exist) come
before what depends on them, and otherwise all are equal. Precisely, each parameter hangs below the last of its gates,
and π walks through this forest from the roots down, siblings in random order, each with all that hangs below it.

- Σ_p V_p = Var f: nothing is left over, and nothing counts twice.
- A parameter that f ignores, and that decides about nothing, has V_p = 0.
- Because the gates of p come first, V_p = P(p exists) · E[explained by p | p exists]: a parameter of one branch
  counts by how often that branch is there, and by what it explains inside. What p explains is never credited to its
  gate, nor the gate's to p.
- Interactions between parameters that do not depend on each other are shared equally; in a space without conditions
  these are the Shapley effects (Owen 2014; Song, Nelson and Staum 2016), and for a sum of functions of one parameter
  each the first-order indices of Sobol (1993), which fANOVA (Hutter, Hoos and Leyton-Brown 2014) estimates.

Parents before children is the asymmetric Shapley value (Frye, Rowat and Feige 2020); a gate and all that hangs below
it as one block is the value of Owen (1977) and Winter (1989) for nested coalitions: so the share of a parameter does
not depend on how many others hang below the gates beside it.

Estimated as Goda (2021) does: with U and U' independent, and Z_k equal to U in the first k parameters of π and to U'
in the others, the k-th parameter explains E[(f(U) − (f(Z_k) + f(Z_{k−1})) / 2) (f(Z_k) − f(Z_{k−1}))].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """The points at which a function has to be known.

    Args:
        shares: [pairs * (parameters + 1), parameters]; of each pair first all of U', last all of U.
        ranks: The place of each parameter in the order of each pair; [pairs, parameters].
    """

    shares: Array
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, gates: NDArray[np.bool_], ones: Array, others: Array, rng: np.random.Generator) -> Design:
        """Lead from each of some points to its partner, one parameter after the other, each pair in its own order.

        Args:
            gates: Whether the row decides about the existence of the column; [parameters, parameters].
            ones: U; [pairs, parameters].
            others: U'; [pairs, parameters].
            rng: The source of the orders.
        """
        pairs, count = ones.shape
        ranks = random_ranks(gates, pairs, rng)
        first = ranks[:, None, :] < np.arange(count + 1)[None, :, None]
        shares = np.where(first, ones[:, None, :], others[:, None, :])
        return cls(shares.reshape(-1, count), ranks)

    def explained(self, values: Array) -> Array:
        """Estimate what each parameter explains.

        Args:
            values: Of one or several functions at `shares`; [points, functions].

        Returns:
            Of each pair; the mean over pairs is the estimate; [pairs, parameters, functions].
        """
        pairs, count = self.ranks.shape
        along = values.reshape(pairs, count + 1, -1)
        before, after = along[:, :-1], along[:, 1:]
        gained = (along[:, -1:] - (before + after) / 2) * (after - before)
        return np.take_along_axis(gained, self.ranks[:, :, None], axis=1)


def random_ranks(gates: NDArray[np.bool_], orders: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw orders in which each parameter comes after its gates, and close to the last of them.

    Args:
        gates: Whether the row decides about the existence of the column, and so comes before it; [parameters,
            parameters].
        orders: How many.
        rng: The source of all draws.

    Returns:
        The place of each parameter; [orders, parameters].
    """
    count = len(gates)
    levels = _levels(gates)
    below: dict[int, list[int]] = {}
    for parameter in range(count):
        above = np.flatnonzero(gates[:, parameter])
        below.setdefault(int(above[np.argmax(levels[above])]) if len(above) else -1, []).append(parameter)
    downwards = sorted(below.keys() - {-1}, key=lambda parent: levels[parent])
    sizes = np.ones(count)  # of each parameter with all that hangs below it
    for parent in reversed(downwards):
        sizes[parent] += sizes[below[parent]].sum()
    places = np.zeros((orders, count))
    for parent in (-1, *downwards):
        children = np.array(below.get(parent, ()), np.int64)
        turns = np.argsort(rng.random((orders, len(children))), axis=1)
        taken = np.cumsum(sizes[children][turns], axis=1) - sizes[children][turns]
        begin = places[:, [parent]] + 1 if parent >= 0 else 0.0
        places[np.arange(orders)[:, None], children[turns]] = begin + taken
    for parameter in np.argsort(levels, kind="stable").tolist():
        # With a gate in another block it waits for that one.
        for gate in np.flatnonzero(gates[:, parameter]):
            places[:, parameter] = np.maximum(places[:, parameter], places[:, gate] + 0.5 / count)
    ranks: NDArray[np.int64] = np.argsort(np.argsort(places, axis=1, kind="stable"), axis=1)
    return ranks


def _levels(gates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the gates on the longest way to each parameter."""
    levels = np.zeros(len(gates), np.int64)
    for _ in range(len(gates)):
        levels = np.where(gates, levels[:, None] + 1, 0).max(axis=0, initial=0)
    return levels
