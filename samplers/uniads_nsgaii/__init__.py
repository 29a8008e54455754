"""Evolutionary multi-objective search for conditional spaces; the sampler itself lives in the package optuna-kd."""

from optuna_kd.samplers import UniADSSampler

__all__ = ["UniADSSampler"]
