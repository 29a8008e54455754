"""Which parameters matter, in spaces where some exist only in a part: overall, inside their branch, by objective.

The importance of a parameter is the share of the variance of the noise-free objective that it explains, over the
space's own uniform distribution, not over the visited points: `shapley` has the definition, `space` the distribution,
`response` the functions that the trials leave plausible. Each of them has its own shares: the importance is their
mean, the interval what nine tenths of them lie in.

It is a fact about the whole space. PED-ANOVA (Watanabe, Bansal and Hutter 2023, and its conditional form, the default
of Optuna 5) asks another question: what is it that the best trials have in common. What matters only in a branch that
never gets good has no importance there, and some here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from optuna.importance import BaseImportanceEvaluator
from optuna.study import Study

from optuna_kd.analysis.branches import Branch, Condition, conditions_of
from optuna_kd.analysis.response import Response, interval_of, response_of
from optuna_kd.analysis.shapley import Design
from optuna_kd.analysis.table import Target, TrialTable, read_table

# No function drawn takes an effect to be exactly 0: less than this share cannot be told from none.
RESOLUTION = 0.01

Array = NDArray[np.float64]

_POINTS = 8192  # at which each kernel's functions are looked at
_PAIRS = (64, 1024)
_explained: WeakKeyDictionary[Response, tuple[Array, Array, Array]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Importance:
    """What one parameter explains.

    Args:
        parameter: Its name.
        share: Of the variance; all parameters together explain 1, or 0 where all trials are worth the same.
        low: Where the 90 % interval of the share begins; 0 where it would begin below 1 %.
        high: Where it ends.
        presence: How often a uniform draw has the parameter; 1 where it is not conditional.
        inside: Its share of the variance among the recipes that have it. `share` is `inside` times `presence` times
            their variance, divided by that of all.
        inside_low: Where the 90 % interval of that begins.
        inside_high: Where it ends.
        visits: Trials that have the parameter, pruned ones included.
        branch: Where it exists: what the gates on the way have to be; empty where it always does.
    """

    parameter: str
    share: float
    low: float
    high: float
    presence: float
    inside: float
    inside_low: float
    inside_high: float
    visits: int
    branch: tuple[Condition, ...]


def importances(
    source: Study | TrialTable | Response,
    objective: int | str | None = None,
    *,
    within: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> tuple[Importance, ...]:
    """Tell what each parameter explains, the most important first.

    Args:
        source: A study, its table, or the response fitted to it (to look at it in several ways at the price of one).
        objective: Place or name of the objective; None is the only one.
        within: Options of gates, such as {"method": "kl"}: only the branch where they hold is looked at. How it was
            entered is taken as given: the variance left is shared among the parameters that do not decide about that.
        seed: Of the random draws.

    Raises:
        ValueError: For an unknown objective, and for a branch that does not exist.

    Example:
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=20)
        >>> importances(study)[0].parameter
        'x'
    """
    response = response_of(source, objective, seed=seed)
    space, table = response.space, response.table
    branch = Branch(space, table, within or {})
    kept = np.flatnonzero(~branch.entry).tolist()
    if not kept:
        return ()
    explained, variance, presence = _explain(response, branch) if within else _explain_all(response)
    shares = _ratio(explained, explained.sum(axis=0))
    # Of one that is always there both are the same; let them be so to the last digit.
    inside = np.where(presence[:, None] < 1, _ratio(explained, presence[:, None] * variance), shares)
    visited = branch.holds(space.paths.positions)
    visits = (~np.isnan(space.paths.positions[visited])).sum(axis=0)
    rows = [
        Importance(
            space.names[place],
            float(shares[place].mean()),
            *_interval(shares[place]),
            float(presence[place]),
            float(inside[place].mean()),
            *_interval(inside[place]),
            int(visits[place]),
            conditions_of(space, table, space.names[place]),
        )
        for place in kept
        if presence[place] > 0 or not within
    ]
    return tuple(sorted(rows, key=lambda row: (-row.share, row.parameter)))


def drawn_shares(response: Response) -> dict[str, Array]:
    """Give the share of the variance that each parameter explains, in each plausible function; [functions]."""
    explained, _, _ = _explain_all(response)
    return dict(zip(response.space.names, _ratio(explained, explained.sum(axis=0)), strict=True))


class ConditionalImportanceEvaluator(BaseImportanceEvaluator):
    """`importances` for `optuna.importance.get_param_importances` and the plots that take an evaluator.

    Conditional parameters are assessed, and pruned trials count. With `target` only complete trials count, for a
    target is computed from what these have. In a study of several objectives, without a target and an objective, it
    is the mean over the objectives.

    Args:
        objective: Place or name of the objective; None: the only one, or the mean of all.
        seed: Of the random draws.

    Example:
        >>> evaluator = ConditionalImportanceEvaluator()
        >>> optuna.importance.get_param_importances(study, evaluator=evaluator)
    """

    def __init__(self, *, objective: int | str | None = None, seed: int = 0) -> None:
        self.objective, self.seed = objective, seed

    def evaluate(
        self, study: Study, params: list[str] | None = None, *, target: Target | None = None
    ) -> dict[str, float]:
        """Give the share of the variance that each parameter explains, the highest first.

        Args:
            study: The study.
            params: The parameters to assess; None is all of them.
            target: Instead of the objective.

        Raises:
            TypeError: If `params` is not a list of names.
            ValueError: For a parameter that no usable trial has.
        """
        if params is not None and (
            not isinstance(params, list | tuple) or any(not isinstance(name, str) for name in params)
        ):
            raise TypeError(f"params must be a list of parameter names; got {params!r}.")
        table = read_table(study, None if target else self.objective, target=target)
        wanted = list(table.parameters) if params is None else params
        if unknown := [name for name in wanted if name not in table.parameters]:
            known = ", ".join(table.parameters) or "none"
            raise ValueError(
                f"No usable trial of the study {study.study_name!r} has the parameters {unknown}. Known: {known}."
            )
        shares: dict[str, float] = defaultdict(float)
        for objective in range(len(table.objectives)) if wanted else ():
            for row in importances(Response(table, objective, seed=self.seed)):
                shares[row.parameter] += row.share / len(table.objectives)
        return {name: shares[name] for name in sorted(wanted, key=lambda name: -shares[name])}


def _explain_all(response: Response) -> tuple[Array, Array, Array]:
    """Look at the functions in the whole space, once: importance, guidance and rules ask for the same."""
    if response not in _explained:
        _explained[response] = _explain(response, Branch(response.space, response.table, {}))
    return _explained[response]


def _explain(response: Response, branch: Branch) -> tuple[Array, Array, Array]:
    """Look at all functions at the points of designs, one for each kernel.

    Returns:
        What each parameter explains of the variance of each function, [parameters, functions]; the variance among the
        recipes that have the parameter, likewise; how often recipes have it, [parameters].
    """
    space, rng = response.space, response.rng(1)
    pairs = int(np.clip(2 ** int(np.log2(_POINTS / (len(space) + 1))), *_PAIRS))
    if not response.worlds:
        ones, _ = branch.pairs(pairs, rng)
        nothing = np.zeros((len(space), 1))
        return nothing, nothing, (~np.isnan(space.at(ones).positions)).mean(axis=0)
    explained, variances, presence = [], [], []
    for world in response.worlds:
        ones, others = branch.pairs(pairs, rng)
        design = Design.of(space.gates, ones, others, rng)
        paths = space.at(design.shares)
        values = world.standard(paths)
        explained.append(np.maximum(design.explained(values).mean(axis=0), 0.0))
        ends = np.concatenate([values[:: len(space) + 1], values[len(space) :: len(space) + 1]])
        active = ~np.isnan(space.at(np.concatenate([others, ones])).positions)
        presence.append(active.mean(axis=0))
        variances.append([ends[there].var(axis=0) if there.any() else 0 * ends[0] for there in active.T])
    return np.concatenate(explained, axis=1), np.concatenate(variances, axis=1), np.mean(presence, axis=0)


def _ratio(parts: Array, whole: Array) -> Array:
    """Divide; nothing of nothing is nothing, and no part is more than the whole."""
    whole = np.broadcast_to(whole, parts.shape)
    return np.minimum(np.divide(parts, whole, out=np.zeros(parts.shape), where=whole > 0), 1.0)


def _interval(draws: Array) -> tuple[float, float]:
    low, high = interval_of(draws)
    return (low if low >= RESOLUTION else 0.0), high
