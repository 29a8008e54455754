"""MCTSSampler with its surrogate: what it finds, that a seed decides it all, what others decide, what it survives."""

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
from optuna_kd.samplers._compat import fixed_by
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


# What others decide.


def matching(trial: optuna.Trial) -> float:
    """What one parameter is worth depends on two that come after it."""
    a = trial.suggest_categorical("a", ["x", "y", "z"])
    n = trial.suggest_int("n", 0, 100)
    b = trial.suggest_categorical("b", ["x", "y", "z"])
    return float(a == b) - abs(n - {"x": 20, "y": 50, "z": 80}[b]) / 200


@pytest.fixture(scope="module")
def matched() -> list[optuna.trial.FrozenTrial]:
    """Trials that show how the parameters of `matching` depend on each other."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(matching, n_trials=40)
    return study.trials


def continued(trials: list[optuna.trial.FrozenTrial], seed: int = 0) -> optuna.Study:
    study = make_study(seed=seed)
    study.add_trials(trials)
    return study


@without_warning
@pytest.mark.parametrize("choice", ["x", "y", "z"])
def test_the_rest_of_an_enqueued_trial_is_planned_around_its_values(
    matched: list[optuna.trial.FrozenTrial], choice: str
) -> None:
    for seed in range(3):
        study = continued(matched, seed)
        study.enqueue_trial({"b": choice})
        study.enqueue_trial({"b": choice, "n": 99})
        study.optimize(matching, n_trials=2)
        first, second = study.trials[-2:]
        assert (first.params["a"], first.params["b"]) == (choice, choice)
        assert abs(first.params["n"] - {"x": 20, "y": 50, "z": 80}[choice]) < 20
        assert (second.params["b"], second.params["n"]) == (choice, 99)


@without_warning
def test_an_enqueued_trial_may_fix_the_beginning_or_everything_or_what_never_comes(
    matched: list[optuna.trial.FrozenTrial],
) -> None:
    study = continued(matched)
    queue: list[dict[str, Any]] = [
        {"a": "z"},
        {"a": "x", "n": 3, "b": "y"},
        {"unheard": 5},
        {"a": "y", "unheard": None},
    ]
    for params in queue:
        study.enqueue_trial(params)
    study.optimize(matching, n_trials=4)
    for trial, params in zip(study.trials[-4:], queue, strict=True):
        assert {name: trial.params[name] for name in params if name in trial.params}.items() <= params.items()
        assert trial.params.keys() == {"a", "n", "b"}
    assert study.trials[-4].params["b"] == "z"


@pytest.mark.filterwarnings("ignore:Fixed parameter:UserWarning")
def test_an_enqueued_value_from_outside_its_range_is_kept(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    study.enqueue_trial({"n": 500})
    study.optimize(matching, n_trials=3)
    assert study.trials[-3].params["n"] == 500


@pytest.mark.parametrize("fixed", [{"a": "z"}, {"b": "y"}, {"n": 50}])
def test_a_partially_fixed_sampler_around_it_decides_its_part(
    matched: list[optuna.trial.FrozenTrial], fixed: dict[str, Any]
) -> None:
    study = continued(matched)
    study.sampler = optuna.samplers.PartialFixedSampler(fixed, study.sampler)
    study.optimize(matching, n_trials=8)
    assert all(fixed.items() <= trial.params.items() for trial in study.trials[-8:])
    if "a" in fixed:
        assert max(trial.value for trial in study.trials[-8:]) > 0.9


def test_what_a_sampler_around_it_fixes_at_the_end_is_reckoned_with(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    study.sampler = optuna.samplers.PartialFixedSampler({"b": "y"}, study.sampler)
    study.optimize(matching, n_trials=12)
    assert len({tuple(trial.params.items()) for trial in study.trials[-12:]}) == 12
    assert max(trial.value for trial in study.trials[-12:]) > 0.9


@pytest.mark.parametrize(
    "other", [optuna.samplers.RandomSampler(seed=0), optuna.samplers.TPESampler(seed=0)], ids=["random", "tpe"]
)
def test_a_study_that_another_sampler_began_goes_on(other: optuna.samplers.BaseSampler) -> None:
    study = optuna.create_study(direction="maximize", sampler=other)
    study.optimize(recipe, n_trials=25)
    study.sampler = MCTSSampler(seed=0)
    study.optimize(recipe, n_trials=15)
    assert study.best_value > 1.4


# Parallel workers.


def test_workers_take_the_good_places_one_each(matched: list[optuna.trial.FrozenTrial]) -> None:
    study = continued(matched)
    asked = [study.ask(matched[0].distributions).params for _ in range(6)]
    assert {(params["a"], params["b"]) for params in asked[:3]} == {("x", "x"), ("y", "y"), ("z", "z")}
    assert len({tuple(params.items()) for params in asked}) == 6


def test_workers_with_half_a_trial_each_do_not_take_the_same_branch() -> None:
    space = {"a": CategoricalDistribution([0, 1, 2, 3]), "x": FloatDistribution(0, 1)}
    study = make_study()
    for a in range(4):
        for x in (0.2, 0.7):
            study.add_trial(optuna.create_trial(value=0.5 + 0.01 * x, params={"a": a, "x": x}, distributions=space))
    trials = [study.ask() for _ in range(4)]
    assert len({trial.suggest_categorical("a", [0, 1, 2, 3]) for trial in trials}) >= 3


# What it survives.


def survive(objective: Objective, trials: int = 20, direction: str = "maximize") -> optuna.Study:
    study = make_study(direction)
    study.optimize(objective, n_trials=trials)
    assert all(trial.state.is_finished() for trial in study.trials)
    return study


@without_warning
def test_thousands_of_choices_which_show_no_order() -> None:
    study = survive(lambda trial: float(trial.suggest_categorical("x", range(3000)) % 7))
    assert len({trial.params["x"] for trial in study.trials}) == 20


WIDE: dict[str, tuple[Objective, float]] = {
    "log": (lambda trial: -abs(math.log10(trial.suggest_float("x", 1e-300, 1e300, log=True)) - 40) / 600, -0.01),
    "int": (lambda trial: -abs(trial.suggest_int("x", 0, 2**60) / 2**60 - 0.3), -0.01),
    "log-int": (lambda trial: -abs(math.log2(trial.suggest_int("x", 1, 2**60, log=True)) / 60 - 0.3), -0.01),
    "narrow": (lambda trial: float(trial.suggest_float("x", 1.0, float(np.nextafter(1.0, 2.0))) > 1.0), 1.0),
}


@without_warning
@pytest.mark.parametrize("kind", WIDE)
def test_the_widest_ranges_and_the_narrowest(kind: str) -> None:
    objective, enough = WIDE[kind]
    assert survive(objective).best_value >= enough


def all_floats(trial: optuna.Trial) -> float:
    return -abs(trial.suggest_float("x", -1.7e308, 1.7e308) / 1.7e308 - 0.3)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_the_range_of_all_floats() -> None:
    assert survive(all_floats).best_value > -0.02


@without_warning
def test_the_range_of_all_floats_gives_no_warning() -> None:
    survive(all_floats)


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_spoil_nothing(odd: float) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = -recipe(trial)
        return odd if trial.number % 3 == 1 else value

    study = survive(objective, 24, "minimize")
    study.sampler.recommend(study)  # type: ignore[attr-defined]
    values = [trial.value for trial in study.trials if trial.value is not None and math.isfinite(trial.value)]
    assert min(values) < -0.8


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 1.7e308])
def test_values_that_are_all_the_same_leave_only_exploration(value: float) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("a", ["x", "y", "z"]), trial.suggest_categorical("b", [0, 1, 2, 3])
        return value

    study = survive(objective, trials=12)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 12


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
def test_ranges_that_depend_on_the_trial_or_on_other_parameters() -> None:
    def objective(trial: optuna.Trial) -> float:
        low = trial.suggest_int("low", -5 - trial.number, 5 + trial.number)
        high = trial.suggest_float("high", low, low + trial.number + 1)
        return high + trial.suggest_int("between", low, low + 1 + trial.number % 4)

    survive(objective, trials=20)


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
def test_a_trial_without_parameters_is_none_to_learn_from() -> None:
    study = survive(lambda trial: 1.0, trials=6)
    assert study.sampler.expect(study) == dict.fromkeys(range(6), 0.5)  # type: ignore[attr-defined]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    assert len(study.trials) == 12


def test_a_branch_with_a_single_choice_may_be_entered_late() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("gate", ["common", "rare"]) == "common":
            return trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("only", ["one choice"])
        return trial.suggest_float("y", 0, 1)

    study = make_study()
    for gate in ["common"] * 5 + ["rare"]:
        study.enqueue_trial({"gate": gate})
    study.optimize(objective, n_trials=12)


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
@pytest.mark.parametrize("how", ["enqueued", "fixed", "single"])
def test_a_new_parameter_may_be_decided_by_others(how: str) -> None:
    study = make_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    if how == "enqueued":
        study.enqueue_trial({"new": 1})
    if how == "fixed":
        study.sampler = optuna.samplers.PartialFixedSampler({"new": 1}, study.sampler)
    highest = 1 if how == "single" else 3
    study.optimize(lambda trial: trial.suggest_int("new", 1, highest) + trial.suggest_float("x", 0, 1), n_trials=4)
    assert study.trials[6].params["new"] == 1


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
def test_parameters_that_change_their_kind_fail_their_trial_and_no_other() -> None:
    study = make_study()
    study.optimize(recipe, n_trials=8)
    trial = study.ask()
    with pytest.raises(ValueError, match="dynamic value space"):
        trial.suggest_categorical("relation", [True, False, "maybe"])
    study.tell(trial, state=TrialState.FAIL)
    study.optimize(recipe, n_trials=8)
    assert [trial.state for trial in study.trials[9:]] == [TrialState.COMPLETE] * 8


@pytest.mark.parametrize("use", ["recommend", "expect", "tree"])
def test_several_objectives_are_refused_everywhere(use: str) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trial(optuna.create_trial(values=[0.0, 1.0]))
    with pytest.raises(ValueError, match=r"2 objectives.*NSGAIISampler"):
        getattr(MCTSSampler(), use)(study)


def test_the_parameters_that_a_partial_fixed_sampler_fixes_can_be_read() -> None:
    around = optuna.samplers.PartialFixedSampler({"a": 1}, MCTSSampler(seed=0))
    assert fixed_by(around) == {"a": 1}
    assert fixed_by(MCTSSampler(seed=0)) == {}


@pytest.mark.filterwarnings("ignore:Fixed parameter:UserWarning")
@pytest.mark.parametrize("far", [1e9, 1e160, math.inf])
def test_a_value_enqueued_from_far_outside_its_range_does_not_spoil_the_study(far: float) -> None:
    study = make_study()
    study.enqueue_trial({"x": far})
    study.optimize(lambda trial: -abs(min(trial.suggest_float("x", 0, 1), 2) - 0.3), n_trials=25)
    assert abs(study.sampler.recommend(study).params["x"] - 0.3) < 0.05  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Fixed parameter:UserWarning")
def test_an_enqueued_infinity_for_an_integer_fails_its_own_trial_at_most() -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 0, 9)

    study = make_study()
    study.optimize(objective, n_trials=6)
    study.enqueue_trial({"n": math.inf})
    study.optimize(objective, n_trials=4, catch=(OverflowError,))
    assert study.trials[-1].state is TrialState.COMPLETE


def test_integers_beyond_the_exact_floats_stay_on_their_grid() -> None:
    suggested: list[int] = []  # the storage keeps floats

    def objective(trial: optuna.Trial) -> float:
        suggested.append(trial.suggest_int("c", -7, 2**60 + 1, step=3))
        return float(suggested[-1])

    make_study().optimize(objective, n_trials=12)
    assert all((value + 7) % 3 == 0 for value in suggested)
