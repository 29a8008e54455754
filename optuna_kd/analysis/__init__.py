"""What a search shows, on any Optuna study: a table of its trials, importance, options, guidance, statistics.

Nothing here imports torch. The names are imported when they are first used, so that none costs more than it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_kd.lazy import lazily

if TYPE_CHECKING:
    from optuna_kd.analysis.advice import Finding, guidance
    from optuna_kd.analysis.branches import Condition
    from optuna_kd.analysis.closing import Closing, read_closing
    from optuna_kd.analysis.evidence import Numbers
    from optuna_kd.analysis.importance import ConditionalImportanceEvaluator, Importance, importances
    from optuna_kd.analysis.options import Option, OptionComparison, OptionDifference, compare_options
    from optuna_kd.analysis.report import Report, build_report
    from optuna_kd.analysis.response import Response
    from optuna_kd.analysis.rules import RuleCheck, Status, check_rules
    from optuna_kd.analysis.statistics import (
        Comparison,
        bootstrap_interval,
        compare,
        detectable_difference,
        holm,
        mean_interval,
        wilcoxon_p,
    )
    from optuna_kd.analysis.table import Objective, Parameter, TrialTable, read_table
    from optuna_kd.analysis.verdict import judge

__all__ = [
    "Closing",
    "Comparison",
    "Condition",
    "ConditionalImportanceEvaluator",
    "Finding",
    "Importance",
    "Numbers",
    "Objective",
    "Option",
    "OptionComparison",
    "OptionDifference",
    "Parameter",
    "Report",
    "Response",
    "RuleCheck",
    "Status",
    "TrialTable",
    "bootstrap_interval",
    "build_report",
    "check_rules",
    "compare",
    "compare_options",
    "detectable_difference",
    "guidance",
    "holm",
    "importances",
    "judge",
    "mean_interval",
    "read_closing",
    "read_table",
    "wilcoxon_p",
]

_HOMES = {
    "Closing": "closing",
    "Comparison": "statistics",
    "Condition": "branches",
    "ConditionalImportanceEvaluator": "importance",
    "Finding": "advice",
    "Importance": "importance",
    "Numbers": "evidence",
    "Objective": "table",
    "Option": "options",
    "OptionComparison": "options",
    "OptionDifference": "options",
    "Parameter": "table",
    "Report": "report",
    "Response": "response",
    "RuleCheck": "rules",
    "Status": "rules",
    "TrialTable": "table",
    "bootstrap_interval": "statistics",
    "build_report": "report",
    "check_rules": "rules",
    "compare": "statistics",
    "compare_options": "options",
    "detectable_difference": "statistics",
    "guidance": "advice",
    "holm": "statistics",
    "importances": "importance",
    "judge": "verdict",
    "mean_interval": "statistics",
    "read_closing": "closing",
    "read_table": "table",
    "wilcoxon_p": "statistics",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
