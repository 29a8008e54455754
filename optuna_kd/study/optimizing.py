"""Running trials up to a total, of which none is lost and none is too many."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import Trial, TrialState

from optuna_kd import stopping
from optuna_kd._compat import heartbeat, in_loop, log_finished
from optuna_kd.stopping import TrainingInterrupted
from optuna_kd.storages import claim_trial, retire_lost_trials, retire_trial
from optuna_kd.study.findings import count_finished

if TYPE_CHECKING:
    from optuna_kd.analysis.dashboard import Publisher

logger = logging.getLogger(__name__)

FAILURES = 10  # in a row, after which `optimize` gives up
FAIL_REASON = "fail_reason"  # user attribute of a trial: why it failed, for people
LONGEST_REASON = 1000  # characters of it that are stored
POLL = 1.0  # seconds between two looks at trials that others are running

Objective = Callable[[Trial], float | Sequence[float]]


def optimize(
    study: Study,
    objective: Objective,
    *,
    total_trials: int,
    timeout: float | None = None,
    catch: type[Exception] | Sequence[type[Exception]] = (),
    publish: bool = True,
) -> None:
    """Run trials until the study has `total_trials` finished ones (complete or pruned), by whomever.

    Several processes may call it for one study at the same time: together they run no more than that. Trials of
    processes that were killed are run again, with their parameters and seeds; the rows of killed and failed attempts
    do not count. Ctrl-C, and SIGTERM, end the training that is running after its epoch, or at its next report, and
    queue its trial to go on from there; the second one ends it at once.

    `study.optimize(n_trials=...)` keeps Optuna's meaning: that many more.

    Args:
        study: The study.
        objective: As in Optuna.
        total_trials: Of the study, not of this call; >= 0.
        timeout: Seconds after which no further trial starts.
        catch: Exceptions that fail a trial without ending the run.
        publish: Whether figures and notes for the dashboard are written now and then and at the end, where others can
            open the storage (see `optuna_kd.analysis.dashboard.Publisher`).

    Raises:
        RuntimeError: If 10 trials in a row fail with an exception of `catch`; failed trials do not count, so
            that the run would never end.
        KeyboardInterrupt: If it was stopped.
    """
    if callable(bind := getattr(objective, "bind", None)):
        bind(study)  # refuse another task here, not in a trial that fails
    caught = tuple(catch) if isinstance(catch, Sequence) else (catch,)
    end = None if timeout is None else time.monotonic() + timeout
    publisher = _publisher() if publish else None
    failed = 0
    with stopping.on_signals(logger.warning), in_loop(study) as is_stopped:
        while count_finished(study) < total_trials and not is_stopped() and (end is None or time.monotonic() < end):
            trial = next_trial(study, total_trials)
            if trial is None:
                time.sleep(POLL)  # others run the last ones; one of them may fail
                stopping.check()
                continue
            state = run_trial(study, trial, objective, caught)
            stopping.check()
            failed = failed + 1 if state == TrialState.FAIL else 0
            if failed == FAILURES:
                raise RuntimeError(
                    f"{FAILURES} trials in a row failed, the last is number {trial.number}; the log says why. "
                    "Without `catch` the first failure ends the run."
                )
            if publisher is not None:
                publisher(study)
        if callable(sweep := getattr(objective, "sweep", None)):
            sweep(study)
        if publisher is not None:
            publisher.finish(study)


def _publisher() -> Publisher:
    from optuna_kd.analysis.dashboard import Publisher  # which reads studies, and so needs this room

    return Publisher()


def next_trial(study: Study, total: int | None) -> Trial | None:
    """Start the next trial of a study, one that was interrupted before new ones; None if all places are taken."""
    retire_lost_trials(study)
    return claim_trial(study, total)


def run_trial(study: Study, trial: Trial, objective: Objective, catch: tuple[type[Exception], ...]) -> TrialState:
    """Run one trial that `next_trial` gave, as `Study.optimize` does; give the state that it ended in."""
    try:
        with heartbeat(trial):
            values = objective(trial)
    except optuna.TrialPruned as pruned:
        return end_trial(study, trial, state=TrialState.PRUNED, reason=str(pruned))
    except UpdateFinishedTrialError:
        return _lost(trial)
    except TrainingInterrupted:
        retire_trial(study, study.trials[trial.number], stopped=True)
        return TrialState.WAITING
    except Exception as error:
        state = end_trial(study, trial, state=TrialState.FAIL, reason=repr(error))
        if not isinstance(error, catch):
            raise
        return state
    except BaseException:  # Ctrl-C for the second time
        retire_trial(study, study.trials[trial.number], stopped=True)
        raise
    return end_trial(study, trial, values)


def end_trial(
    study: Study,
    trial: Trial,
    values: float | Sequence[float] | None = None,
    *,
    state: TrialState | None = None,
    reason: str = "",
) -> TrialState:
    """Tell a study how a trial has ended, as `Study.tell`; give the state that it has now.

    One that failed carries the reason as user attribute `fail_reason`.

    One that another process has taken for lost meanwhile, because this one was asleep for a minute, has ended already
    and is run again; what came of it here is dropped.
    """
    if state is None and (unusable := _why_unusable(study, values)) is not None:
        state, values, reason = TrialState.FAIL, None, unusable
    try:
        if state == TrialState.FAIL:
            trial.set_user_attr(FAIL_REASON, reason[:LONGEST_REASON])
        stored = study.tell(trial, values, state=state)
    except (ValueError, UpdateFinishedTrialError):
        if study.trials[trial.number].state != TrialState.FAIL:
            raise
        return _lost(trial)
    log_finished(study, stored, reason)
    return stored.state


def _why_unusable(study: Study, values: float | Sequence[float] | None) -> str | None:
    """Say why an objective's values cannot be those of a trial, as `Study.tell` decides it; None if they can."""
    given = list(values) if isinstance(values, Sequence) else [values]
    expected = len(study.directions)
    if len(given) != expected:
        return f"{expected} value{'s' * (expected > 1)} expected; got {values!r}"
    for value in given:
        try:
            if math.isnan(float(value)):  # type: ignore[arg-type]
                return f"a value is not a number; got {values!r}"
        except (TypeError, ValueError):
            return f"a value is not a number; got {values!r}"
    return None


def _lost(trial: Trial) -> TrialState:
    logger.warning("Trial %d was taken for lost, because its process did not answer; it runs again.", trial.number)
    return TrialState.WAITING
