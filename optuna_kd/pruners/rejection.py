"""Loss rejection: trainings that cannot be saved are stopped, with a reason, before they cost more (UniADS).

A rejected trial ends as `PRUNED`, and the sentence that says why is its user attribute `reject_reason`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import optuna
from optuna.trial import BaseTrial

from optuna_kd.pruners.reporting import mark_end

REJECT_REASON = "reject_reason"  # user attribute of a trial: why it was rejected, for people
EXPLODED = 3.0  # times the first loss
TERM_LIMIT = 1e4  # a term of a loss above this has left every sensible scale


class LossRejection:
    """Watches one training: every loss against the first, every rung against guessing.

    Args:
        num_classes: Of a classification; None judges no rung.
        factor: A loss above this many times the first one has exploded; > 1.
        term_limit: A term above this has exploded; > 0.

    Raises:
        ValueError: For an argument out of range.

    Example:
        >>> rejection = LossRejection(num_classes=10)
        >>> rejection.step(2.4)
        >>> rejection.step(9.6)
        'exploding loss: 9.6, above 3 times the first loss of 2.4'
    """

    def __init__(
        self, num_classes: int | None = None, *, factor: float = EXPLODED, term_limit: float = TERM_LIMIT
    ) -> None:
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, or None to judge no rung; got {num_classes!r}.")
        if not factor > 1:
            raise ValueError(f"factor must be > 1; got {factor!r}.")
        if not term_limit > 0:
            raise ValueError(f"term_limit must be > 0; got {term_limit!r}.")
        self.num_classes, self.factor, self.term_limit = num_classes, factor, term_limit
        self.first: float | None = None

    def step(self, loss: float, terms: Mapping[str, float] | None = None) -> str | None:
        """Judge a loss and its terms; the first one is what later ones are compared with."""
        reason = reason_to_reject(loss, first=self.first, terms=terms, factor=self.factor, term_limit=self.term_limit)
        if self.first is None:
            self.first = loss
        return reason

    def rung(self, cross_entropy: float) -> str | None:
        """Judge the cross-entropy on validation data at a rung."""
        return reason_to_reject(validation=cross_entropy, num_classes=self.num_classes)


def reason_to_reject(
    loss: float | None = None,
    *,
    first: float | None = None,
    terms: Mapping[str, float] | None = None,
    validation: float | None = None,
    num_classes: int | None = None,
    factor: float = EXPLODED,
    term_limit: float = TERM_LIMIT,
) -> str | None:
    """Tell why a training is to be rejected (UniADS, Sec. 3, loss-rejection protocol), or None to let it go on.

    What is not given is not judged. A training is rejected

    - if its loss, a term of it or its validation loss is not finite;
    - if the loss exceeds `factor` times the first one. That presupposes a loss above zero: with a `first` of
      zero or less the rule is off;
    - if a term exceeds `term_limit`;
    - if after a rung the cross-entropy on validation data is no better than that of guessing, ln K.

    Paper: "excessive loss values or collapsed optimization", without numbers. Here: the ones above.

    Args:
        loss: Of a step or an epoch.
        first: The first loss of the training.
        terms: What the loss is made of, by name, e.g. its distillation terms.
        validation: Cross-entropy on validation data, in nats.
        num_classes: K.
        factor: See above.
        term_limit: See above.
    """
    named = {**(terms or {}), "the loss": loss, "the validation loss": validation}
    for name, value in named.items():
        if value is not None and not math.isfinite(value):
            return f"non-finite loss: {name} is {value}"
    for name, value in (terms or {}).items():
        if value > term_limit:
            return f"exploding loss: {name} is {value:.3g}, above {term_limit:g}"
    if loss is not None and first is not None and 0 < first * factor < loss:
        return f"exploding loss: {loss:.3g}, above {factor:g} times the first loss of {first:.3g}"
    if validation is not None and num_classes is not None:
        guessing = math.log(num_classes)
        # Equal outputs for all classes are a collapse, too: ln K, up to the rounding of single precision.
        if validation > guessing * (1 - 1e-6):
            return f"collapsed: a validation cross-entropy of {validation:.3g}, guessing has {guessing:.3g}"
    return None


def reject(trial: BaseTrial, reason: str) -> optuna.TrialPruned:
    """Store the reason with the trial, and give the exception that ends it.

    Example:
        >>> if reason := rejection.step(loss):
        ...     raise reject(trial, reason)
    """
    trial.set_user_attr(REJECT_REASON, reason)
    mark_end(trial)
    return optuna.TrialPruned(reason)
