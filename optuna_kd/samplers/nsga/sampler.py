"""UniADS's search over students and how to teach them, as an Optuna sampler for any conditional space."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import domain_of
from optuna_kd.samplers.guided import GuidedSampler
from optuna_kd.samplers.nsga.breeding import Breeding
from optuna_kd.samplers.nsga.guide import Guide, Settings
from optuna_kd.samplers.nsga.shrinkage import rows_of
from optuna_kd.seeds import derive_seed


class UniADSSampler(GuidedSampler[Guide]):
    """Evolutionary sampler for conditional spaces with one or several objectives (UniADS's use of NSGA-II).

    Parents are chosen by binary tournament among the best `population_size` of all judged trials: feasible before
    infeasible ones, complete before pruned ones, then by non-dominated front and crowding distance. A child takes
    each gene from one of two parents, also the genes of branches; a mutation can open or close one. Options that
    keep failing are drawn less and less: the search space shrinks (see `shrinkage`).

    Paper: every child is trained. Here: of many children the one with the highest expected hypervolume improvement
    is, as predicted by a Gaussian process over whole paths for each objective, because that finds in 100 trials
    what the evolution alone finds in 400 (`benchmarks/pareto_gauge.py`); `screening=False` is the paper's way.
    Paper: generations. Here: each trial has the best so far for parents, so that no worker waits for another.

    Pruned trials count: by what they reported at their last rung, to the user attribute "rung_values"
    (`optuna_kd.pruners.report` writes it), or as intermediate values where there is one objective. Constraints of
    `trial.set_constraint` are honoured. Objectives that span orders of magnitude (bytes, parameters) are compared by
    their logarithms where the study says so: ``study.set_user_attr("optuna_kd_log_objectives", [1])`` for the second
    one, before the first trial. All state comes from the study's storage: any process that opens the study
    goes on where the last one stopped, and the plan of a trial, made when its first parameter is asked for, depends
    only on the seed, the trial number and the trials in the storage. In a space of choices and short ranges nothing
    is repeated before all that is known has been tried.

    Args:
        seed: Seed of all draws. None: a random one, drawn when the sampler is made.
        population_size: Members of the population. None: a fifth of the trials, at least 12, if the study's user
            attribute "optuna_kd_total_trials" tells how many there will be; else 20.
        startup_trials: Judged trials before there are children; these are drawn at random from the shrunken space.
            None: a population of them, with screening no more than 10.
        screening: Whether surrogates choose among the children.
        children: How many they choose among at first; the best of these are bred twice more.
        crossover_prob: Probability that a child has two parents.
        swapping_prob: Probability of each gene to come from the second parent.
        mutation_prob: Probability of each gene to change. None: 1 / (number of the first parent's genes).

    Raises:
        TypeError: For a seed or a number that is not an integer.
        ValueError: For an argument out of its range.

    Example:
        >>> import optuna
        >>> def objective(trial):
        ...     depth = trial.suggest_int("depth", 1, 7, step=2)
        ...     if trial.suggest_categorical("distance", ["kl", "l2"]) == "kl":
        ...         return trial.suggest_float("temperature", 1, 8, log=True) + 1 / depth, depth
        ...     return 2.0 + 1 / depth, depth
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(directions=["minimize", "minimize"], sampler=UniADSSampler(seed=0))
        >>> study.optimize(objective, n_trials=40)
        >>> sorted({trial.params["depth"] for trial in study.best_trials})
        [1, 3, 5, 7]
    """

    _new_guide = Guide

    def __init__(
        self,
        seed: int | None = None,
        *,
        population_size: int | None = None,
        startup_trials: int | None = None,
        screening: bool = True,
        children: int = 64,
        crossover_prob: float = 0.9,
        swapping_prob: float = 0.5,
        mutation_prob: float | None = None,
    ) -> None:
        super().__init__(seed)
        self._settings = Settings(
            population_size=None if population_size is None else _at_least(2, "population_size", population_size),
            startup_trials=None if startup_trials is None else _at_least(1, "startup_trials", startup_trials),
            children=_at_least(1, "children", children) if screening else 0,
            breeding=Breeding(
                crossover=_probability("crossover_prob", crossover_prob),
                swapping=_probability("swapping_prob", swapping_prob),
                mutation=None if mutation_prob is None else _probability("mutation_prob", mutation_prob),
            ),
        )

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing; see `infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Choose the value of one parameter, given those that the trial already has."""
        domain = domain_of(param_distribution)
        rng = np.random.default_rng(derive_seed(self._seed, self._number(trial), f"uniads/{param_name}"))
        if param_distribution.single():
            internal = domain.draw(domain.cell(None), rng)
        else:
            with self._lock:
                internal = self._guide_of(study).suggest(study, trial, param_name, domain, rng, self._settings)
        return param_distribution.to_external_repr(internal)

    @staticmethod
    def shrinkage(study: Study) -> dict[str, list[dict[str, Any]]]:
        """Tell what became of the options of every parameter of a study, whichever sampler made its trials.

        Returns:
            By parameter, in the order of their names, a dict for each option:

            - option: The choice or the value; an interval of a longer range is a text.
            - visits: Finished trials that took it.
            - failures: Those of them that failed, were pruned, or stand in the lower half.
            - weight: max(0.05, (1 + visits - failures) / (2 + visits)).

            The probability of the next random draws is proportional to it (for an interval, also to its width).
        """
        guide = Guide()
        guide.view.refresh(study)
        slots, tallies = guide.view.log.slots, guide.tallies()
        return {
            slots[column].name: rows_of(tallies[column], guide.view.distributions[slots[column].name])
            for column in slots.canonical
        }


def _at_least(least: int, name: str, value: int) -> int:
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    return number


def _probability(name: str, value: float) -> float:
    if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must be a probability from 0 to 1; got {value!r}.")
    return float(value)
