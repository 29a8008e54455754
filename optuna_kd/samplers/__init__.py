"""Optuna samplers: Monte Carlo tree search over define-by-run spaces. Needs optuna, numpy and scipy, no torch."""

from optuna_kd.samplers.mcts import MCTSSampler
from optuna_kd.samplers.notices import SamplerWarning
from optuna_kd.samplers.nsga.sampler import UniADSSampler
from optuna_kd.samplers.selection import SELECTION_RULES, UCT, ChildStatistics, SelectionRule, SurrogateSearch, ucb

__all__ = [
    "SELECTION_RULES",
    "UCT",
    "ChildStatistics",
    "MCTSSampler",
    "SamplerWarning",
    "SelectionRule",
    "SurrogateSearch",
    "UniADSSampler",
    "ucb",
]
