"""What MCTSSampler with its surrogate survives: odd ranges, odd values, spaces that change."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler
from optuna_kd.samplers._compat import fixed_by

Objective = Callable[[optuna.Trial], float]

pytestmark = pytest.mark.usefixtures("quiet_optuna")
without_warning = pytest.mark.filterwarnings("error::RuntimeWarning", "error::optuna_kd.samplers.SamplerWarning")


def make_study(direction: str = "maximize", seed: int = 0, selection: str = "surrogate") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=MCTSSampler(seed=seed, selection=selection))


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

    study = survive(objective, 36, "minimize")
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


def test_a_branch_with_nothing_left_is_not_entered_again_at_the_start() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("gate", [False, True]):
            return float(trial.suggest_categorical("a", [0, 1, 2]) * trial.suggest_int("b", 0, 3))
        return 5.0

    for seed in range(4):
        study = optuna.create_study(direction="maximize", sampler=MCTSSampler(seed=seed))
        study.optimize(objective, n_trials=13)
        assert len({tuple(trial.params.items()) for trial in study.trials}) == 13


def test_the_tree_of_a_study_whose_choices_have_changed() -> None:
    study = optuna.create_study(direction="maximize")
    for choices, value in ((("a", "b", "c"), "c"), (("a", "b"), "a")):
        distributions = {"x": CategoricalDistribution(choices)}
        study.add_trial(optuna.create_trial(params={"x": value}, distributions=distributions, value=1e308))
    tree = MCTSSampler.tree(study)
    assert sorted(child["path"][0][1] for child in tree["children"]) == ["a", "c"]
    assert tree["value"] == 1e308
