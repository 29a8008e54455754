"""What a finished search shows: statistics now, figures and reports later. Nothing here imports torch."""

from optuna_kd.analysis.statistics import (
    Comparison,
    bootstrap_interval,
    compare,
    detectable_difference,
    holm,
    mean_interval,
    wilcoxon_p,
)
from optuna_kd.analysis.verdict import judge

__all__ = [
    "Comparison",
    "bootstrap_interval",
    "compare",
    "detectable_difference",
    "holm",
    "judge",
    "mean_interval",
    "wilcoxon_p",
]
