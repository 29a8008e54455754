"""Trials side by side: the same ones as one after another, each told to the study as it ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.trial import Trial, TrialState
from small_searches import Notes, Place, Task

from optuna_kd import DistillationObjective, create_study
from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner import jobs
from optuna_kd.runner.cohort import run_cohort
from optuna_kd.runner.plan import Plan
from optuna_kd.runner.trials import TrialPhase
from optuna_kd.study import count_finished
from optuna_kd.study.optimizing import next_trial
from optuna_kd.training.together import Attempt

PROXY = ProxyConfig(epochs=2, rungs=(1, 2))


def new_study(**arguments: Any) -> optuna.Study:
    return create_study(**{"storage": None, "seed": 0, "space": "auto-kd", "pruner": NopPruner(), **arguments})


def some(study: optuna.Study, count: int) -> Iterator[Trial]:
    for _ in range(count):
        trial = next_trial(study, None)
        assert trial is not None
        yield trial


def test_trials_side_by_side_are_those_one_after_another(teaching_task: Task) -> None:
    objective = DistillationObjective(teaching_task, proxy=PROXY)
    one, other = (
        new_study(sampler=optuna.samplers.RandomSampler(0)),
        new_study(sampler=optuna.samplers.RandomSampler(0)),
    )
    one.optimize(objective, n_trials=6)
    ended = list(run_cohort(other, objective, some(other, 6), most=3))
    assert sorted(number for number, _ in ended) == [0, 1, 2, 3, 4, 5]
    assert [error for _, error in ended] == [None] * 6
    for mine, theirs in zip(other.trials, one.trials, strict=True):
        assert (mine.state, mine.params) == (theirs.state, theirs.params)
        assert mine.intermediate_values == pytest.approx(theirs.intermediate_values, abs=0.02)
        assert set(mine.user_attrs) == set(theirs.user_attrs)


class AtTheFirstRung(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number % 2 == 1


def test_a_pruner_stops_trials_and_others_take_their_places(teaching_task: Task) -> None:
    study = new_study(pruner=AtTheFirstRung())
    ended = run_cohort(study, DistillationObjective(teaching_task, proxy=PROXY), some(study, 4), most=2)
    assert [number for number, _ in ended] == [1, 0, 2, 3]
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED] * 2
    assert study.trials[1].value == study.trials[1].intermediate_values[1]


def test_a_trial_that_fails_fails_alone(teaching_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = DistillationObjective.attempt

    def failing(objective: DistillationObjective, trial: Trial) -> Attempt[Any]:
        if trial.number == 1:
            objective.bind(trial.study)[0].suggest(trial)
            raise ZeroDivisionError("out of luck")
        return (yield from attempt(objective, trial))

    monkeypatch.setattr(DistillationObjective, "attempt", failing)
    study = new_study()
    ended = dict(run_cohort(study, DistillationObjective(teaching_task, proxy=PROXY), some(study, 3), most=3))
    assert {number: type(error) for number, error in ended.items()} == {
        0: type(None),
        1: ZeroDivisionError,
        2: type(None),
    }
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_trials_show_that_they_are_alive(teaching_task: Task, tmp_path: Path) -> None:
    """Otherwise a killed process would leave its trials running for ever."""
    study = new_study(storage=f"sqlite:///{tmp_path / 'kd.db'}")
    running = run_cohort(study, DistillationObjective(teaching_task, proxy=PROXY), some(study, 2), most=2)
    next(running)
    with sqlite3.connect(tmp_path / "kd.db") as database:
        assert database.execute("SELECT COUNT(*) FROM trial_heartbeats").fetchone() == (2,)
    running.close()


def test_a_search_runs_trials_together(teaching_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    monkeypatch.setattr(
        jobs, "run_cohort", lambda study, objective, trials, at_once: most.append(at_once) or run_cohort(
            study, objective, trials, at_once
        )
    )  # fmt: skip
    arguments: dict[str, Any] = {"trials": 5, "epochs": 1, "seeds": 2, "confirm": 0, "proxy": PROXY, "together": 2}
    place, notes = Place(teaching_task, tmp_path, {**arguments, "study_name": "small"}), Notes()
    result = place.search(progress=notes)
    assert set(most) == {2}
    assert count_finished(result.study) == 5
    assert notes.phases["Search"] == (5, 0)
    assert count_finished(place.search(trials=7, workers=2).study) == 7


@pytest.mark.parametrize(
    ("trials", "workers", "sizes"),
    [(8, 2, [4, 4]), (60, 1, [4, 8, 8, 8, 8, 8, 8, 8]), (30, 3, [4, 8, 6, 4, 4, 4]), (3, 1, [4])],
)
def test_every_worker_has_trials_to_the_end(trials: int, workers: int, sizes: list[int]) -> None:
    """The first job is short, because what binds is said after it."""
    run = Mock(study=new_study())
    phase = TrialPhase(run, Plan(trials=trials, workers=workers, together=4), best_so_far=str)
    assert [job.arguments[1] for job in phase._jobs_of(after=0.0)] == sizes
