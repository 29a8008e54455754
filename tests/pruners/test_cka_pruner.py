"""The CKA pruner: the rule by hand, then on real studies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from optuna_kd.pruners import CKAPruner, is_closing, is_promotable, record_control_gaps, record_gap
from optuna_kd.pruners.cka import CONTROL_GAPS, GAPS

pytestmark = pytest.mark.usefixtures("quiet_optuna")


@pytest.mark.parametrize(
    ("value", "competing", "factor", "promoted"),
    [
        (1.0, [1.0], 2, True),  # the first is always promoted
        (0.5, [1.0, 0.5], 2, False),  # 1 place of 2
        (1.0, [1.0, 0.5], 2, True),
        (0.5, [1.0, 0.5, 0.2], 2, True),  # ceil(3/2) = 2 places
        (0.2, [1.0, 0.5, 0.2], 2, False),
        (0.5, [1.0, 0.5, 0.2, 0.1], 2, True),
        (0.2, [1.0, 0.5, 0.2, 0.1], 2, False),
        (0.2, [1.0, 0.5, 0.2, 0.1], 4, False),  # 1 place of 4
        (0.5, [1.0, 0.5, 0.2, 0.1, 0.0], 4, True),  # ceil(5/4) = 2
        (0.2, [1.0, 0.5, 0.2, 0.1], 1.5, True),  # ceil(4/1.5) = 3
        (1.0, [1.0, 1.0, 1.0, 1.0], 2, True),  # equal values go on together
        (0.5, [1.0, 0.5, 0.5, 0.5], 2, True),  # one better, two places: all three of them
        (0.5, [1.0, 0.9, 0.5, 0.5], 2, False),
    ],
)
def test_promotion_by_hand(value: float, competing: list[float], factor: float, promoted: bool) -> None:
    assert is_promotable(value, competing, factor, maximize=True) is promoted
    mirrored = [-other for other in competing]
    assert is_promotable(-value, mirrored, factor, maximize=False) is promoted


@pytest.mark.parametrize(
    ("gaps", "control", "patience", "closing"),
    [
        ({}, {}, 0.5, True),
        ({"3": 0.9}, {"3": 0.2}, 0.5, True),  # one rung tells no speed
        ({"3": 0.9, "6": 0.9}, {"3": 0.5, "6": 0.3}, 0.5, False),
        ({"3": 0.9, "6": 0.9}, {"3": 0.5, "6": 0.3}, 0.0, True),  # switched off
        ({"3": 0.9, "6": 0.79}, {"3": 0.5, "6": 0.3}, 0.5, True),  # .11 >= half of .2
        ({"3": 0.9, "6": 0.81}, {"3": 0.5, "6": 0.3}, 0.5, False),  # .09 < half of .2
        ({"3": 0.2, "6": 0.25}, {"3": 0.5, "6": 0.3}, 1.0, True),  # widens, yet is narrower than the control's
        ({"3": 0.8, "6": 0.8}, {"3": 0.5, "6": 0.6}, 1.0, True),  # the control widens: 0 is enough
        ({"3": 0.8, "6": 0.81}, {"3": 0.5, "6": 0.6}, 1.0, False),
        ({"3": 0.9, "6": 0.5, "12": 0.5}, {"3": 0.4, "6": 0.3, "12": 0.1}, 0.5, False),  # only the last two count
        ({"6": 0.9, "12": 0.9}, {"3": 0.4, "6": 0.3}, 0.5, True),  # one common rung
        ({"10": 0.5, "9": 0.9}, {"9": 0.4, "10": 0.3}, 0.5, True),  # rungs are numbers: 9 before 10
    ],
)
def test_closing_by_hand(gaps: dict[str, float], control: dict[str, float], patience: float, closing: bool) -> None:
    assert is_closing(gaps, control, patience) is closing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction_factor": 1}, "reduction_factor must be > 1; got 1"),
        ({"reduction_factor": math.nan}, "reduction_factor must be > 1"),
        ({"warmup_trials": 0}, "warmup_trials must be >= 1; got 0"),
        ({"patience": -0.1}, r"patience must be in \[0, 1\]; got -0.1"),
        ({"patience": 1.1}, "patience"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CKAPruner(**arguments)


def new_study(pruner: CKAPruner | None = None, direction: str = "maximize", **more: Any) -> optuna.Study:
    return optuna.create_study(direction=direction, pruner=pruner or CKAPruner(2), **more)


def add(study: optuna.Study, *values: float, state: TrialState = TrialState.COMPLETE) -> None:
    """Add trials that reported these values at step 1."""
    for value in values:
        study.add_trial(
            create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                intermediate_values={1: value},
            )
        )


def asks_to_stop(study: optuna.Study, value: float, step: int = 1) -> bool:
    trial = study.ask()
    trial.report(value, step)
    return trial.should_prune()


def test_nothing_is_pruned_before_a_report() -> None:
    assert not new_study().ask().should_prune()


@pytest.mark.parametrize("warmup", [1, 4])
def test_warm_up_counts_the_trial_itself(warmup: int) -> None:
    study = new_study(CKAPruner(2, warmup_trials=warmup))
    decisions = [asks_to_stop(study, -float(number)) for number in range(6)]  # each is worse than all before
    first = decisions.index(True)
    assert first == max(warmup - 1, 1)
    assert all(decisions[first:])


def test_half_goes_on_at_each_rung() -> None:
    study = new_study(CKAPruner(2, warmup_trials=1))
    add(study, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert asks_to_stop(study, 0.25)  # 4th of 6, 3 places
    study = new_study(CKAPruner(2, warmup_trials=1))
    add(study, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert not asks_to_stop(study, 0.35)  # 3rd of 6


def test_rungs_are_separate() -> None:
    study = new_study(CKAPruner(2, warmup_trials=2))
    add(study, 0.9, 0.8, 0.7)
    assert asks_to_stop(study, 0.1, step=1)
    assert not asks_to_stop(study, 0.1, step=2)  # nobody else was there


def test_pruned_and_running_trials_compete_failed_ones_do_not() -> None:
    study = new_study(CKAPruner(2, warmup_trials=3))
    add(study, 0.9, 0.9, 0.9, 0.9, state=TrialState.FAIL)
    assert not asks_to_stop(study, 0.1)  # alone; and it runs on as a competitor
    add(study, 0.5, state=TrialState.PRUNED)
    assert asks_to_stop(study, 0.05)  # 3rd of 3 with 2 places
    assert not asks_to_stop(study, 0.3)  # 2nd of 4


def test_nan_is_stopped_at_once_and_never_competes() -> None:
    study = new_study(CKAPruner(2, warmup_trials=100))
    assert asks_to_stop(study, math.nan)
    study = new_study(CKAPruner(2, warmup_trials=3))
    add(study, math.nan, math.nan, math.nan, state=TrialState.PRUNED)
    add(study, 0.5)
    assert not asks_to_stop(study, 0.1)  # two with a number: still warming up


def test_minimising_studies_are_mirrored() -> None:
    study = new_study(CKAPruner(2, warmup_trials=1), direction="minimize")
    add(study, 1.0, 2.0, 3.0)
    assert asks_to_stop(study, 2.5)
    assert not asks_to_stop(study, 0.5)


def stop_with_gaps(patience: float, gaps: dict[int, float], control: dict[int, float] | None, value: float = 1) -> bool:
    study = new_study(CKAPruner(2, warmup_trials=1, patience=patience))
    if control is not None:
        record_control_gaps(study, control)
    trial = study.ask()
    for step, gap in gaps.items():
        trial.report(value, step)
        record_gap(trial, step, gap)
    return trial.should_prune()


def test_a_gap_that_does_not_close_stops_even_the_best_trial() -> None:
    control = {3: 0.5, 6: 0.3}
    assert stop_with_gaps(0.25, {3: 0.9, 6: 0.89}, control)
    assert not stop_with_gaps(0.25, {3: 0.9, 6: 0.8}, control)
    assert not stop_with_gaps(0, {3: 0.9, 6: 0.89}, control)
    assert not stop_with_gaps(0.25, {3: 0.9, 6: 0.89}, None)  # without a control it stays out of the way


def test_gaps_are_plain_attributes_of_trial_and_study() -> None:
    study = new_study()
    record_control_gaps(study, {3: 0.5, 6: 0.25})
    trial = study.ask()
    record_gap(trial, 3, 0.75)
    record_gap(trial, 6, 0.5)
    assert study.user_attrs[CONTROL_GAPS] == {"3": 0.5, "6": 0.25}
    assert study.trials[0].user_attrs[GAPS] == {"3": 0.75, "6": 0.5}


def test_it_holds_no_state(tmp_path: Path) -> None:
    """A new pruner on a storage opened anew decides as the old one did."""
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = new_study(CKAPruner(2, warmup_trials=1), storage=url, study_name="s")
    record_control_gaps(study, {1: 0.5, 2: 0.1})
    add(study, 0.9, 0.8, 0.1)
    trial = study.ask()
    for step, gap in ((1, 0.9), (2, 0.9)):
        trial.report(0.85, step)
        record_gap(trial, step, gap)

    again = optuna.load_study(study_name="s", storage=url, pruner=CKAPruner(2, warmup_trials=1))
    (running,) = again.get_trials(states=(TrialState.RUNNING,))
    assert again.pruner.prune(again, running) is trial.should_prune() is True
    assert not CKAPruner(2, warmup_trials=1, patience=0).prune(again, running)  # it was the gap


def test_whole_studies_save_epochs_and_keep_the_best() -> None:
    def objective(trial: optuna.Trial) -> float:
        quality = trial.suggest_float("quality", 0, 1)
        for step in (1, 2, 4):
            trial.report(quality * step, step)
            epochs.append(1)
            if step < 4 and trial.should_prune():
                raise optuna.TrialPruned
        return quality * 4

    epochs: list[int] = []
    study = new_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=60)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert 25 <= len(pruned) <= 55
    assert len(epochs) < 60 * 3 * 0.7
    qualities = [trial.params["quality"] for trial in study.trials]
    assert study.best_params["quality"] == max(qualities)
