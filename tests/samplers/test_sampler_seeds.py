"""Seeds: the same seed, trial number and finished trials give the same suggestion, in any process."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler

SPACE = {
    "a": CategoricalDistribution([0, 1]),
    "b": CategoricalDistribution([0, 1]),
    "n": IntDistribution(0, 99),
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_study(seed: int, selection: str) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=MCTSSampler(seed=seed, selection=selection))


def noisy(trial: optuna.Trial) -> float:
    """A space of every kind in which some trials fail and some are pruned."""
    kind = trial.suggest_categorical("kind", ["x", "y", "z"])
    x = trial.suggest_float("x", 1e-3, 10, log=True) if kind == "x" else trial.suggest_int("n", 0, 50)
    depth = trial.suggest_int("depth", 1, 4)
    value = float(np.random.default_rng(trial.number).normal()) + x / 10 + depth
    trial.report(value / 2, 1)
    if trial.number % 5 == 3:
        raise optuna.TrialPruned
    if trial.number % 7 == 4:
        return float("nan")
    trial.report(value / 3, 2)
    return value


def test_25_and_25_trials_give_the_same_as_50(selection: str, sqlite_url: str) -> None:
    for _ in range(2):  # a new sampler and a new study object, as in a fresh process
        resumed = optuna.create_study(
            storage=sqlite_url,
            study_name="s",
            direction="maximize",
            sampler=MCTSSampler(seed=3, selection=selection),
            load_if_exists=True,
        )
        resumed.optimize(noisy, n_trials=25)
    whole = make_study(3, selection)
    whole.optimize(noisy, n_trials=50)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in whole.trials]


def test_a_fresh_sampler_suggests_what_a_long_lived_one_does_though_trials_finished_out_of_order(
    selection: str,
) -> None:
    study = make_study(1, selection)
    rng = np.random.default_rng(0)
    running: list[optuna.Trial] = []
    for _ in range(60):
        trial = study.ask(SPACE)
        running.append(trial)
        if len(running) == 4:
            done = running.pop(int(rng.integers(4)))
            state = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL][int(rng.integers(4))]
            done.report(float(rng.normal()), 1)
            study.tell(done, float(rng.normal()) if state is TrialState.COMPLETE else None, state)
    frozen = study.get_trials(states=(TrialState.RUNNING,))[-1]
    frozen.params, frozen.distributions = {}, {}
    fresh = MCTSSampler(seed=1, selection=selection)
    for name, distribution in SPACE.items():
        value = study.sampler.sample_independent(study, frozen, name, distribution)
        assert value == fresh.sample_independent(study, frozen, name, distribution)
        frozen.params[name], frozen.distributions[name] = value, distribution


def suggestions(sampler: MCTSSampler, trials: int = 12) -> list[dict]:
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    return [trial.params for trial in study.trials]


def test_the_seed_decides_the_draws(selection: str) -> None:
    def drawn(seed: int | None) -> list[dict]:
        return suggestions(MCTSSampler(seed=seed, selection=selection))

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(None) != drawn(None)
    assert drawn(np.int64(5)) == drawn(5)  # type: ignore[arg-type]


def test_reseeding_gives_new_draws_unless_a_seed_was_given(selection: str) -> None:
    fixed = MCTSSampler(seed=5, selection=selection)
    fixed.reseed_rng()
    assert suggestions(fixed) == suggestions(MCTSSampler(seed=5, selection=selection))
    free = MCTSSampler(selection=selection)
    twin = copy.deepcopy(free)
    assert suggestions(free) == suggestions(twin)
    twin.reseed_rng()
    assert suggestions(free) != suggestions(twin)


def test_a_pickled_sampler_goes_on(selection: str) -> None:
    study = make_study(2, selection)
    study.optimize(noisy, n_trials=10)
    other = make_study(2, selection)
    other.optimize(noisy, n_trials=10)
    other.sampler = pickle.loads(pickle.dumps(other.sampler))
    for each in (study, other):
        each.optimize(noisy, n_trials=5)
    assert [trial.params for trial in study.trials] == [trial.params for trial in other.trials]
