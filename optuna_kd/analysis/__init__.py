"""What a finished search shows: statistics now, figures and reports later. Nothing here imports torch."""

from optuna_kd.analysis.statistics import Comparison, compare, detectable_difference, holm

__all__ = ["Comparison", "compare", "detectable_difference", "holm"]
