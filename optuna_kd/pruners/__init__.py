"""Pruners: when a trial is not worth its remaining epochs. Nothing here imports torch."""

from optuna_kd.pruners.cka import CKAPruner, is_closing, is_promotable, record_control_gaps, record_gap

__all__ = ["CKAPruner", "is_closing", "is_promotable", "record_control_gaps", "record_gap"]
