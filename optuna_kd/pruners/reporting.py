"""`report` and `should_prune` for any number of objectives; Optuna's own refuse more than one (its issue 3450).

With one objective both are Optuna's. With several, this is what they leave in the storage, to be read by any
program that knows Optuna:

- `trial.user_attrs["rung_values"]`: all that was reported, `{"3": [0.41, 120.0], "6": ["NaN", 120.0]}`: the step,
  and a value for each of the study's directions, in their order. JSON has no word for values that are not finite:
  they are the strings "NaN", "Infinity" and "-Infinity", which `float` (in JavaScript `Number`) understands.
- `trial.intermediate_values`: the value of the first objective at each reported step, drawn by optuna-dashboard. A
  trial that is to be pruned has a NaN after its last step: Optuna 5.0's TPESampler, the default, fails in studies
  of several objectives on pruned trials whose last intermediate value is another one.
- `trial.state`: `PRUNED` for a trial that did not survive its last rung, the highest of `rung_values`.

A trial that runs again after its process was killed starts with a copy of the old attributes: a step counts as
reported if `trial.intermediate_values` has it too.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any, SupportsFloat, SupportsIndex, cast

from optuna.pruners import NopPruner
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, Trial

from optuna_kd.pruners._compat import trial_id

RUNG_VALUES = "rung_values"  # user attribute of a trial, {step: a value for each objective}

Values = SupportsFloat | Iterable[SupportsFloat] | Mapping[str, SupportsFloat]


def report(trial: BaseTrial, values: Values, step: int) -> None:
    """Report what a trial is worth at a step, in each objective of its study.

    A step counts once: what is reported for it again is ignored, with a warning, as Optuna does. A trial
    without a study (`optuna.trial.FixedTrial`) ignores everything.

    Args:
        trial: The running trial.
        values: A number for each of the study's directions, in their order; or a mapping from the study's metric
            names to numbers. With one objective, also the number itself. NaN is allowed; such a trial is pruned.
        step: How far the trial is, e.g. its epoch; >= 0.

    Raises:
        TypeError: For values that are no numbers and steps that are no integers.
        ValueError: For another number of values than the study has objectives, for other keys than its metric
            names, and for a negative step.

    Example:
        >>> study = optuna.create_study(directions=["minimize", "minimize"], pruner=ParetoHalvingPruner())
        >>> report(study.ask(), [0.41, 120], step=3)
    """
    if not isinstance(trial, Trial):
        trial.report(cast(float, values), step)
        return
    step = _checked(step)
    ordered = _in_order(values, trial.study)
    if len(ordered) == 1:
        trial.report(ordered[0], step)
        return
    stored = trial.storage.get_trial(trial_id(trial))
    if values_at(stored, step, len(ordered)) is not None:
        warnings.warn(f"The reported values are ignored because step {step} is already reported.", stacklevel=2)
        return
    reported = {
        str(earlier): rung
        for earlier in sorted(stored.intermediate_values)
        if (rung := stored.user_attrs.get(RUNG_VALUES, {}).get(str(earlier))) is not None
    }
    # First the attribute: other workers take the intermediate value as the sign that the step is reported.
    trial.set_user_attr(RUNG_VALUES, {**reported, str(step): [_to_json(value) for value in ordered]})
    trial.storage.set_trial_intermediate_value(trial_id(trial), step, ordered[0])


def should_prune(trial: BaseTrial) -> bool:
    """Tell whether a trial should stop at its last reported step; then raise `optuna.TrialPruned`.

    With several objectives the study's pruner has to be one that can judge them: `ParetoHalvingPruner`,
    `optuna.pruners.NopPruner`, or any with an attribute `judges_several_objectives = True`, which reads the
    values of a trial with `values_at`.

    Raises:
        ValueError: If the pruner can judge one objective only, like the one that Optuna takes where none is passed.
    """
    if not isinstance(trial, Trial) or len(trial.study.directions) == 1:
        return trial.should_prune()
    study = trial.study
    if isinstance(study.pruner, NopPruner):
        return False
    if not getattr(study.pruner, "judges_several_objectives", False):
        # Never False: whoever asks wants to prune, and would wait for it in vain.
        raise ValueError(
            f"The pruner {type(study.pruner).__name__} can judge one objective only; the study {study.study_name!r} "
            f"has {len(study.directions)}. Pass pruner=optuna_kd.pruners.ParetoHalvingPruner() to create_study and to "
            "load_study (without it Optuna takes MedianPruner), or optuna.pruners.NopPruner() to prune nothing."
        )
    stops = study.pruner.prune(study, trial.storage.get_trial(trial_id(trial)))
    if stops:
        mark_end(trial)
    return stops


def mark_end(trial: BaseTrial) -> None:
    """Put a NaN after the last step of a trial of several objectives that is to be pruned; the file's head says why."""
    if not isinstance(trial, Trial) or len(trial.study.directions) == 1:
        return
    last = last_reported(trial.storage.get_trial(trial_id(trial)), len(trial.study.directions))
    if last is not None:
        trial.storage.set_trial_intermediate_value(trial_id(trial), last + 1, math.nan)


def values_at(trial: FrozenTrial, step: int, objectives: int) -> list[float] | None:
    """Give what a stored trial reported at a step, or None if it did not report that many values there."""
    if step not in trial.intermediate_values:
        return None
    if objectives == 1:
        return [trial.intermediate_values[step]]
    stored = trial.user_attrs.get(RUNG_VALUES, {}).get(str(step), [])
    return [float(value) for value in stored] if len(stored) == objectives else None


def last_reported(trial: FrozenTrial, objectives: int) -> int | None:
    """Give the last step at which a stored trial reported that many values."""
    return max((step for step in trial.intermediate_values if values_at(trial, step, objectives)), default=None)


def _checked(step: SupportsIndex) -> int:
    try:
        whole = operator.index(step)
    except TypeError:
        raise TypeError(f"step must be an integer >= 0; got {step!r} ({type(step).__name__}).") from None
    if whole < 0:
        raise ValueError(f"step must be an integer >= 0; got {whole}.")
    return whole


def _in_order(values: Values, study: Study) -> list[float]:
    """Give the values as floats in the order of the study's directions."""
    if isinstance(values, Mapping):
        given = _by_name(values, study)
    elif isinstance(values, str | bytes | Set):
        # Each can be walked through, but not in an order that says which value is which.
        raise TypeError(f"values must be numbers in the order of the study's directions; got {values!r}.")
    elif (listed := _listed(values)) is not None:
        given = listed
    else:
        given = [values]
    numbers = [_number(value) for value in given]
    if len(numbers) != len(study.directions):
        directions = ", ".join(direction.name.lower() for direction in study.directions)
        raise ValueError(
            f"The study {study.study_name!r} expects {len(study.directions)} values, in the order of its directions "
            f"({directions}); got {len(numbers)}: {values!r}."
        )
    return numbers


def _by_name(values: Mapping[str, SupportsFloat], study: Study) -> list[Any]:
    names = study.metric_names
    if names is None:
        if len(values) > 1 and len(study.directions) > 1:
            # By position it could be read, but then the order in which a dictionary happens to be written decides
            # which value is minimised and which maximised, and nobody would notice a mistake.
            raise ValueError(
                f"The study {study.study_name!r} has no metric names, so the keys {list(values)} do not say which "
                f"value is which. Call study.set_metric_names([...]) once, in the order of the directions, or pass "
                "the values in that order without names."
            )
        return list(values.values())
    if set(values) != set(names):
        raise ValueError(
            f"The values are named {list(values)}, the metrics of the study {study.study_name!r} are {names}; these "
            "are the names to use."
        )
    return [values[name] for name in names]


def _listed(values: Any) -> list[Any] | None:
    try:
        return list(values)
    except TypeError:  # arrays and tensors without dimensions have the method, too
        return None


def _number(value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"A reported value must be a number; got {value!r} ({type(value).__name__}).") from None


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
