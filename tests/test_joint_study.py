"""Studies of several objectives: their parts, the front, its knee, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from optuna_kd.pareto import by_knee
from optuna_kd.pruners import ParetoHalvingPruner
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig, canonical, halving_rungs
from optuna_kd.registry import UnknownNameError
from optuna_kd.samplers import UniADSSampler
from optuna_kd.search_space import DeadCell, StudentSpace, UniADSSpace
from optuna_kd.study import (
    StudyMismatchError,
    best_recipe,
    create_study,
    freeze_space,
    front,
    load_study,
    optimize,
    recipe_of,
    record_confirmed,
    settings_of,
    space_of,
)

pytestmark = [
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),  # asked for without Study.optimize
]

SIZES = tuple(2**power for power in range(8))
SPACE = UniADSSpace(student=StudentSpace("mine", {"size": SIZES}), distiller=False)
PLAIN = Recipe.from_string("kl@4*1")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kd.db'}"


def new_study(**arguments: Any) -> optuna.Study:
    return create_study("uniads", **{"storage": None, "seed": 0, "space": SPACE, **arguments})


def tell(study: optuna.Study, *trials: tuple[int, tuple[float, ...] | TrialState], limit: float = math.inf) -> None:
    """Run students of a size with given values, or ends; above the limit they break a constraint."""
    space = space_of(study)
    for size, outcome in trials:
        study.enqueue_trial(space.params(Recipe(PLAIN.distiller, StudentConfig("mine", {"size": size}))))  # type: ignore[arg-type]
        trial = study.ask()
        space.suggest(trial)
        if math.isfinite(limit):
            trial.set_constraint("size", size - limit)
        if isinstance(outcome, TrialState):
            study.tell(trial, state=outcome)
        else:
            study.tell(trial, outcome)


def sizes(study: optuna.Study) -> list[int]:
    return [trial.params["size"] for trial in front(study)]


def test_defaults_are_those_of_uniads() -> None:
    study = create_study("uniads", storage=None)
    assert type(study) is optuna.Study
    assert isinstance(study.sampler, UniADSSampler)
    assert isinstance(study.pruner, ParetoHalvingPruner)
    assert study.directions == [StudyDirection.MINIMIZE] * 2
    assert study.metric_names == ["cross_entropy", "parameters"]
    assert space_of(study) == UniADSSpace()


def test_objectives_become_the_names_of_the_metrics() -> None:
    for goals in (("error", "latency_ms", "flops"), ["cross_entropy", "budget_gap"]):
        study = new_study(objectives=goals)
        assert study.metric_names == list(goals)
        assert study.directions == [StudyDirection.MINIMIZE] * len(goals)
        assert settings_of(study)["objectives"] == list(goals)


@pytest.mark.parametrize(
    ("method", "objectives", "message"),
    [
        ("uniads", ("cross_entropy",), r"needs two different objectives or more; got \['cross_entropy'\]"),
        ("uniads", "cross_entropy", r"needs two different objectives or more; got \['cross_entropy'\]"),
        ("uniads", (), r"needs two different objectives or more; got \[\]"),
        ("uniads", ("error", "error"), "needs two different objectives"),
        ("uniads", ("parameters", "flops"), "quality, cross_entropy or error"),
        ("uniads", ("cross_entropy", "size"), "Unknown objective 'size'.*parameters"),
        ("uniads", ("cross_entrpy", "parameters"), "Unknown objective 'cross_entrpy'. Did you mean 'cross_entropy'"),
        ("auto-kd", ("cross_entropy", "parameters"), "'auto-kd' has one reward and no objectives to choose"),
        ("uniadz", None, "Unknown method 'uniadz'. Did you mean 'uniads'"),
    ],
)
def test_wrong_objectives_leave_nothing_half_written(
    tmp_path: Path, url: str, method: str, objectives: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        create_study(method, storage=url, objectives=objectives)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sampler", ["mcts", "uct"])
def test_samplers_of_one_reward_are_refused(tmp_path: Path, url: str, sampler: str) -> None:
    with pytest.raises(ValueError, match="objective"):
        create_study("uniads", storage=url, sampler=sampler)
    assert list(tmp_path.iterdir()) == []


def test_everything_is_stored(url: str) -> None:
    create_study("uniads", storage=url, study_name="s", seed=7, space=UniADSSpace(chain=2, weights="grid"))
    study = load_study("s", storage=url)
    settings = settings_of(study)
    assert (settings["method"], settings["seed"]) == ("uniads", 7)
    assert settings["objectives"] == ["cross_entropy", "parameters"]
    assert space_of(study) == UniADSSpace(chain=2, weights="grid")
    assert isinstance(study.sampler, UniADSSampler)
    assert isinstance(study.pruner, ParetoHalvingPruner)
    json.dumps(settings)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("uniads", UniADSSampler), ("random", RandomSampler), ("tpe", TPESampler), ("nsga2", NSGAIISampler)],
)
def test_samplers_by_name_take_the_seed_of_the_study(name: str, kind: type) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        recipe = space_of(trial.study).suggest(trial)
        return sum(term.weight for term in recipe.distiller.terms), float(len(str(recipe)))

    def params(seed: int) -> list[dict[str, Any]]:
        study = new_study(sampler=name, seed=seed, space=UniADSSpace())
        assert isinstance(study.sampler, kind) or str(study.sampler).startswith(kind.__name__)
        study.optimize(objective, n_trials=14)
        assert len(front(study)) >= 1
        return [trial.params for trial in study.trials]

    assert params(2**40 + 1) == params(2**40 + 1)
    assert params(1) != params(2)


def test_an_existing_study_goes_on_with_its_own_settings(url: str) -> None:
    new_study(storage=url, study_name="s", objectives=("error", "flops", "parameters"), seed=5)
    again = create_study("uniads", storage=url, study_name="s", load_if_exists=True)
    assert again.metric_names == ["error", "flops", "parameters"]
    assert len(again.directions) == 3
    assert space_of(again) == SPACE
    freeze_space(again, SPACE.without([DeadCell("logits", "none", "kl")]))
    new_study(storage=url, study_name="s", objectives=("error", "flops", "parameters"), seed=5, load_if_exists=True)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"objectives": ("error", "parameters")}, 'objectives is ["cross_entropy", "parameters"], asked for ["error"'),
        ({"objectives": ("parameters", "cross_entropy")}, 'asked for ["parameters", "cross_entropy"]'),
        ({"seed": 1}, "seed is 0, asked for 1"),
        ({"space": UniADSSpace()}, "asked for"),
        ({"space": "auto-kd"}, '"name": "auto-kd"'),
        ({"method": "auto-kd", "space": None}, "method is uniads, asked for auto-kd"),
    ],
)
def test_a_study_with_other_settings_is_refused_with_both_values(
    url: str, arguments: dict[str, Any], values: str
) -> None:
    new_study(storage=url, study_name="s")
    wanted = {"method": "uniads", "storage": url, "study_name": "s", "seed": 0, "space": SPACE, **arguments}
    with pytest.raises(StudyMismatchError) as caught:
        create_study(**wanted, load_if_exists=True)
    assert values in str(caught.value)
    assert "study 's'" in str(caught.value)


def test_a_study_of_one_reward_is_not_taken_over(url: str) -> None:
    create_study(storage=url, study_name="s", seed=0)
    with pytest.raises(StudyMismatchError, match="method is auto-kd, asked for uniads"):
        new_study(storage=url, study_name="s", load_if_exists=True)
    optuna.create_study(storage=url, study_name="foreign", direction="minimize")
    with pytest.raises(StudyMismatchError, match="'foreign' was not made by optuna_kd"):
        new_study(storage=url, study_name="foreign", load_if_exists=True)


def test_optimize_counts_in_total(url: str) -> None:
    study = new_study(storage=url, study_name="s")

    def objective(trial: optuna.Trial) -> Any:
        size = space_of(trial.study).suggest(trial).student
        assert size is not None
        return 1 / int(str(size.options["size"])), int(str(size.options["size"]))

    for total in (3, 3, 5):
        optimize(load_study("s", storage=url), objective, total_trials=total)
        assert len(study.trials) == total


# The front.


def test_the_front_has_what_nothing_beats_the_knee_first() -> None:
    study = new_study()
    tell(study, (1, (2.0, 100)), (2, (1.0, 1000)), (4, (0.9, 10_000)), (8, (1.5, 2000)), (16, (2.1, 100)))
    # Logarithms of the parameters: 2, 3 and 4, so (1.0, 1000) is nearest to (0.9, 2).
    assert sizes(study) == [2, 1, 4]
    assert best_recipe(study) == Recipe(PLAIN.distiller, StudentConfig("mine", {"size": 2}))  # type: ignore[arg-type]
    assert best_recipe(study) == recipe_of(study, front(study)[0])


def test_costs_that_span_orders_of_magnitude_count_by_their_logarithm() -> None:
    # Halfway between the ends, and nearest; on a logarithmic scale nearly as large as the largest, and farthest.
    values = ((2.0, 1.0), (1.5, 5000.0), (1.0, 10_000.0))
    for cost, order in (("budget_gap", [2, 1, 4]), ("parameters", [1, 4, 2]), ("flops", [1, 4, 2])):
        study = new_study(objectives=("cross_entropy", cost))
        tell(study, *zip((1, 2, 4), values, strict=True))
        assert sizes(study) == order, cost


def test_a_cost_of_zero_has_a_place_too() -> None:
    study = new_study(objectives=("error", "latency_ms"))
    tell(study, (1, (0.5, 0.0)), (2, (0.4, 2.0)))
    assert sorted(sizes(study)) == [1, 2]


def test_pruned_failed_running_and_infinite_trials_are_not_on_the_front() -> None:
    study = new_study()
    tell(study, (1, TrialState.PRUNED), (2, TrialState.FAIL), (4, (math.inf, 1.0)), (8, (1.0, 8.0)))
    study.ask()
    assert sizes(study) == [8]


def test_infeasible_trials_are_not_on_the_front() -> None:
    study = new_study()
    tell(study, (1, (3.0, 1.0)), (8, (1.0, 8.0)), limit=4)
    assert sizes(study) == [1]
    tell(study, (2, (2.0, 2.0)))  # of a run without the limit
    assert sorted(sizes(study)) == [1, 2]


def test_equal_recipes_appear_once() -> None:
    study = new_study()
    tell(study, (2, (1.0, 2.0)), (2, (1.0, 2.0)), (4, (0.5, 4.0)))
    assert sorted(sizes(study)) == [2, 4]
    assert {trial.number for trial in front(study)} == {0, 2}


def test_without_a_feasible_trial_there_is_no_front() -> None:
    study = new_study(study_name="empty")
    for _ in range(2):
        for read in (front, best_recipe):
            with pytest.raises(ValueError, match="'empty' has no complete, feasible trial yet; run some first"):
                read(study)
        tell(study, (1, TrialState.PRUNED), (8, (math.inf, math.inf)))


def test_the_front_of_a_foreign_study_is_refused() -> None:
    foreign = optuna.create_study(directions=["minimize", "minimize"])
    foreign.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)
    with pytest.raises(StudyMismatchError, match=r"not made by optuna_kd\.create_study"):
        front(foreign)


def test_a_confirmed_recipe_holds_until_another_trial_is_complete() -> None:
    study = new_study()
    tell(study, (2, (1.0, 2.0)), (4, (0.5, 4.0)))
    other = recipe_of(study, front(study)[1])
    record_confirmed(study, other)
    tell(study, (1, TrialState.PRUNED))
    assert best_recipe(study) == other
    tell(study, (8, (3.0, 8.0)))
    assert best_recipe(study) == recipe_of(study, front(study)[0])


def test_three_objectives() -> None:
    study = new_study(objectives=("error", "parameters", "flops"))
    tell(study, (1, (0.9, 1, 1)), (2, (0.1, 100, 100)), (4, (0.2, 10, 10)), (8, (0.2, 10, 11)))
    assert sizes(study)[0] == 4
    assert sorted(sizes(study)) == [1, 2, 4]


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([[0, 10], [1, 1], [10, 0]], [1, 0, 2]),
        ([[5, 5]], [0]),
        ([[1, 3], [1, 2], [1, 4]], [1, 0, 2]),  # a column without width tells nobody apart
        ([[0, 1], [1, 0]], [0, 1]),  # equally near: in their order
        ([[0, 100, 0], [1, 0, 1], [0.2, 20, 0.2]], [2, 0, 1]),
        ([[-5, 3], [-4, -3]], [0, 1]),
    ],
)
def test_the_order_by_the_knee(values: list[list[float]], order: list[int]) -> None:
    assert by_knee(values) == order


def test_the_order_by_the_knee_does_not_depend_on_units() -> None:
    values = [[0.9, 100.0], [0.5, 150.0], [0.45, 400.0], [0.1, 1000.0]]
    assert by_knee(values) == by_knee([[first * 1e6 - 3, second / 1e3] for first, second in values])
    assert by_knee(values)[0] == 1


def test_rungs_of_successive_halving() -> None:
    assert halving_rungs(24) == (3, 6, 12, 24)  # UniADS, 24 epochs
    for epochs in range(1, 50):
        rungs = halving_rungs(epochs)
        assert ProxyConfig(epochs=epochs, rungs=rungs).rungs == rungs  # rising, and the last is the end
        assert all(abs(2 * before - after) <= 1 for before, after in itertools.pairwise(rungs))
        assert len(rungs) <= 4


def test_students_and_training_tell_recipes_apart() -> None:
    one, other = (Recipe(PLAIN.distiller, StudentConfig("mine", {"size": size})) for size in (1, 2))  # type: ignore[arg-type]
    assert canonical(one) != canonical(other)
    assert canonical(one) == canonical(Recipe.from_json(one.to_json()))
    assert (one.digest == other.digest, str(one)) == (False, "kl@4*1 -> mine(size=1)")


def test_unknown_names_leave_nothing_half_written(tmp_path: Path, url: str) -> None:
    for arguments, message in (({"space": "uniad"}, "Did you mean 'uniads'"), ({"sampler": "nsga"}, "nsga2")):
        with pytest.raises(UnknownNameError, match=message):
            create_study("uniads", storage=url, **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
