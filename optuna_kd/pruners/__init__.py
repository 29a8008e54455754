"""Pruners: when a trial is not worth its remaining epochs. Nothing here imports torch."""

from optuna_kd.pruners.cka import CKAPruner, is_closing, is_promotable, record_control_gaps, record_gap
from optuna_kd.pruners.halving import ParetoHalvingPruner, survivors, violation
from optuna_kd.pruners.rejection import REJECT_REASON, LossRejection, reason_to_reject, reject
from optuna_kd.pruners.reporting import report, should_prune, values_at

__all__ = [
    "REJECT_REASON",
    "CKAPruner",
    "LossRejection",
    "ParetoHalvingPruner",
    "is_closing",
    "is_promotable",
    "reason_to_reject",
    "record_control_gaps",
    "record_gap",
    "reject",
    "report",
    "should_prune",
    "survivors",
    "values_at",
    "violation",
]
