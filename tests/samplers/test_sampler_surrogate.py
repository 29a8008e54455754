"""MCTSSampler with its surrogate: what it finds, and that a seed decides it all."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler
from optuna_kd.samplers.surrogate import guide

Objective = Callable[[optuna.Trial], float]

pytestmark = pytest.mark.usefixtures("quiet_optuna")
without_warning = pytest.mark.filterwarnings("error::RuntimeWarning", "error::optuna_kd.samplers.SamplerWarning")


def make_study(direction: str = "maximize", seed: int = 0, selection: str = "surrogate") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=MCTSSampler(seed=seed, selection=selection))


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


def recipe(trial: optuna.Trial) -> float:
    """A recipe with two gates, options that add up, and a number with one best place; 1.5 at most."""
    value = 0.0
    if trial.suggest_categorical("relation", [True, False]):
        distances = {"kl": 0.4, "l2": 0.1, "cosine": 0.25, "l1": 0.0}
        value += distances[trial.suggest_categorical("distance", list(distances))]
        value -= 0.2 * abs(math.log10(trial.suggest_float("weight", 1e-2, 1e2, log=True)) - 0.5)
    value += {"a": 0.0, "b": 0.2, "c": 0.4}[trial.suggest_categorical("transform", ["a", "b", "c"])]
    if trial.suggest_categorical("mixup", [True, False]):
        value += 0.1 + 0.3 * (trial.suggest_int("layers", 1, 4) == 3)
    return value + 0.3 * (trial.suggest_categorical("schedule", ["x", "y", "z"]) == "y")


# What it finds.


def mean_recommended(sampler: Callable[[int], optuna.samplers.BaseSampler], seeds: int, trials: int) -> float:
    """The mean noise-free value of what is recommended after noisy trials."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        study = optuna.create_study(direction="maximize", sampler=sampler(seed))
        study.optimize(lambda trial: recipe(trial) + 0.15 * rng.normal(), n_trials=trials)  # noqa: B023
        chosen = study.sampler.recommend(study) if isinstance(study.sampler, MCTSSampler) else study.best_trial
        found.append(recipe(optuna.trial.FixedTrial(chosen.params)))  # type: ignore[arg-type]
    return float(np.mean(found))


@without_warning
def test_it_recommends_better_recipes_than_random_search_and_uct_find() -> None:
    ours = mean_recommended(lambda seed: MCTSSampler(seed=seed), seeds=10, trials=30)
    uct = mean_recommended(lambda seed: MCTSSampler(seed=seed, selection="uct"), seeds=10, trials=30)
    random = mean_recommended(lambda seed: optuna.samplers.RandomSampler(seed=seed), seeds=10, trials=30)
    assert ours > random + 0.25
    assert ours > uct + 0.25


PLACES: dict[str, tuple[Callable[[optuna.Trial], float], float]] = {
    "float": (lambda trial: trial.suggest_float("x", -10, 10) / 20, 0.365),
    "step": (lambda trial: trial.suggest_float("x", -10, 10, step=0.1) / 20, 0.365),
    "int": (lambda trial: trial.suggest_int("x", -100, 100) / 200, 0.185),
    "log-int": (lambda trial: math.log10(trial.suggest_int("x", 1, 10_000, log=True)) / 4, 0.62),
    "log-float": (lambda trial: math.log10(trial.suggest_float("x", 1e-8, 1.0, log=True)) / 8, -0.28),
    "short-int": (lambda trial: trial.suggest_int("x", 0, 10) / 10, 0.7),
    "choice": (lambda trial: float(trial.suggest_categorical("x", ["a", "b", "c"]) == "b"), 1.0),
}


@without_warning
@pytest.mark.parametrize("kind", PLACES)
def test_one_parameter_of_any_kind_is_brought_to_its_best_place(kind: str) -> None:
    place, best = PLACES[kind]
    study = make_study("minimize")
    study.optimize(lambda trial: abs(place(trial) - best), n_trials=20)
    assert study.best_value < 0.01


# A seed decides it all.


def troubled(trial: optuna.Trial) -> float:
    """The recipe with noise, pruned and failed trials."""
    value = recipe(trial) + 0.1 * float(np.random.default_rng(trial.number).normal())
    trial.report(value / 2, 1)
    if trial.number % 5 == 3:
        raise optuna.TrialPruned
    return float("nan") if trial.number % 7 == 4 else value


def test_a_fresh_process_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sampler_surrogate import go_on, optuna
optuna.logging.disable_default_handler()
go_on({str(tmp_path / "journal")!r})
"""
    go_on(str(tmp_path / "journal"))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    whole = make_study(seed=3)
    whole.optimize(troubled, n_trials=16)
    assert params_of(go_on(str(tmp_path / "journal"), n_trials=0)) == params_of(whole)


def go_on(journal: str, n_trials: int = 8) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(journal)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="s",
        direction="maximize",
        sampler=MCTSSampler(seed=3),
        load_if_exists=True,
    )
    study.optimize(troubled, n_trials=n_trials)
    return study


GATED = {
    "a": CategoricalDistribution([0, 1]),
    "rate": FloatDistribution(1e-3, 1.0, log=True),
    "b": CategoricalDistribution(["x", "y", "z"]),
    "n": IntDistribution(0, 99),
}


def told(study: optuna.Study, trial: optuna.Trial, rng: np.random.Generator) -> None:
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    state = states[int(rng.integers(4))]
    trial.report(float(rng.normal()), 1)
    study.tell(trial, float(rng.normal()) if state is TrialState.COMPLETE else None, state)


def test_at_any_moment_a_fresh_sampler_plans_what_a_long_lived_one_does() -> None:
    study, rng = make_study(seed=1), np.random.default_rng(0)
    running: list[optuna.Trial] = []
    for moment in range(32):
        trial, fresh = study.ask(), MCTSSampler(seed=1)
        for name, distribution in GATED.items():
            if name == "rate" and trial.params["a"] == 0:
                continue
            if moment % 4 == 0:
                frozen = study.get_trials()[trial.number]
                expected = fresh.sample_independent(study, frozen, name, distribution)
                assert study.sampler.sample_independent(study, frozen, name, distribution) == expected
            trial._suggest(name, distribution)
        running.append(trial)
        if len(running) == 4:
            told(study, running.pop(int(rng.integers(4))), rng)


def test_a_fresh_sampler_expects_what_a_long_lived_one_does_though_a_range_grew() -> None:
    def widening(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", [0, 1, 2])
        return kind + math.sin(3 * trial.suggest_float("x", 0.0, 1.0 if trial.number < 20 else 10.0))

    study = make_study()
    study.optimize(widening, n_trials=22)
    assert study.sampler.expect(study) == MCTSSampler(seed=0).expect(study)  # type: ignore[attr-defined]


@without_warning
def test_minimising_is_maximising_the_opposite() -> None:
    studies = {}
    for sign, direction in ((1, "maximize"), (-1, "minimize")):
        study = studies[direction] = make_study(direction)

        def objective(trial: optuna.Trial, sign: int = sign) -> float:
            value = recipe(trial)
            trial.report(sign * value / 2, 1)
            if trial.number % 6 == 5:
                raise optuna.TrialPruned
            return sign * value

        study.optimize(objective, n_trials=20)
    assert params_of(studies["maximize"]) == params_of(studies["minimize"])
    chosen = [study.sampler.recommend(study).number for study in studies.values()]  # type: ignore[attr-defined]
    assert chosen[0] == chosen[1]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters of its trial were known at each search."""
    made: list[int] = []
    original = guide.search

    def counted(belief: Any, structure: Any, fixed: Any, *more: Any) -> Any:
        made.append(len(fixed))
        return original(belief, structure, fixed, *more)

    monkeypatch.setattr(guide, "search", counted)
    return made


NUMBERS: Objective = lambda trial: trial.suggest_float("a", -3, 1) + trial.suggest_int("b", 1, 999)  # noqa: E731
STEPS: Objective = lambda trial: trial.suggest_float("a", -7.3, 11.9, step=0.3) + trial.suggest_int("b", 1, 9)  # noqa: E731
LOG_INTS: Objective = lambda trial: trial.suggest_int("a", 1, 999, log=True) + trial.suggest_int("b", 2, 64, log=True)  # noqa: E731


def log_floats(trial: optuna.Trial) -> float:
    return sum(trial.suggest_float(name, 1e-5, 1.0, log=True) for name in "abcdef")


@pytest.mark.parametrize(
    "objective",
    [
        NUMBERS,
        STEPS,
        LOG_INTS,
        log_floats,
    ],
    ids=["numbers", "steps", "log-ints", "log-floats"],
)
def test_a_trial_is_planned_once(objective: Objective, searches: list[int]) -> None:
    study = make_study()
    study.optimize(objective, n_trials=20)
    assert set(searches) == {0}
    assert len(searches) <= 20
