"""Monte Carlo tree search over any define-by-run Optuna space (Auto-KD, section 2.2).

One trial is one iteration of the search, spread over the trial's life:

1. selection: while parameters are suggested, walk down the tree of earlier trials;
2. expansion: enter a child that no trial has visited;
3. simulation: go on to a leaf, and let the objective train and score the trial;
4. backpropagation: once finished, the trial's reward counts for every node on its path.

With the surrogate (the default) selection and simulation are one: see `optuna_kd.samplers.surrogate`. With a rule
such as UCT the walk goes by the visits and rewards of the children alone, and below the tree by chance.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_kd.samplers.domains import Domain, domain_of
from optuna_kd.samplers.guided import GuidedSampler
from optuna_kd.samplers.selection import SelectionRule, SurrogateSearch, resolve_rule
from optuna_kd.samplers.surrogate.guide import Guide
from optuna_kd.samplers.tree import path_of
from optuna_kd.samplers.view import StudyView
from optuna_kd.samplers.visits import Visits, open_children
from optuna_kd.seeds import derive_seed

_REFINE_AFTER = 4  # visits of an interval before it is searched by halves


class MCTSSampler(GuidedSampler[Guide]):
    """Sampler for conditional search spaces: a tree search guided by a surrogate, or the paper's UCT (eq. 2).

    By default each trial follows the best of many walks simulated down the tree, with a Gaussian process over
    whole paths in place of the objective. It shares evidence between branches that use the same option, and tells
    branches apart where that explains more. Paper: upper confidence bounds of the visits of each node; that is
    ``selection="uct"``, which needs more trials for the same result (`benchmarks/sampler_gauge.py`).

    Conditional parameters need no declaration: the tree follows what the objective suggests. With UCT, longer and
    continuous ranges branch into intervals, and an interval visited often is searched by halves.

    All state comes from the study's storage: any process that opens the study goes on where the last one
    stopped, and the plan of a trial, made when its first parameter is asked for, depends only on the seed, the trial
    number and the finished trials, as long as no other trial runs: of those, a process also knows the plans that it
    made itself. Parallel workers may share a seed; unfinished trials count as if they had earned what is expected
    of them, so that workers spread. Failed and pruned trials count too; see `optuna_kd.samplers.evidence`.

    In a space of choices and short ranges nothing is repeated before all that is known has been tried.

    Args:
        seed: Seed of all draws. None: a random one, drawn when the sampler is made.
        selection: "surrogate", "uct", or e.g. ``SurrogateSearch(startup_trials=8)``, ``UCT(exploration=1.0)``, or
            a rule of your own.

    Raises:
        UnknownNameError: For an unknown name of a rule.
        ValueError: When used in a study with several objectives.

    Example:
        >>> import optuna
        >>> def objective(trial):
        ...     if trial.suggest_categorical("distance", ["kl", "l2"]) == "kl":
        ...         return trial.suggest_float("temperature", 1, 8, log=True)
        ...     return 0.0
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(direction="maximize", sampler=MCTSSampler(seed=0))
        >>> study.optimize(objective, n_trials=20)
        >>> study.sampler.recommend(study).params["distance"]
        'kl'
    """

    _new_guide = Guide

    def __init__(
        self, seed: int | None = None, *, selection: str | SelectionRule | SurrogateSearch = "surrogate"
    ) -> None:
        super().__init__(seed)
        self._rule = resolve_rule(selection)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing; raises ValueError in a study with several objectives."""
        _check_single_objective(study)
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Choose the value of one parameter, given those that the trial already has."""
        _check_single_objective(study)
        domain = domain_of(param_distribution)
        rng = np.random.default_rng(derive_seed(self._seed, self._number(trial), f"mcts/{param_name}"))
        if param_distribution.single():
            internal = domain.draw(domain.cell(None), rng)
        else:
            with self._lock:
                guide = self._guide_of(study)
                if isinstance(self._rule, SurrogateSearch):
                    internal = guide.suggest(study, trial, param_name, domain, rng, self._rule.startup_trials)
                else:
                    guide.read(study, trial, path_of(trial), param_name, domain)
                    internal = self._choose(guide.view, trial, param_name, domain, rng, self._rule)
        return param_distribution.to_external_repr(internal)

    def recommend(self, study: Study) -> FrozenTrial:
        """Name the trial to trust: the complete one with the highest expected reward; of its repeats, the best.

        Raises:
            ValueError: As `expect`.
        """
        expected = self.expect(study)
        sign = -1.0 if study.direction is StudyDirection.MINIMIZE else 1.0

        def worth(trial: FrozenTrial) -> tuple[float, float, int]:
            assert trial.value is not None
            return expected[trial.number], sign * trial.value, -trial.number

        complete = (trial for trial in study.get_trials(deepcopy=False) if trial.number in expected)
        return copy.deepcopy(max(complete, key=worth))

    def expect(self, study: Study) -> dict[int, float]:
        """Give the expected reward of each complete trial, by number: 0 is the worst of the study, 1 the best.

        It is the surrogate's posterior mean: what all trials together say about a recipe, without the luck of
        its own. With another selection it is the mean over the repeats of a trial's parameters.

        Raises:
            ValueError: If no trial is complete, or for a study with several objectives.
        """
        _check_single_objective(study)
        with self._lock:
            guide = self._guide_of(study)
            return guide.expect(study) if isinstance(self._rule, SurrogateSearch) else guide.average(study)

    @staticmethod
    def tree(study: Study) -> dict[str, Any]:
        """Return the tree of a study as plain data, whichever sampler made its trials.

        Returns:
            The root. Each node is a dict of:

            - path: [parameter, choice] of each step from the root; an interval of numbers is a text.
            - visits: Finished trials that passed it: complete, pruned and failed ones.
            - reward: Their mean reward, from 0 for the worst of the study to 1 for the best.
            - value: The mean objective value of the complete ones; None without any.
            - surrogate_mean: The mean over them of what the surrogate expects, without noise; a reward.
            - surrogate_sd: The root mean square of the surrogate's standard deviations for them; a reward.
            - children: The nodes below it that were visited.

        Raises:
            ValueError: For a study with several objectives.
        """
        _check_single_objective(study)
        return Guide().tree(study)

    def _choose(
        self,
        view: StudyView,
        trial: FrozenTrial,
        name: str,
        domain: Domain,
        rng: np.random.Generator,
        rule: SelectionRule,
    ) -> float:
        path = path_of(trial)
        finished = view.finished.split_at(path, name, domain)
        running = view.running.split_at(path, name, domain)
        if finished is None and running is None:
            return domain.draw(domain.cell(None), rng)  # simulation

        visits = Visits.of(finished, running, view.rewards)
        choosable = open_children(finished, running, domain.children)
        child = rule(visits.statistics(domain.children, choosable), rng)
        cell, visits = domain.cell(child), visits.through(child)
        while len(visits.children) >= _REFINE_AFTER and (halves := domain.halves(cell)):
            visits = visits.divided(at=halves[1].low)
            half = rule(visits.statistics(2), rng)
            cell, visits = halves[half], visits.through(half)
        return domain.draw(cell, rng)


def _check_single_objective(study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            f"MCTSSampler backs up one reward, but the study has {len(study.directions)} objectives. "
            "Give a study with one direction, or a sampler for several, e.g. optuna.samplers.NSGAIISampler."
        )
