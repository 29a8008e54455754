"""MCTSSampler in studies: what it finds, how workers spread, what is evidence, what it survives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import UCT, MCTSSampler

A = {"a": CategoricalDistribution([0, 1])}
AB = {**A, "b": CategoricalDistribution([0, 1])}
GREEDY = UCT(exploration=0.0)
heeds_the_evidence = pytest.mark.parametrize("selection", [GREEDY, "surrogate"], ids=["greedy", "surrogate"])


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_study(direction: str = "maximize", **options: object) -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=MCTSSampler(**{"seed": 0, **options}))  # type: ignore[arg-type]


def add(study: optuna.Study, params: dict, value: float | None = None, space: dict = AB, **more: object) -> None:
    distributions = {name: space[name] for name in params}
    study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value, **more))  # type: ignore[arg-type]


# What it finds.


def gated(trial: optuna.Trial) -> float:
    """A tree of 4 x (3 or 5) x 4 choices in which the first choice says which subtree is good."""
    gate = trial.suggest_categorical("gate", ["a", "b", "c", "d"])
    first = trial.suggest_categorical(f"{gate}1", range(3 if gate in "ab" else 5))
    second = trial.suggest_categorical(f"{gate}2", range(4))
    return (gate == "c") + 0.7 * (gate == "c" and first == 3) + 0.3 * (second == 1)


def mean_best(sampler: Callable[[int], optuna.samplers.BaseSampler], seeds: int, trials: int) -> float:
    best = []
    for seed in range(seeds):
        study = optuna.create_study(direction="maximize", sampler=sampler(seed))
        study.optimize(gated, n_trials=trials)
        best.append(study.best_value)
    return float(np.mean(best))


def test_finds_more_in_a_gated_tree_than_random_search(selection: str) -> None:
    ours = mean_best(lambda seed: MCTSSampler(seed=seed, selection=selection), seeds=15, trials=25)
    random = mean_best(lambda seed: optuna.samplers.RandomSampler(seed=seed), seeds=15, trials=25)
    assert ours > random + 0.15


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    ("place", "best"),
    [
        (lambda trial: trial.suggest_float("x", -10, 10) / 20, 0.365),
        (lambda trial: trial.suggest_float("x", -10, 10, step=0.1) / 20, 0.365),
        (lambda trial: trial.suggest_int("x", -100, 100) / 200, 0.185),
        (lambda trial: math.log10(trial.suggest_int("x", 1, 10_000, log=True)) / 4, 0.62),
        (lambda trial: math.log10(trial.suggest_float("x", 1e-8, 1.0, log=True)) / 8, -0.28),
    ],
    ids=["float", "step", "int", "log-int", "log-float"],
)
def test_uct_closes_in_on_the_best_part_of_a_range(
    place: Callable[[optuna.Trial], float], best: float, direction: str
) -> None:
    sign = -1 if direction == "maximize" else 1
    ratios = []
    for seed in range(4):
        study = make_study(direction, seed=seed, selection="uct")
        study.optimize(lambda trial: sign * abs(place(trial) - best), n_trials=80)
        distances = [abs(trial.value) for trial in study.trials]
        ratios.append(np.mean(distances[-30:]) / np.mean(distances[:30]))
        assert min(distances) < 0.02
    assert np.mean(ratios) < 0.75  # random search stays at 1


@pytest.mark.parametrize("selection", [GREEDY, "uct", "surrogate"], ids=["greedy", "uct", "surrogate"])
def test_no_combination_is_repeated_while_one_is_untried(selection: Any) -> None:
    def objective(trial: optuna.Trial) -> float:
        a = trial.suggest_categorical("a", ["x", "y", "z"])
        if a == "x":
            return trial.suggest_int("b", 0, 4) + 10.0  # the best subtree is exhausted first
        return float(trial.suggest_categorical("c", [False, True]) + trial.suggest_int("d", 0, 2))

    study = make_study(selection=selection)
    study.optimize(objective, n_trials=5 + 2 * 6)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 17
    study.optimize(objective, n_trials=3)  # and then it repeats the best
    assert all(trial.params["a"] == "x" for trial in study.trials[17:])


@pytest.mark.parametrize("sizes", [(10, 10), (6, 6, 6)])
def test_the_last_few_recipes_of_a_larger_space_are_found(sizes: tuple[int, ...], selection: str) -> None:
    space = {f"p{index}": IntDistribution(0, size - 1) for index, size in enumerate(sizes)}
    recipes = list(itertools.product(*map(range, sizes)))
    rng = np.random.default_rng(0)
    rng.shuffle(recipes)
    study = make_study(selection=selection)
    for recipe in recipes[2:]:
        add(study, dict(zip(space, recipe, strict=True)), float(sum(recipe) + rng.normal()), space)
    for _ in range(2):
        study.tell(study.ask(space), 0.0)
    assert {tuple(trial.params.values()) for trial in study.trials} == set(map(tuple, recipes))


def test_thousands_of_choices(selection: str) -> None:
    study = make_study(selection=selection)
    study.optimize(lambda trial: trial.suggest_categorical("x", range(4000)), n_trials=30)
    assert len({trial.params["x"] for trial in study.trials}) == 30


def test_single_choices_are_returned_at_once_when_asked_directly() -> None:
    study = make_study()
    trial = study.ask()
    frozen = study.trials[trial.number]
    for distribution in (CategoricalDistribution(["only"]), IntDistribution(3, 3)):
        value = study.sampler.sample_independent(study, frozen, "x", distribution)
        assert value in ("only", 3)


# Parallel workers.


def test_unfinished_trials_send_the_next_worker_elsewhere(selection: str) -> None:
    study = make_study(selection=selection)
    assert len({study.ask(A).params["a"] for _ in range(2)}) == 2
    assert len({tuple(study.ask(AB).params.items()) for _ in range(4)}) == 4


def test_unfinished_trials_count_among_visited_children_too() -> None:
    study = make_study(selection="uct")
    space = A | {"n": IntDistribution(0, 99)}
    for n in range(4):
        add(study, {"a": 0, "n": n}, n, space)
        add(study, {"a": 1, "n": n}, n, space)
    chosen = [study.ask(space).params["a"] for _ in range(6)]
    assert sorted(chosen) == [0, 0, 0, 1, 1, 1]


@heeds_the_evidence
def test_a_recipe_that_is_being_tried_is_not_tried_twice(selection: Any) -> None:
    study = make_study(selection=selection)
    for a, b in ((0, 0), (1, 0), (1, 1)):
        add(study, {"a": a, "b": b}, 1.0 * a)
    assert study.ask(AB).params == {"a": 0, "b": 1}
    assert study.ask(AB).params["a"] == 1  # everything tried or being tried: the best again


def test_interleaved_suggestions_of_two_workers(selection: str) -> None:
    study = make_study(selection=selection)
    one, two = study.ask(), study.ask()
    chosen = [trial.suggest_categorical("a", [0, 1]) for trial in (one, two)]
    assert sorted(chosen) == [0, 1]


def test_threads(selection: str) -> None:
    study = make_study(selection=selection)
    study.optimize(gated, n_trials=40, n_jobs=2)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert len({tuple(trial.params.items()) for trial in study.trials}) >= 36  # two may race for one leaf


# Evidence.


@heeds_the_evidence
def test_failed_trials_are_evidence_against_their_branch(selection: Any) -> None:
    study = make_study(selection=selection)
    for n in range(3):
        add(study, {"a": 0, "n": n}, state=TrialState.FAIL, space=AB | {"n": IntDistribution(0, 99)})
        add(study, {"a": 1, "n": n}, 1.0 + n, space=AB | {"n": IntDistribution(0, 99)})
    assert all(study.ask(A).params["a"] == 1 for _ in range(3))  # unfinished ones calm the branch they are in


def test_a_failed_trial_without_parameters_is_no_evidence(selection: str) -> None:
    study = make_study(selection=selection)
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))
    assert study.ask(AB).params.keys() == {"a", "b"}


@heeds_the_evidence
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_pruned_trial_counts_by_rank_and_not_by_its_early_value(direction: str, selection: Any) -> None:
    sign = 1 if direction == "maximize" else -1
    space = AB | {"n": IntDistribution(0, 99)}
    study = make_study(direction, selection=selection)
    for n in range(4):
        # Early values are far better than final ones; those of branch 0 are the worst at their rung.
        add(study, {"a": 1, "n": n}, sign * (1.0 + n), space, intermediate_values={1: sign * (200.0 + n)})
        early = {1: sign * (100.0 + n)}
        add(study, {"a": 0, "n": n}, sign * 100.0, space, intermediate_values=early, state=TrialState.PRUNED)
    assert study.ask(A).params["a"] == 1


def test_enqueued_and_partially_fixed_trials(selection: str) -> None:
    study = make_study(selection=selection)
    study.enqueue_trial({"gate": "c", "c1": 3})
    study.optimize(gated, n_trials=3)
    assert study.trials[0].params["gate"] == "c"
    assert study.trials[0].params["c1"] == 3
    study.sampler = optuna.samplers.PartialFixedSampler({"gate": "d"}, study.sampler)
    study.optimize(gated, n_trials=12)
    assert len({tuple(trial.params.items()) for trial in study.trials[3:]}) == 12


# What it survives.


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
def test_infinite_values_and_only_failures(selection: str) -> None:
    study = make_study(selection=selection)
    study.optimize(lambda trial: float("nan") * trial.suggest_int("x", 0, 3), n_trials=6)
    study.optimize(lambda trial: (-1) ** trial.suggest_int("x", 0, 3) * float("inf"), n_trials=6)
    assert len(study.trials) == 12


@pytest.mark.filterwarnings("ignore::optuna_kd.samplers.SamplerWarning")
def test_a_changed_space(selection: str) -> None:
    study = make_study(selection=selection)
    study.optimize(lambda trial: trial.suggest_int("x", 0, 5) + trial.suggest_float("y", 0, 1), n_trials=5)
    study.optimize(lambda trial: trial.suggest_float("y", 0, 9) + trial.suggest_int("x", 3, 99), n_trials=5)
    study.optimize(lambda trial: trial.suggest_int("z", 0, 5), n_trials=5)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


@heeds_the_evidence
def test_a_study_deleted_and_made_again_under_its_name_starts_afresh(selection: Any) -> None:
    storage = optuna.storages.InMemoryStorage()
    sampler = MCTSSampler(seed=0, selection=selection)
    for better in (0, 1):
        study = optuna.create_study(storage=storage, study_name="s", sampler=sampler, direction="maximize")
        for a, n in ((0, 1), (0, 2), (1, 1), (1, 2)):
            add(study, {"a": a, "n": n}, float(a == better), A | {"n": IntDistribution(0, 99)})
        assert study.ask(A).params["a"] == better
        optuna.delete_study(study_name="s", storage=storage)


def test_hyperband_which_shows_the_sampler_one_bracket_at_a_time(selection: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = gated(trial)
        for step in range(1, 10):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = optuna.create_study(
        study_name="bands",
        direction="maximize",
        sampler=MCTSSampler(seed=0, selection=selection),
        pruner=optuna.pruners.HyperbandPruner(max_resource=9),
    )
    study.optimize(objective, n_trials=20)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_several_objectives_are_refused_with_a_way_out(selection: str) -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=MCTSSampler(selection=selection))
    with pytest.raises(ValueError, match=r"2 objectives.*NSGAIISampler"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=1)


def test_earlier_trials_are_read_only_once(selection: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_kd.samplers import view

    read: list[int] = []
    original = view.path_of
    monkeypatch.setattr(view, "path_of", lambda trial: read.append(trial.number) or original(trial))
    study = make_study(selection=selection)
    study.optimize(gated, n_trials=20)
    assert read == list(range(19))
