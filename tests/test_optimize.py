"""`optimize`: totals over several processes, interruptions, seeds; what 25 + 25 trials draw is what 50 draw."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.trial import Trial, TrialState

from optuna_kd import FunctionObjective, Recipe, create_study, load_study, optimize
from optuna_kd.storages import claim_trial, frozen_of, original_number, retire_trial
from optuna_kd.study import SAMPLERS, space_of
from optuna_kd.study.seeding import PerTrialSampler
from optuna_kd.training import StudentTraining

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def objective(trial: Trial) -> float:
    return len(str(space_of(trial.study).suggest(trial))) % 13


@pytest.mark.parametrize("sampler", sorted(name for name in SAMPLERS if name != "uniads"))
def test_twice_25_trials_are_50(tmp_path: Path, sampler: str) -> None:
    whole = create_study(storage=None, seed=4, sampler=sampler)
    optimize(whole, objective, total_trials=50)
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    for total in (25, 50):
        parts = create_study(storage=url, study_name="s", seed=4, sampler=sampler, load_if_exists=True)
        optimize(parts, objective, total_trials=total)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    assert [trial.value for trial in parts.trials] == [trial.value for trial in whole.trials]
    assert len({str(trial.params) for trial in whole.trials}) > 10


@pytest.mark.parametrize("sampler", sorted(name for name in SAMPLERS if name != "uniads"))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_twice_25_are_50_though_the_first_was_stopped_in_the_middle_of_one(
    tmp_path: Path, sampler: str, kind: str
) -> None:
    whole = create_study(storage=None, seed=4, sampler=sampler)
    optimize(whole, objective, total_trials=30)
    parts = create_study(
        storage=None if kind == "memory" else f"sqlite:///{tmp_path / 'kd.db'}", seed=4, sampler=sampler
    )
    for stop in (12, 12, 13, 20, None):

        def stopped(trial: Trial, stop: int | None = stop) -> float:
            value = objective(trial)
            if original_number(frozen_of(trial)) == stop:
                raise KeyboardInterrupt
            return value

        with contextlib.nullcontext() if stop is None else pytest.raises(KeyboardInterrupt):
            optimize(parts, stopped, total_trials=30)
    finished = [trial for trial in parts.trials if trial.state == TrialState.COMPLETE]
    assert [original_number(trial) for trial in finished] == list(range(30))
    assert [trial.number for trial in finished] != list(range(30))
    assert [trial.params for trial in finished] == [trial.params for trial in whole.trials]


def test_processes_share_a_total(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    create_study(storage=url, study_name="s", seed=0, sampler="random")
    code = (
        "import sys, time\nfrom optuna_kd import load_study, optimize\n"
        "from optuna_kd.study import space_of\n"
        "def objective(trial):\n    space_of(trial.study).suggest(trial); time.sleep(0.02); return 0.0\n"
        "optimize(load_study('s', storage=sys.argv[1], sampler='random'), objective, total_trials=30)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    states = [trial.state for trial in load_study("s", storage=url).trials]
    assert states == [TrialState.COMPLETE] * 30


def test_it_waits_for_the_last_trials_of_others(tmp_path: Path) -> None:
    """One of them may fail, and then its place is free."""
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0, sampler="random")
    theirs = claim_trial(study, 3)
    assert theirs is not None
    fails = threading.Timer(1.5, lambda: study.tell(theirs.number, state=TrialState.FAIL))
    fails.start()
    optimize(study, objective, total_trials=3)
    fails.join()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] + [TrialState.COMPLETE] * 3


def test_an_objective_may_stop_the_study() -> None:
    study = create_study(storage=None, seed=0)

    def stops(trial: Trial) -> float:
        if trial.number == 2:
            trial.study.stop()
        return 0.0

    optimize(study, stops, total_trials=10)
    assert len(study.trials) == 3
    with pytest.raises(RuntimeError):
        study.stop()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "a value is not a number; got None"),
        ("x", "a value is not a number; got 'x'"),
        (float("nan"), "a value is not a number; got nan"),
        ((1.0, 2.0), "1 value expected; got (1.0, 2.0)"),
        ("text", "1 value expected; got 'text'"),
    ],
)
def test_values_that_are_none_fail_the_trial_with_a_reason(value: Any, reason: str) -> None:
    study = create_study(storage=None, seed=0)
    with pytest.raises(RuntimeError, match="10 trials in a row failed"):
        optimize(study, lambda trial: value, total_trials=1)
    assert {trial.state for trial in study.trials} == {TrialState.FAIL}
    assert {trial.user_attrs["fail_reason"] for trial in study.trials} == {reason}


def test_ctrl_c_queues_the_trial_again(tmp_path: Path) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0, sampler="random")

    def interrupted(trial: Trial) -> float:
        objective(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(study, interrupted, total_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    optimize(study, objective, total_trials=2)
    assert [original_number(trial) for trial in study.trials] == [0, 0, 1]
    assert study.trials[1].params == study.trials[0].params


def test_a_wish_to_stop_is_heard_at_the_next_report(tmp_path: Path, ctrl_c: None) -> None:
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0, sampler="random", pruner=NopPruner())
    reported: list[tuple[int, int]] = []

    def train(recipe: Recipe, *, seed: int, report: Callable[..., None]) -> float:
        for step in (1, 2, 3):
            reported.append((seed, step))
            if len(reported) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            report(step, step / 10)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        optimize(study, FunctionObjective(train), total_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[1].intermediate_values == {1: 0.1, 2: 0.2}
    optimize(study, FunctionObjective(train), total_trials=1)
    assert [step for _, step in reported] == [1, 2, 1, 2, 3]
    assert len({seed for seed, _ in reported}) == 1
    assert study.trials[1].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}


def test_a_trial_taken_for_lost_is_dropped_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The laptop slept, and another machine went on."""
    study = create_study(storage=f"sqlite:///{tmp_path / 'kd.db'}", seed=0, sampler="random")

    def asleep(trial: Trial) -> float:
        objective(trial)
        if trial.number == 0:
            retire_trial(study, study.trials[0])
        return 1.0

    optimize(study, asleep, total_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[1].params == study.trials[0].params
    assert "taken for lost" in caplog.text


def test_half_a_trial_draws_the_rest_as_the_whole() -> None:
    """Its process was killed between two suggestions."""
    whole, half = (create_study(storage=None, seed=1, sampler="random") for _ in range(2))
    optimize(whole, objective, total_trials=1)
    trial = claim_trial(half, 1)
    assert trial is not None
    name, distribution = next(iter(whole.trials[0].distributions.items()))
    trial._suggest(name, distribution)
    retire_trial(half, half.trials[0])
    optimize(half, objective, total_trials=1)
    assert half.trials[1].params == whole.trials[0].params


def test_samplers_seeded_per_trial_name_what_they_are() -> None:
    assert str(PerTrialSampler(lambda seed: optuna.samplers.RandomSampler(seed), 0)).startswith("RandomSampler")


KILLED = """
import os, sys
from pathlib import Path
import optuna_kd.objective
sys.path.insert(0, sys.argv[3])
from digits_worker import create_objective, join_study
from optuna_kd import optimize
write = optuna_kd.objective.write_trial
def killed(trial, attributes, reports=None):
    if reports and max(reports) > 8:
        os.kill(os.getpid(), 9)
    write(trial, attributes, reports)
optuna_kd.objective.write_trial = killed
optimize(join_study(sys.argv[1]), create_objective(Path(sys.argv[2])), total_trials=1)
"""


def test_a_killed_trial_goes_on_from_its_last_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parent / "chaos"
    monkeypatch.syspath_prepend(str(folder))
    from digits_worker import create_objective, join_study

    url, checkpoints = f"sqlite:///{tmp_path / 'kd.db'}", tmp_path / "checkpoints"
    killed = subprocess.run([sys.executable, "-c", KILLED, url, str(checkpoints), str(folder)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(checkpoints.glob("*.ckpt"))) == 1

    epochs: list[int] = []
    lessons = StudentTraining._lessons_of
    monkeypatch.setattr(
        StudentTraining, "_lessons_of", lambda self, epoch, cycle: epochs.append(epoch) or lessons(self, epoch, cycle)
    )
    study = join_study(url)
    optimize(study, create_objective(checkpoints), total_trials=1)
    assert epochs == list(range(8, 16))  # what was left after the rung at 8
    assert list(checkpoints.glob("*")) == []
    again = study.trials[1]
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]

    undisturbed = join_study(None)
    optimize(undisturbed, create_objective(None), total_trials=1)
    (twin,) = undisturbed.trials
    assert (again.params, again.values, again.intermediate_values) == (
        twin.params,
        twin.values,
        twin.intermediate_values,
    )
    assert set(again.user_attrs) == set(twin.user_attrs)
