"""Objectives that span orders of magnitude, such as parameters or FLOPs, are compared by their logarithms.

For dominance a logarithm changes nothing. For what counts distances, crowding and hypervolume, it does: on the plain
scale all students below a fifth of the largest one are crowded together, and a search leaves them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.study import Study

LOG_OBJECTIVES = "optuna_kd_log_objectives"  # user attribute of a study: the places of such objectives
TINY = 1e-12  # where a logarithm ends: 0 is as good as this


def log_objectives(study: Study) -> tuple[bool, ...]:
    """Tell of each objective of a study whether it is compared by its logarithm."""
    places = getattr(study, "user_attrs", {}).get(LOG_OBJECTIVES, ())  # a Hyperband bracket shows no attributes
    return tuple(place in places for place in range(len(study.directions)))


def on_scale(values: Sequence[float], logarithmic: Sequence[bool]) -> tuple[float, ...]:
    """Take the logarithm of some values; NaN stays NaN."""
    return tuple(
        math.log(max(value, TINY)) if is_log and not math.isnan(value) else value
        for value, is_log in zip(values, logarithmic, strict=True)
    )
