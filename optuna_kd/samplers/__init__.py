"""Optuna samplers: Monte Carlo tree search over define-by-run spaces. Needs optuna and numpy, no torch."""

from optuna_kd.samplers.mcts import MCTSSampler
from optuna_kd.samplers.selection import SELECTION_RULES, UCT, ChildStatistics, SelectionRule, ucb

__all__ = ["SELECTION_RULES", "UCT", "ChildStatistics", "MCTSSampler", "SelectionRule", "ucb"]
