"""Plans of running trials, whichever sampler makes them: they outlast that the study is read from the start."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler, UniADSSampler
from optuna_kd.samplers.plans import Plans
from optuna_kd.samplers.view import StudyView

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_categorical("kind", range(4)) + trial.suggest_float("x", 0, 1)


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
@pytest.mark.parametrize("sampler", [MCTSSampler(0), UniADSSampler(0, startup_trials=3)], ids=["mcts", "uniads"])
def test_a_trial_that_alone_had_a_parameter_is_run_again_while_others_run(sampler: BaseSampler) -> None:
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=8)
    killed = study.ask()
    killed.suggest_categorical("kind", range(4))
    killed.suggest_float("only", 0, 1)
    study.tell(killed, state=TrialState.FAIL)
    running = study.ask()
    running.suggest_categorical("kind", range(4))  # planned while "only" had a column
    again = optuna.create_trial(state=TrialState.WAITING, system_attrs={"retry_history": [killed.number]})
    study.add_trial(again)
    study.optimize(objective, n_trials=3)
    study.tell(running, objective(running))
    assert [trial.number for trial in study.get_trials(states=(TrialState.FAIL,))] == [killed.number]


def test_a_plan_keeps_its_values_when_columns_are_numbered_anew() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=2)
    view = StudyView()
    plans = Plans(view)
    view.refresh(study)
    asked = study.ask()
    planned = plans.keep(study.get_trials(deepcopy=False)[asked.number], view.log.paths().take([0]))  # type: ignore[arg-type]
    other = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(0))
    other.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_categorical("kind", range(4)), n_trials=2)
    view.refresh(other)
    view.unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    assert list(view.log.slots.columns) == ["x", "kind"]
    assert plans.running().positions.tolist() == [[planned.positions["x"], planned.positions["kind"]]]
    assert plans.running().keys == planned.path.keys
