"""The report of a study: one HTML file that needs no network, and the same in Markdown. Nothing here imports torch."""

from optuna_kd.analysis.report.build import build_report
from optuna_kd.analysis.report.report import Report

__all__ = ["Report", "build_report"]
