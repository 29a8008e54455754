"""What goes wrong: arguments, trials that fail or are interrupted, teachers that know nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from small_searches import Notes, Place, Task

from optuna_kd.objective import DistillationObjective
from optuna_kd.runner.jobs import SESSION
from optuna_kd.runner.teacher import TeacherError
from optuna_kd.study import count_finished
from optuna_kd.training.together import Attempt


@pytest.mark.parametrize("storage", [None, "sqlite:///:memory:", optuna.storages.InMemoryStorage()])
def test_processes_need_a_storage_they_can_open(empty: Place, storage: Any) -> None:
    with pytest.raises(ValueError, match="2 workers need a storage with a URL"):
        empty.search(storage=storage, workers=2)
    assert list(empty.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials must be >= 1; got 0"),
        ({"epochs": 0}, "epochs must be >= 1"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"workers": 0}, "workers must be >= 1"),
        ({"trials": None, "budget": "0s"}, "budget must be > 0"),
        ({"trials": None, "budget": "soon"}, "A duration reads like 20m.*'soon'"),
        ({"confirm": (2, 0)}, r"confirm is \(recipes, seeds\)"),
        ({"reward": "acuracy"}, "Unknown reward 'acuracy'.*accuracy"),
        ({"sampler": "mtcs"}, "Unknown sampler 'mtcs'.*mcts"),
        ({"space": "autokd"}, "auto-kd"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    empty: Place, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        empty.search(**arguments)
    assert list(empty.folder.iterdir()) == []


class Failing:
    """Makes trials fail where it is told so, by their place in the order of calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, which: set[int], error: type[BaseException]) -> None:
        self.calls = 0
        original = DistillationObjective.attempt

        def attempt(objective: DistillationObjective, trial: optuna.Trial) -> Attempt[Any]:
            self.calls += 1
            if self.calls in which:
                objective.bind(trial.study)[0].suggest(trial)
                raise error("out of luck")
            return (yield from original(objective, trial))

        monkeypatch.setattr(DistillationObjective, "attempt", attempt)


@pytest.mark.usefixtures("quiet_optuna")
def test_a_failing_trial_is_survived_and_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, {1, 2, 4}, RuntimeError)
    notes = Notes()
    result = place.search(trials=6, progress=notes)
    assert count_finished(result.study) == 6
    assert [trial.state for trial in result.study.trials].count(TrialState.FAIL) == 3
    assert [line for line in notes.lines if "failed" in line] == ["A trial failed: RuntimeError: out of luck"] * 3


@pytest.mark.usefixtures("quiet_optuna")
def test_three_failing_trials_in_a_row_end_the_search(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, set(range(1, 99)), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError, match="out of luck"):
        place.search(trials=20)
    assert failing.calls == 3
    assert count_finished(place.study()) == 4


@pytest.mark.usefixtures("quiet_optuna")
def test_an_interrupted_trial_comes_again_with_its_parameters_and_seed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(place.folder / "kd.db", place.folder / "other.db")
    undisturbed = place.search(trials=5, storage=f"sqlite:///{place.folder / 'other.db'}").study.trials[4]
    with monkeypatch.context() as patch:
        Failing(patch, {1}, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            place.search(trials=5)
    stopped = place.study().trials
    assert [trial.state for trial in stopped[4:]] == [TrialState.FAIL, TrialState.WAITING]
    trial = place.search(trials=5).study.trials[5]
    assert len(place.study().trials) == 6
    assert count_finished(place.study()) == 5
    assert trial.params == stopped[4].params == undisturbed.params
    assert trial.intermediate_values == undisturbed.intermediate_values
    assert trial.user_attrs["accuracy"] == undisturbed.user_attrs["accuracy"]
    assert trial.user_attrs[SESSION] != stopped[4].user_attrs.get(SESSION)


def test_trials_of_others_that_still_run_do_not_block(place: Place) -> None:
    """A killed process leaves its trial RUNNING; for a minute nobody can know that it is dead."""
    with pytest.warns(UserWarning, match="Heartbeat"):
        place.study().ask()
    result = place.search(trials=5)
    assert count_finished(result.study) == 5
    assert [trial.state for trial in result.study.trials].count(TrialState.RUNNING) == 1


class PruneAll(BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def test_a_search_without_a_complete_trial_says_so(empty: Place) -> None:
    with pytest.raises(ValueError, match=r"None of the 1 trials ran to its end; 0 were rejected\..*more trials"):
        empty.search(trials=1, pruner=PruneAll())


def test_a_teacher_at_chance_stops_the_search(
    empty: Place, make_task: Callable[..., Task], make_teacher: Callable[[int], Any]
) -> None:
    with pytest.raises(TeacherError, match=r"Likely reasons: .*normalisation"):
        empty.search(make_task(teacher=make_teacher(3)))
    assert not (empty.folder / "runs").exists()
    assert not (empty.folder / "kd.db").exists()
