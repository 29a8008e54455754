"""UniADSSampler on whole studies: what it promises beyond drawing values that are allowed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_kd.samplers import SamplerWarning, UniADSSampler
from optuna_kd.samplers.nsga.guide import Settings, population_size

BOTH = ["minimize", "minimize"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(params=[True, False], ids=["screening", "plain"])
def screening(request: pytest.FixtureRequest) -> bool:
    return request.param


def gated(trial: optuna.Trial) -> tuple[float, float]:
    """A space of every kind in which some trials fail and some are pruned."""
    kind = trial.suggest_categorical("kind", ["x", "y", "z"])
    x = trial.suggest_float("x", 1e-3, 10, log=True) if kind == "x" else trial.suggest_int("n", 0, 50) / 10
    depth = trial.suggest_int("depth", 1, 7, step=2)
    noise = np.random.default_rng(trial.number).normal(size=2) / 10
    values = (x - depth / 3) ** 2 + noise[0], depth + x / 10 + noise[1]
    trial.set_user_attr("rung_values", {"1": [values[0] + 1, "NaN" if trial.number % 10 == 8 else values[1]]})
    trial.set_constraint("x", x - 4)
    if trial.number % 5 == 3:
        raise optuna.TrialPruned
    if trial.number % 7 == 4:
        return float("nan"), 0.0
    return values


def params_of(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_15_and_15_trials_give_the_same_as_30(screening: bool, sqlite_url: str) -> None:
    for _ in range(2):
        resumed = optuna.create_study(
            storage=sqlite_url,
            study_name="s",
            directions=BOTH,
            sampler=UniADSSampler(3, screening=screening),
            load_if_exists=True,
        )
        resumed.optimize(gated, n_trials=15)
    whole = optuna.create_study(directions=BOTH, sampler=UniADSSampler(3, screening=screening))
    whole.optimize(gated, n_trials=30)
    assert params_of(resumed) == params_of(whole)


def test_a_fresh_process_suggests_the_same(sqlite_url: str) -> None:
    study = optuna.create_study(storage=sqlite_url, study_name="s", directions=BOTH, sampler=UniADSSampler(5))
    study.optimize(gated, n_trials=14)
    script = f"""
        import optuna
        from optuna_kd.samplers import UniADSSampler
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.load_study(storage={sqlite_url!r}, study_name="s", sampler=UniADSSampler(5))
        trial = study.ask()
        kind = trial.suggest_categorical("kind", ["x", "y", "z"])
        trial.suggest_float("x", 1e-3, 10, log=True) if kind == "x" else trial.suggest_int("n", 0, 50)
        trial.suggest_int("depth", 1, 7, step=2)
        print(trial.params)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr

    copied = optuna.create_study(directions=BOTH, sampler=study.sampler)  # it has the plans and kernels of its study
    copied.add_trials(study.trials[:14])
    trial = copied.ask()
    gated(trial)
    assert told.stdout.strip() == str(trial.params)


def test_the_order_in_which_trials_finish_makes_no_difference(screening: bool) -> None:
    """A sampler that looked on while trials finished out of order, and one that comes to the finished study."""

    def draw(trial: optuna.Trial) -> None:
        if trial.suggest_categorical("kind", "ab") == "a":
            trial.suggest_float("x", 0, 1)
        trial.suggest_int(f"depth_{trial.number % 3}", 1, 9)

    study = optuna.create_study(directions=BOTH, sampler=optuna.samplers.RandomSampler(0))
    trials = [study.ask() for _ in range(24)]
    for trial in trials:
        draw(trial)
    study.sampler = UniADSSampler(0, screening=screening)
    values = np.random.default_rng(0).normal(size=(26, 2))
    for number in [23, 5, 17, 2, 0, 11, 9, 14, 1, 3, 20, 8]:
        study.tell(number, values[number].tolist())
    early = study.ask()
    draw(early)
    study.tell(early, values[24].tolist())
    for number in [22, 4, 21, 6, 7, 10, 19, 12, 13, 18, 15, 16]:
        study.tell(number, values[number].tolist())
    late = study.ask()
    draw(late)

    fresh = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0, screening=screening))
    fresh.add_trials(study.trials[:25])
    again = fresh.ask()
    draw(again)
    assert again.params == late.params


def opposed(trial: optuna.Trial) -> tuple[float, float]:
    """A front from (0, 1) to (1, 0) in the branch "a"; in "b" all is worse by one."""
    branch = trial.suggest_categorical("branch", ["a", "b", "c", "d"])
    places = [trial.suggest_float(f"{branch}_{index}", 0, 1) for index in range(4)]
    away = sum((place - 0.7) ** 2 for place in places[1:])
    worse = 0.0 if branch == "a" else 1.0
    return places[0] + away + worse, 1 - places[0] + away + worse


def test_genes_of_a_branch_evolve(screening: bool) -> None:
    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0, screening=screening))
    study.optimize(opposed, n_trials=60 if screening else 270)
    late = study.trials[-30:]
    assert sum(trial.params["branch"] == "a" for trial in late) > 15  # a quarter, 7 or 8, by chance
    found = [t.params[f"a_{index}"] for t in late if t.params["branch"] == "a" for index in (1, 2, 3)]
    assert np.mean(np.square(np.array(found) - 0.7)) < 0.06  # 0.123 by chance


def test_pruned_trials_are_no_parents_while_there_are_survivors() -> None:
    study = optuna.create_study(
        directions=BOTH, sampler=UniADSSampler(0, population_size=4, screening=False, mutation_prob=0)
    )
    distributions = {
        "kind": optuna.distributions.CategoricalDistribution(range(50)),
        "n": optuna.distributions.IntDistribution(0, 50),
    }
    for number in range(50):
        survivor = number < 4
        study.add_trial(
            optuna.create_trial(
                params={"kind": number, "n": number},
                distributions=distributions,
                values=[number, -number] if survivor else None,
                state=TrialState.COMPLETE if survivor else TrialState.PRUNED,
                user_attrs={"rung_values": {"3": [-100.0, -100.0]}},
            )
        )
    for _ in range(6):
        trial = study.ask()
        trial.suggest_categorical("kind", range(50))
        trial.suggest_int("n", 0, 50)
        assert trial.params["kind"] < 4
        assert trial.params["n"] < 4


def test_pruned_trials_alone_are_a_population_too() -> None:
    study = optuna.create_study(directions=BOTH, sampler=optuna.samplers.RandomSampler(0))
    space = {name: optuna.distributions.CategoricalDistribution(range(50)) for name in "ab"}
    for number in range(6):
        trial = study.ask(space)
        trial.set_user_attr("rung_values", {"1": [number, number]})
        study.tell(trial, state=TrialState.PRUNED)
    study.sampler = UniADSSampler(0, population_size=2, screening=False, mutation_prob=0)
    parents, child = study.trials[:2], study.ask(space)
    assert {child.params["a"], child.params["b"]} <= {value for parent in parents for value in parent.params.values()}


@pytest.mark.parametrize("directions", [["minimize"], BOTH, ["minimize"] * 3])
def test_constraints_are_honoured(directions: list[str]) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("c", 0.7 - x)  # the objectives pull x towards 0
        return (x + (y - 0.5) ** 2, x - y, x + y)[: len(directions)]

    study = optuna.create_study(directions=directions, sampler=UniADSSampler(0))
    study.optimize(objective, n_trials=50)
    feasible = [trial.params["x"] >= 0.7 for trial in study.trials[20:]]
    assert np.mean(feasible) > 0.4  # the best are at the border; 0.3 by chance, 0 without the constraint


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_maximising_is_minimising_the_negative(objectives: int, screening: bool) -> None:
    def run(sign: float) -> list[dict[str, Any]]:
        def objective(trial: optuna.Trial) -> list[float]:
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_int("y", 0, 9)
            return [sign * value for value in (x + y, x - y, x * y)[:objectives]]

        directions = ["minimize" if sign > 0 else "maximize"] * objectives
        study = optuna.create_study(directions=directions, sampler=UniADSSampler(0, screening=screening))
        study.optimize(objective, n_trials=25)
        return params_of(study)

    assert run(1.0) == run(-1.0)


def test_single_objective_beats_random_search() -> None:
    def objective(trial: optuna.Trial) -> float:
        return sum((trial.suggest_float(f"x{index}", -1, 1) - 0.4) ** 2 for index in range(5))

    def best(sampler: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=40)
        return study.best_value

    assert best(UniADSSampler(0)) < 0.3 * best(optuna.samplers.RandomSampler(0))


def test_three_objectives_approach_the_front() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        away = sum((trial.suggest_float(f"z{index}", 0, 1) - 0.3) ** 2 for index in range(4))
        return x + away, y + away, 2 - x - y + away

    study = optuna.create_study(directions=["minimize"] * 3, sampler=UniADSSampler(0))
    study.optimize(objective, n_trials=60)
    away = [sum(trial.values) - 2 for trial in study.trials]
    assert np.median(away[40:]) < 0.3 * np.median(away[:10])


def test_nothing_is_repeated_before_all_is_tried(screening: bool) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a = trial.suggest_categorical("a", [0, 1, 2])
        b = trial.suggest_int("b", 0, 3) if a else 0
        return float(a + b), float(a - b)

    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0, screening=screening, population_size=3))
    study.optimize(objective, n_trials=9)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 9
    study.optimize(objective, n_trials=3)  # and then repetitions are allowed
    assert len(study.trials) == 12


def test_workers_in_threads_do_not_repeat_each_other(screening: bool) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        choices = [trial.suggest_categorical(f"c{index}", range(4)) for index in range(4)]
        return float(sum(choices)), float(-choices[0])

    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0, screening=screening))
    study.optimize(objective, n_trials=40, n_jobs=4)
    assert len(study.trials) == 40
    assert len({tuple(trial.params.items()) for trial in study.trials}) > 36


def test_running_trials_are_kept_clear_of() -> None:
    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    study.optimize(opposed, n_trials=20)
    trials = [study.ask() for _ in range(6)]
    for trial in trials:
        opposed(trial)
    assert len({tuple(sorted(trial.params.items())) for trial in trials}) == 6


def test_enqueued_and_partially_fixed_trials_are_planned_around() -> None:
    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    study.optimize(opposed, n_trials=30)
    study.enqueue_trial({"branch": "c", "c_2": 0.125})
    study.enqueue_trial({"a_3": 0.25})
    study.optimize(opposed, n_trials=2)
    assert (study.trials[30].params["branch"], study.trials[30].params["c_2"]) == ("c", 0.125)
    assert study.trials[31].params.get("a_3", 0.25) == 0.25
    study.sampler = optuna.samplers.PartialFixedSampler({"branch": "d"}, study.sampler)
    study.optimize(opposed, n_trials=2)
    assert [trial.params["branch"] for trial in study.trials[32:]] == ["d", "d"]


def test_the_space_may_change_on_the_way(screening: bool) -> None:
    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0, screening=screening))
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_int("n", 1, 5)), n_trials=25)
    study.optimize(lambda t: (t.suggest_float("x", 2, 9), t.suggest_float("y", 1e-5, 1, log=True)), n_trials=25)
    assert all(2 <= trial.params["x"] <= 9 for trial in study.trials[25:])


def test_a_study_of_the_same_name_is_another_study() -> None:
    sampler, storage = UniADSSampler(0), optuna.storages.InMemoryStorage()
    for directions in (BOTH, ["maximize"], ["minimize"] * 3):
        study = optuna.create_study(study_name="s", storage=storage, directions=directions, sampler=sampler)
        study.optimize(lambda t: [t.suggest_float("x", 0, 1)] * len(directions), n_trials=15)  # noqa: B023
        optuna.delete_study(study_name="s", storage=storage)


def test_hyperband_which_shows_the_sampler_one_bracket_at_a_time(screening: bool) -> None:
    def objective(trial: optuna.Trial) -> float:
        value = trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 0, 3)
        for step in range(1, 10):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(max_resource=9)
    sampler = UniADSSampler(0, screening=screening)
    study = optuna.create_study(study_name="bands", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=20)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_one_sampler_serves_studies_side_by_side() -> None:
    sampler = UniADSSampler(0)
    studies = [optuna.create_study(directions=BOTH, sampler=sampler) for _ in range(6)]
    for _ in range(14):
        for study in studies:
            study.optimize(opposed, n_trials=1)
    alone = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    alone.optimize(opposed, n_trials=14)
    assert all(params_of(study) == params_of(alone) for study in studies)


def test_it_can_be_pickled() -> None:
    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    study.optimize(gated, n_trials=12)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(gated, n_trials=1)


def test_reseeding_leaves_a_given_seed_alone() -> None:
    given, drawn = UniADSSampler(7), UniADSSampler()
    before = drawn._seed
    given.reseed_rng()
    drawn.reseed_rng()
    assert given._seed == 7
    assert drawn._seed != before


def test_population_size_follows_the_number_of_trials_where_it_is_known() -> None:
    study = optuna.create_study(directions=BOTH)
    assert population_size(study, Settings()) == 20
    study.set_user_attr("optuna_kd_total_trials", 200)
    assert population_size(study, Settings()) == 40
    study.set_user_attr("optuna_kd_total_trials", 20)
    assert population_size(study, Settings()) == 12
    assert population_size(study, Settings(population_size=7)) == 7


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), 1e308, -1e308])
def test_extreme_values_do_not_break_it(bad: float) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0, 1)
        return (bad if trial.number % 4 == 0 else x), 1 - x

    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    with np.errstate(all="raise", under="ignore"):
        if np.isinf(bad):
            with pytest.warns(SamplerWarning, match="infinite"):
                study.optimize(objective, n_trials=20)
        else:
            study.optimize(objective, n_trials=20)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)


def test_failures_only_are_worth_a_warning_once() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_float("x", 0, 1)
        return float("nan"), 0.0

    study = optuna.create_study(directions=BOTH, sampler=UniADSSampler(0))
    with pytest.warns(SamplerWarning, match="None of the 4 finished trials") as told:
        study.optimize(objective, n_trials=20)
    assert len([one for one in told if one.category is SamplerWarning]) == 1
    study.optimize(opposed, n_trials=15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population_size": 1}, "population_size must be an integer of at least 2; got 1"),
        ({"startup_trials": 0}, "startup_trials must be an integer of at least 1; got 0"),
        ({"children": 0}, "children must be an integer of at least 1; got 0"),
        ({"crossover_prob": 1.5}, "crossover_prob must be a probability from 0 to 1; got 1.5"),
        ({"swapping_prob": -0.1}, "swapping_prob must be a probability"),
        ({"mutation_prob": float("nan")}, "mutation_prob must be a probability"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniADSSampler(**arguments)


def test_a_seed_is_an_integer() -> None:
    with pytest.raises(TypeError):
        UniADSSampler(0.5)  # type: ignore[arg-type]
