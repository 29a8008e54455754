"""Successive halving by Pareto rank: the judgment by hand, then on real studies, threads and processes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optuna_kd.pruners import ParetoHalvingPruner, report, should_prune, survivors, values_at, violation
from optuna_kd.pruners.reporting import RUNG_VALUES, mark_end

pytestmark = pytest.mark.usefixtures("quiet_optuna")

MIN, MAX = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
NAN = math.nan
TWO = ("minimize", "minimize")


@pytest.mark.parametrize(
    ("values", "factor", "goes_on"),
    [
        ([[5, 5]], 2, [1]),  # the first always goes on
        ([[1, 2], [2, 1]], 2, [1, 1]),  # both are ends of the front: one place, but the same place
        ([[1, 1], [2, 2]], 2, [1, 0]),
        ([[1, 3], [3, 1], [4, 4], [5, 5]], 2, [1, 1, 0, 0]),
        ([[1, 3], [3, 1], [4, 4], [5, 5]], 1.3, [1, 1, 1, 1]),  # ceil(4/1.3) = 4
        ([[1, 3], [3, 1], [4, 4], [5, 5], [6, 6]], 2, [1, 1, 1, 0, 0]),  # ceil(5/2) = 3
        # One front and three places: the ends, then the wider gaps, 0.6 + 0.7 at (2, 8) and 0.8 + 0.8 at (6, 3).
        ([[0, 10], [2, 8], [6, 3], [10, 0], [20, 20], [21, 21]], 2, [1, 0, 1, 1, 0, 0]),
        ([[1, 1], [1, 1], [1, 1], [1, 1]], 4, [1, 1, 1, 1]),  # equal trials go on together
        ([[1, 1], [2, 2], [2, 2], [3, 3]], 2, [1, 1, 1, 0]),
    ],
)
def test_survivors_by_hand(values: list[list[float]], factor: float, goes_on: list[int]) -> None:
    assert survivors(values, [MIN, MIN], factor).tolist() == [bool(each) for each in goes_on]
    mirrored = [[first, -second] for first, second in values]
    assert survivors(mirrored, [MIN, MAX], factor).tolist() == [bool(each) for each in goes_on]


def test_who_violates_least_goes_on_after_all_who_do_not() -> None:
    values = [[9, 9], [1, 1], [2, 2], [3, 3]]
    assert survivors(values, [MIN, MIN], 4).tolist() == [False, True, False, False]
    assert survivors(values, [MIN, MIN], 4, [0, 1, 2, 1]).tolist() == [True, False, False, False]
    assert survivors(values, [MIN, MIN], 2, [0, 1, 0.5, 1]).tolist() == [True, False, True, False]
    assert survivors(values, [MIN, MIN], 2, [0, 1, 2, 1]).tolist() == [True, True, False, False]  # equal: by rank


def test_no_trials_have_no_survivors() -> None:
    assert survivors(np.zeros((0, 2)), [MIN, MIN], 2).shape == (0,)


def asha(value: float, all_values: Sequence[float], factor: float, maximize: bool) -> bool:
    """Li et al. 2020 by hand: among the best ⌈n/η⌋ of a rung, equal values together."""
    best_first = sorted(all_values, reverse=maximize)
    threshold = best_first[math.ceil(len(best_first) / factor) - 1]
    return value >= threshold if maximize else value <= threshold


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([1.5, 2, 3, 4]),
    st.booleans(),
)
def test_one_objective_is_plain_successive_halving(values: list[int], factor: float, maximize: bool) -> None:
    goes_on = survivors([[value] for value in values], [MAX if maximize else MIN], factor)
    assert goes_on.tolist() == [asha(value, values, factor, maximize) for value in values]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40), st.sampled_from([2, 3, 4]))
def test_no_place_stays_empty_and_nobody_is_overtaken(points: list[tuple[int, int]], factor: float) -> None:
    goes_on = survivors(points, [MIN, MIN], factor)
    assert goes_on.sum() >= math.ceil(len(points) / factor)
    for better, stays in zip(points, goes_on, strict=True):
        for worse, also in zip(points, goes_on, strict=True):
            if better != worse and all(a <= b for a, b in zip(better, worse, strict=True)):
                assert stays or not also


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reduction_factor": 1}, "reduction_factor must be > 1 and finite; got 1"),
        ({"reduction_factor": math.inf}, "reduction_factor must be > 1 and finite; got inf"),
        ({"reduction_factor": NAN}, "reduction_factor"),
        ({"warmup_trials": 0}, "warmup_trials must be >= 1; got 0"),
        ({"rungs": []}, r"rungs must be rising positive integers, at least one, like \[3, 6, 12\]; got \[\]"),
        ({"rungs": [0, 3]}, r"rungs.*got \[0, 3\]"),
        ({"rungs": [3, 3]}, "rungs"),
        ({"rungs": [6, 3]}, "rungs"),
        ({"rungs": [1.5, 3]}, "rungs"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParetoHalvingPruner(**arguments)


def new_study(directions: Sequence[str] = TWO, warmup: int = 1, **more: Any) -> optuna.Study:
    rungs, factor = more.pop("rungs", None), more.pop("factor", 2)
    pruner = ParetoHalvingPruner(factor, rungs=rungs, warmup_trials=warmup)
    return optuna.create_study(directions=list(directions), pruner=pruner, **more)


def add(study: optuna.Study, *points: Sequence[float], state: TrialState = TrialState.PRUNED) -> None:
    """Add trials that reported these values at step 1."""
    for values in points:
        trial = study.ask()
        report(trial, values, 1)
        if state == TrialState.PRUNED:
            mark_end(trial)
        study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)


def asks_to_stop(study: optuna.Study, values: Sequence[float], step: int = 1, **constraints: float) -> bool:
    trial = study.ask()
    for name, excess in constraints.items():
        trial.set_constraint(name, excess)
    report(trial, values, step)
    return should_prune(trial)


def test_nothing_is_pruned_before_a_report() -> None:
    assert not should_prune(new_study().ask())


@pytest.mark.parametrize("warmup", [1, 4])
def test_warm_up_counts_the_trial_itself(warmup: int) -> None:
    study = new_study(warmup=warmup)
    decisions = [asks_to_stop(study, [number, number]) for number in range(6)]  # each is worse than all before
    first = decisions.index(True)
    assert first == max(warmup - 1, 1)
    assert all(decisions[first:])


def test_half_goes_on_by_rank_and_then_by_crowding() -> None:
    def with_six(values: Sequence[float]) -> bool:
        study = new_study()
        add(study, [0, 10], [6, 3], [10, 0], [20, 20], [21, 21])
        return asks_to_stop(study, values)

    assert with_six([2, 8])  # on the front, but in its narrowest place: 4th of 6, 3 places
    assert not with_six([3, 2])  # dominates (6, 3)
    assert with_six([15, 15])  # dominated by (10, 0)


def test_directions_are_those_of_the_study() -> None:
    study = new_study(["maximize", "minimize"])
    add(study, [0.9, 10], [0.8, 9], [0.7, 8])
    assert asks_to_stop(study, [0.6, 20])
    assert not asks_to_stop(study, [0.95, 5])


def test_rungs_are_separate() -> None:
    study = new_study(warmup=2)
    add(study, [1, 1], [2, 2], [3, 3])
    assert asks_to_stop(study, [9, 9], step=1)
    assert not asks_to_stop(study, [9, 9], step=2)  # nobody else was there


def test_steps_between_the_rungs_never_prune() -> None:
    study = new_study(rungs=[1, 4])
    add(study, [1, 1], [2, 2], [3, 3])
    trial = study.ask()
    report(trial, [9, 9], 0)
    assert not should_prune(trial)
    report(trial, [9, 9], 1)
    assert should_prune(trial)
    report(trial, [9, 9], 2)
    assert not should_prune(trial)
    report(trial, [9, NAN], 3)
    assert should_prune(trial)  # there is nothing left to train


def test_pruned_and_running_trials_compete_failed_ones_do_not() -> None:
    study = new_study(warmup=3)
    add(study, [1, 1], [1, 1], [1, 1], state=TrialState.FAIL)
    assert not asks_to_stop(study, [9, 9])  # alone; and it runs on as a competitor
    add(study, [5, 5], state=TrialState.PRUNED)
    assert asks_to_stop(study, [10, 10])  # 3rd of 3 with 2 places
    assert not asks_to_stop(study, [6, 6])  # 2nd of 4
    add(study, [4, 4], state=TrialState.COMPLETE)
    assert not asks_to_stop(study, [5.5, 5.5])  # 3rd of 6
    assert asks_to_stop(study, [7, 7])  # 5th of 7


@pytest.mark.parametrize("values", [[NAN, 1], [1, NAN]])
def test_nan_is_stopped_at_once_and_never_competes(values: list[float]) -> None:
    assert asks_to_stop(new_study(warmup=100), values)
    study = new_study(warmup=3)
    add(study, values, values, values)
    add(study, [1, 1])
    assert not asks_to_stop(study, [9, 9])  # two with numbers: still warming up


def test_infinite_values_are_the_worst_and_the_best() -> None:
    study = new_study()
    add(study, [1, 1], [2, 2], [3, 3])
    assert asks_to_stop(study, [math.inf, math.inf])
    assert not asks_to_stop(study, [math.inf, -math.inf])


def test_constraints_come_first() -> None:
    study = new_study()
    add(study, [5, 5], [6, 6], [7, 7])
    assert asks_to_stop(study, [1, 1], size=0.1)
    assert not asks_to_stop(study, [5, 5], size=-0.1, time=0)


def test_constraints_of_others_count_and_stock_functions_see_them() -> None:
    study = new_study(["minimize"])
    for size in (0.5, 3.0, 4.0):
        trial = study.ask()
        trial.set_constraint("size", size)
        trial.report(1.0, 1)
    middle, worst = study.ask(), study.ask()
    middle.set_constraint("size", 2.0)
    middle.report(9.0, 1)
    assert not middle.should_prune()  # 2nd of 4, whatever its value
    worst.set_constraint("size", 5.0)
    worst.report(0.0, 1)
    assert worst.should_prune()


def test_violations_add_up_and_room_to_spare_does_not_count() -> None:
    study = optuna.create_study()
    trial = study.ask()
    assert violation(study.trials[0]) == 0
    for name, excess in {"a": 1.5, "b": -4.0, "c": 0.25}.items():
        trial.set_constraint(name, excess)
    assert violation(study.trials[0]) == 1.75


def test_trials_that_reported_otherwise_are_left_alone() -> None:
    """One value for a study of two objectives, written by somebody else."""
    study = new_study()
    for value in (0.1, NAN):
        study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: value}))
    study.add_trial(
        create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.1}, user_attrs={RUNG_VALUES: {"1": [0.1]}})
    )
    assert not asks_to_stop(study, [9, 9])  # as if it were alone
    study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values={1: 0.1}))
    assert not study.pruner.prune(study, study.trials[-1])


def test_with_one_objective_it_is_a_pruner_like_any_other() -> None:
    """A whole study through Optuna's own functions, each decision compared with one made by hand."""

    def objective(trial: optuna.Trial) -> float:
        quality = trial.suggest_float("quality", 0, 1)
        for step in (1, 2, 4):
            value = round(quality * step, 1)  # so that there are ties
            trial.report(value, step)
            reached = rungs.setdefault(step, [])
            reached.append(value)
            too_many = max(0, went_on.get(step, 0) - math.ceil((len(reached) - 1) / 3))
            expected = len(reached) >= 4 and not asha(value, reached, 3 ** (1 + too_many), maximize=True)
            went_on[step] = went_on.get(step, 0) + (not expected)
            decisions.append(expected)
            assert trial.should_prune() == expected
            if expected:
                raise optuna.TrialPruned
        return value

    rungs: dict[int, list[float]] = {}
    went_on: dict[int, int] = {}
    decisions: list[bool] = []
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = new_study(["maximize"], warmup=4, factor=3, sampler=sampler)
    study.optimize(objective, n_trials=60)
    assert 25 <= sum(decisions) <= 55
    assert len(study.get_trials(states=(TrialState.PRUNED,))) == sum(decisions)


def curve(trial: optuna.Trial) -> tuple[float, float]:
    """Three rungs of a trade-off: a large model has a low loss, a bad one is bad at every rung."""
    size = trial.suggest_float("size", 0.1, 1)
    luck = trial.suggest_float("luck", 0, 1)
    for step in (1, 2, 4):
        report(trial, [luck + 1 / size + 1 / step, size], step)
        if step < 4 and should_prune(trial):
            raise optuna.TrialPruned
    return luck + 1 / size + 0.25, size


def test_whole_studies_save_epochs_and_keep_the_front() -> None:
    study = new_study(warmup=4, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(curve, n_trials=60)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert 15 <= len(pruned) <= 50
    luck = {trial.number: trial.params["luck"] for trial in study.trials}
    finished = [luck[trial.number] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert np.mean(finished) < np.mean([luck[trial.number] for trial in pruned]) - 0.1

    everything = new_study(sampler=optuna.samplers.RandomSampler(seed=0), warmup=100)
    everything.optimize(curve, n_trials=60)
    dominated, most = (hypervolume(each, (12.0, 1.1)) for each in (study, everything))
    assert dominated >= 0.95 * most


def hypervolume(study: optuna.Study, reference: tuple[float, float]) -> float:
    area, edge = 0.0, reference[1]
    for loss, size in sorted(trial.values for trial in study.best_trials):
        area += (reference[0] - loss) * (edge - size)
        edge = size
    return area


def test_the_share_that_goes_on_holds_although_later_trials_are_better() -> None:
    """Of trials that get better all the time, three quarters are among the best half so far."""
    luck = np.random.default_rng(0).normal(size=60)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        loss, size = float(15 * luck[trial.number] - trial.number), trial.number % 3
        for step in (1, 2):
            report(trial, [loss, size], step)
            if step == 1:
                reached.append((loss, size))
                best_half.append(survivors(reached, study.directions, 2)[-1])
                if should_prune(trial):
                    raise optuna.TrialPruned
        return loss, size

    reached: list[tuple[float, float]] = []
    best_half: list[bool] = []
    study = new_study(warmup=4)
    study.optimize(objective, n_trials=60)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert sum(best_half) >= 42
    assert 27 <= len(complete) <= 35


def test_the_best_of_all_goes_on_however_many_did() -> None:
    study = new_study(["minimize"], warmup=4)
    for number in range(20):
        study.add_trial(create_trial(value=20.0 - number, intermediate_values={1: 20.0 - number, 2: 20.0 - number}))
    best, second = study.ask(), study.ask()
    best.report(0.5, 1)
    assert not best.should_prune()
    second.report(0.7, 1)
    assert second.should_prune()  # of 22 the second best, where only the best would do


def test_the_study_opens_with_plain_optuna_and_the_decisions_are_in_the_storage(tmp_path: Path) -> None:
    """A new pruner, on a storage opened anew, decides as the old one did."""
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = new_study(storage=url, study_name="s")
    add(study, [1, 2], [2, 1], state=TrialState.COMPLETE)
    add(study, [3, 3], [4, 4])
    bad, good = study.ask(), study.ask()
    report(bad, [5, 5], 1)
    report(good, [0, 0], 1)

    again = optuna.load_study(study_name="s", storage=url, pruner=ParetoHalvingPruner(warmup_trials=1))
    assert [trial.number for trial in again.best_trials] == [0, 1]
    decisions = [again.pruner.prune(again, trial) for trial in again.get_trials(states=(TrialState.RUNNING,))]
    assert decisions == [should_prune(bad), should_prune(good)] == [True, False]
    assert not ParetoHalvingPruner(warmup_trials=7).prune(again, again.trials[bad.number])

    stranger = optuna.load_study(study_name="s", storage=url)  # Optuna's default sampler and pruner
    assert [trial.number for trial in stranger.best_trials] == [0, 1]
    stranger.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.5), n_trials=12)
    assert len(stranger.best_trials) == 1


def every_report_is_whole(study: optuna.Study) -> bool:
    return all(
        trial.user_attrs[RUNG_VALUES].keys()
        == {str(step) for step, value in trial.intermediate_values.items() if not math.isnan(value)}
        and all(values_at(trial, int(step), 2) for step in trial.user_attrs[RUNG_VALUES])
        for trial in study.trials
    )


def test_threads_share_a_study() -> None:
    study = new_study(warmup=4, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(curve, n_trials=40, n_jobs=4)
    assert len(study.get_trials(states=(TrialState.PRUNED, TrialState.COMPLETE))) == 40
    assert study.get_trials(states=(TrialState.PRUNED,))
    assert every_report_is_whole(study)


WORKER = """
import sys
import optuna
from optuna_kd.pruners import ParetoHalvingPruner
sys.path.insert(0, sys.argv[2])
from test_halving import curve
optuna.logging.set_verbosity(optuna.logging.ERROR)
sampler = optuna.samplers.RandomSampler()
study = optuna.load_study(study_name="s", storage=sys.argv[1], pruner=ParetoHalvingPruner(), sampler=sampler)
study.optimize(curve, n_trials=10, callbacks=[lambda study, trial: study.set_user_attr(sys.argv[3], trial.number)])
"""


def test_processes_share_a_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = new_study(storage=url, study_name="s")
    here = str(Path(__file__).parent)
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, url, here, name]) for name in ("first", "second")]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    assert study.user_attrs.keys() == {"first", "second"}
    assert len(study.get_trials(states=(TrialState.PRUNED, TrialState.COMPLETE))) == 20
    assert study.get_trials(states=(TrialState.PRUNED,))
    assert every_report_is_whole(study)
