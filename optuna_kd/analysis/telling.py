"""Which parameters can be told from noise: what the guidance and the figure of importance may name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna_kd.analysis.importance import Importance
from optuna_kd.analysis.options import OptionComparison, compare_options
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.statistics import ALPHA
from optuna_kd.analysis.table import TrialTable

COMPARED = 12  # parameters whose options are compared, by importance: that takes as long for each as all importances
_EVIDENCE = math.log(1 / ALPHA)


def telling(
    response: Response, ranked: Sequence[Importance], within: Mapping[str, Any] | None = None
) -> list[Importance]:
    """Choose the parameters that matter for sure, the most important first.

    Shares are of whatever the functions vary by, and they always vary by something: of pure noise one parameter
    explains 100 %, two explain half each, and no interval of theirs begins at 0. So first there has to be anything to
    explain (`Response.evidence`), or a difference between options of the parameter itself that is beyond noise. Of a
    parameter that nothing was searched beside, a share says nothing.

    Args:
        response: The functions.
        ranked: What the parameters explain, the most important first.
        within: Options of gates: the branch that this is about. The evidence says nothing of a branch of its own.
    """
    ranked = searched(response.table, ranked)
    sure = [row for row in ranked if row.low > 0] if len(ranked) > 1 else []
    if not within and response.evidence > _EVIDENCE:
        return sure
    found = {row.parameter: compare_options(response, row.parameter, within=within) for row in sure[:COMPARED]}
    return [row for row in sure[:COMPARED] if is_settled(found[row.parameter], len(ranked))]


def searched(table: TrialTable, ranked: Sequence[Importance]) -> list[Importance]:
    """Leave out parameters that have one value only."""
    distributions = {row.parameter: table.parameters[row.parameter].distributions for row in ranked}
    return [
        row for row in ranked if len(distributions[row.parameter]) > 1 or not distributions[row.parameter][0].single()
    ]


def is_settled(comparison: OptionComparison, parameters: int) -> bool:
    """Tell whether a difference between options is beyond noise, all parameters together."""
    return any(parameters * each.adjusted < ALPHA for each in comparison.differences)
