"""What follows what: spaces are learned from their trials, and walks through them are those of the objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.samplers.domains import Domain, domain_of
from optuna_kd.samplers.surrogate.slots import Paths, Slots
from optuna_kd.samplers.surrogate.structure import Successor
from optuna_kd.samplers.tree import path_of
from optuna_kd.samplers.view import StudyView

Objective = Callable[[optuna.Trial], float]
RandomStudy = Callable[..., optuna.Study]
ViewOf = Callable[..., StudyView]
Named = Callable[[Slots, Paths], list[dict[str, Any]]]


def wishes_for(slots: Slots, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wishes = np.empty((count, len(slots)))
    for column in slots.canonical:
        wishes[:, column] = rng.uniform(slots[column].low, slots[column].high, count)
    return wishes


class Follower(optuna.trial.FixedTrial):
    """A trial that grants the objective the nearest value to each wish."""

    def __init__(self, wishes: dict[str, float]) -> None:
        super().__init__({})
        self.wishes = wishes
        self.asked: dict[str, Domain] = {}

    def _suggest(self, name: str, distribution: Any) -> Any:
        domain = self.asked[name] = domain_of(distribution)
        self._params[name] = distribution.to_external_repr(
            domain.internal(float(domain.nearest(np.array([self.wishes[name]]))[0]))
        )
        return self._params[name]


def three_gates(trial: optuna.Trial) -> float:
    if trial.suggest_categorical("first", ["a", "b", "c"]) == "a":
        trial.suggest_float("of_a", 0, 1)
    second = trial.suggest_categorical("second", [True, False])
    if second:
        trial.suggest_int("of_second", 0, 9)
        if trial.suggest_categorical("third", ["u", "v"]) == "u":
            trial.suggest_float("of_third", 1e-5, 1e-1, log=True)
    trial.suggest_int("always", 1, 3)
    return 0.0


def layers(trial: optuna.Trial) -> float:
    count = trial.suggest_int("n_layers", 1, 4)
    for layer in range(count):
        trial.suggest_int(f"units_{layer}", 8, 64, step=8)
    trial.suggest_float("dropout", 0.0, 0.5)
    return 0.0


def other_order(trial: optuna.Trial) -> float:
    names = ["x", "y", "z"] if trial.suggest_categorical("order", [0, 1]) else ["z", "x", "y"]
    for name in names:
        trial.suggest_float(name, 0, 1)
    return 0.0


def dynamic_range(trial: optuna.Trial) -> float:
    count = trial.suggest_int("count", 1, 6)
    trial.suggest_int("which", 0, count)
    trial.suggest_categorical("end", [0, 1])
    return 0.0


def distant_gate(trial: optuna.Trial) -> float:
    gate = trial.suggest_categorical("gate", [0, 1, 2])
    for name in ("x", "y"):
        trial.suggest_float(name, 0, 1)
    if gate == 2:
        trial.suggest_float("late", 0, 1)
    return 0.0


@pytest.mark.parametrize("objective", [three_gates, layers, other_order, dynamic_range, distant_gate])
def test_after_a_few_trials_every_walk_is_one_that_the_objective_takes(
    objective: Objective, random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    view = view_of(random_study(objective, trials=30))
    slots = view.log.slots
    wishes = wishes_for(slots, 300)
    found = named(slots, view.structure.walk(wishes, []))
    for row, walked in zip(wishes.tolist(), found, strict=True):
        follower = Follower({slot.name: wish for slot, wish in zip(slots, row, strict=True)})
        objective(follower)  # type: ignore[arg-type]
        assert walked.keys() == follower.asked.keys()
        for name, domain in follower.asked.items():
            assert walked[name] == domain.nearest(np.array([follower.wishes[name]]))[0]


def test_a_threshold_within_a_long_range_is_found_as_well_as_the_trials_show_it(
    random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_float("x", 0, 1) > 0.6:
            trial.suggest_float("above", 0, 1)
        return 0.0

    view = view_of(random_study(objective, trials=40))
    slots = view.log.slots
    wishes = wishes_for(slots, 500)
    found = named(slots, view.structure.walk(wishes, []))
    wrong = [walked["x"] for walked in found if ("above" in walked) != (walked["x"] > 0.6)]
    assert all(abs(x - 0.6) < 0.1 for x in wrong)


def test_a_walk_goes_on_from_a_path_and_from_what_is_asked_for(
    random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    view = view_of(random_study(three_gates, trials=30))
    slots = view.log.slots
    space = {"first": CategoricalDistribution(["a", "b", "c"]), "of_a": FloatDistribution(0, 1)}
    fixed = path_of(optuna.create_trial(value=0.0, params={"first": "a", "of_a": 0.25}, distributions=space))
    wishes = wishes_for(slots, 50)
    for walked in named(slots, view.structure.walk(wishes, fixed)):
        assert (walked["first"], walked["of_a"]) == (0, 0.25)
        assert {"second", "always"} < walked.keys()
    other = Successor(slots.columns["always"], domain_of(IntDistribution(1, 3)))
    for walked in named(slots, view.structure.walk(wishes, fixed, other)):
        assert walked.keys() == {"first", "of_a", "always"}  # what is asked for counts more than what was learned


def test_branches_and_keys_of_a_walk_are_those_of_the_trials(random_study: RandomStudy, view_of: ViewOf) -> None:
    view = view_of(random_study(trials=40))
    paths = view.log.paths()
    walked = view.structure.walk(np.nan_to_num(paths.positions), [])
    np.testing.assert_array_equal(walked.keys, paths.keys)
    np.testing.assert_array_equal(walked.branches, paths.branches)


def test_a_trial_that_did_not_end_tells_nothing_of_the_end(view_of: ViewOf, named: Named) -> None:
    space = {"x": CategoricalDistribution([0, 1]), "y": CategoricalDistribution([0, 1])}
    study = optuna.create_study(direction="maximize")
    for y in (0, 1):
        study.add_trial(optuna.create_trial(value=0.0, params={"x": y, "y": y}, distributions=space))
    for state in (TrialState.PRUNED, TrialState.FAIL):
        study.add_trial(optuna.create_trial(params={"x": 0}, distributions={"x": space["x"]}, state=state))
    view = view_of(study)
    found = named(view.log.slots, view.structure.walk(np.zeros((1, 2)), []))
    assert found == [{"x": 0, "y": 0}]


def test_of_trials_that_contradict_each_other_the_latest_are_believed(view_of: ViewOf, named: Named) -> None:
    space = {name: IntDistribution(0, 1) for name in ("a", "before", "between")}
    study = optuna.create_study(direction="maximize")
    for number in range(140):
        then = "between" if 60 <= number < 75 else "before"
        study.add_trial(
            optuna.create_trial(value=0.0, params={"a": 0, then: 0}, distributions={n: space[n] for n in ("a", then)})
        )
    for count, latest in ((60, "before"), (75, "between"), (140, "before")):
        for order in (1, -1):
            view = view_of(study, study.trials[:count][::order])
            walked = named(view.log.slots, view.structure.walk(np.zeros((1, len(view.log.slots))), []))
            assert walked == [{"a": 0, latest: 0}]


def test_what_hangs_on_a_parameter_being_there_is_learned_at_once(
    random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    def parity(trial: optuna.Trial) -> float:
        bits = [trial.suggest_int(f"bit{index}", 0, 1) for index in range(3)]
        if sum(bits) % 2:
            trial.suggest_float("there", 0, 1)
        trial.suggest_float("middle", 0, 1)
        if sum(bits) % 2:
            trial.suggest_float("late", 0, 1)
        return 0.0

    view = view_of(random_study(parity, trials=8))
    walked = named(view.log.slots, view.structure.walk(wishes_for(view.log.slots, 100), []))
    assert {("there" in names, "late" in names) for names in walked} == {(True, True), (False, False)}


def test_trials_that_contradict_each_other_do_not_make_a_walk_endless(
    random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    rng = np.random.default_rng(0)

    def whatever(trial: optuna.Trial) -> float:
        for index in rng.permutation(6)[: rng.integers(1, 7)]:
            trial.suggest_int(f"p{index}", 0, 3)
        return 0.0

    view = view_of(random_study(whatever, trials=60))
    slots = view.log.slots
    found = named(slots, view.structure.walk(wishes_for(slots, 200), []))
    assert all(walked for walked in found)


def many_ranges(trial: optuna.Trial) -> float:
    count = trial.suggest_int("count", 1, 30)
    trial.suggest_int("which", 0, count)
    return 0.0


@pytest.mark.parametrize(
    "objective",
    [
        three_gates,
        layers,
        other_order,
        dynamic_range,
        many_ranges,
    ],
)
@pytest.mark.parametrize("trials", [30, 90])
def test_what_is_learned_does_not_depend_on_the_order_of_arrival(
    objective: Objective, trials: int, random_study: RandomStudy, view_of: ViewOf, named: Named
) -> None:
    study = random_study(objective, trials=trials)
    walks = []
    for order in (np.arange(trials), np.arange(trials)[::-1], np.random.default_rng(0).permutation(trials)):
        frozen = study.trials
        view = view_of(study, [frozen[number] for number in order])
        slots = view.log.slots
        walks.append(named(slots, view.structure.walk(wishes_for(slots, 100), [])))
    assert walks[0] == walks[1] == walks[2]
