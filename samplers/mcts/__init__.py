"""Monte Carlo tree search for conditional spaces; the sampler itself lives in the package optuna-kd."""

from optuna_kd.samplers import MCTSSampler

__all__ = ["MCTSSampler"]
