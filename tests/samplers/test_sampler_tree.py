"""`MCTSSampler.tree`: the study as plain data, with what the surrogate makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.samplers import MCTSSampler

pytestmark = pytest.mark.usefixtures("quiet_optuna")
Node = dict[str, Any]


def additive(trial: optuna.Trial) -> float:
    value = {"a": 0.0, "b": 0.3, "c": 0.7}[trial.suggest_categorical("kind", ["a", "b", "c"])]
    if value < 0.5:
        value += 0.2 * trial.suggest_int("depth", 0, 3) / 3
    trial.suggest_float("rate", 1e-3, 1.0, log=True)
    return value + 0.1 * (trial.suggest_categorical("flag", [None, True]) is True)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(additive, n_trials=40)
    return study


@pytest.fixture(scope="module")
def tree(study: optuna.Study) -> Node:
    return MCTSSampler.tree(study)


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node["children"]:
        yield from nodes(child)


def at(node: Node, *path: list[Any]) -> Node:
    return next(each for each in nodes(node) if each["path"] == list(path))


def test_every_node_says_the_same_kinds_of_things(tree: Node) -> None:
    keys = {"path", "visits", "reward", "value", "surrogate_mean", "surrogate_sd", "children"}
    assert all(node.keys() == keys for node in nodes(tree))


def test_visits_add_up_to_the_trials(study: optuna.Study, tree: Node) -> None:
    assert tree["path"] == []
    assert tree["visits"] == len(study.trials)
    for node in nodes(tree):
        if node["children"]:
            assert sum(child["visits"] for child in node["children"]) == node["visits"]
    leaves = [node for node in nodes(tree) if not node["children"]]
    assert all(node["path"][-1][0] == "flag" for node in leaves)


def test_a_path_grows_by_one_step_with_each_level(tree: Node) -> None:
    for node in nodes(tree):
        for child in node["children"]:
            assert child["path"][:-1] == node["path"]
            name, choice = child["path"][-1]
            assert isinstance(name, str)
            assert name in ("kind", "depth", "rate", "flag")
            assert choice is None or isinstance(choice, str | int | bool)


def test_means_are_those_of_the_trials_that_passed(study: optuna.Study, tree: Node) -> None:
    values = np.array([trial.value for trial in study.trials])
    kinds = np.array([trial.params["kind"] for trial in study.trials])
    rewards = (values - values.min()) / (values.max() - values.min())
    for kind in "abc":
        node = at(tree, ["kind", kind])
        assert node["visits"] == (kinds == kind).sum()
        assert node["value"] == pytest.approx(values[kinds == kind].mean())
        assert node["reward"] == pytest.approx(rewards[kinds == kind].mean())


def test_choices_values_and_intervals_have_readable_labels(tree: Node) -> None:
    labels: dict[str, list[Any]] = {}
    for node in nodes(tree):
        for name, choice in node["path"][-1:]:
            labels.setdefault(name, []).append(choice)
    assert set(labels["kind"]) == {"a", "b", "c"}
    assert set(labels["depth"]) == {0, 1, 2, 3}
    assert {type(choice) for choice in labels["depth"]} == {int}
    assert set(labels["flag"]) == {None, True}
    assert "0.03162 to 0.07499" in labels["rate"]
    assert all(text.count(" to ") == 1 for text in labels["rate"])


def test_children_stand_in_the_order_of_the_range(tree: Node) -> None:
    assert [child["path"][-1][1] for child in at(tree, ["kind", "a"])["children"]] == [0, 1, 2, 3]
    starts = [float(child["path"][-1][1].split(" to ")[0]) for child in at(tree, ["kind", "c"])["children"]]
    assert starts == sorted(starts)


def test_intervals_of_other_kinds_of_ranges() -> None:
    space = {
        "n": IntDistribution(0, 99),
        "step": FloatDistribution(0.0, 1.0, step=0.25),
        "x": FloatDistribution(-1, 1),
        "log": IntDistribution(1, 10**6, log=True),
    }
    study = optuna.create_study(direction="maximize")
    params = {"n": 99, "step": 0.75, "x": -0.9, "log": 1}
    study.add_trial(optuna.create_trial(value=1.0, params=params, distributions=space))
    leaf = list(nodes(MCTSSampler.tree(study)))[-1]
    (_, n), (_, step), (_, x), (_, log) = leaf["path"]
    assert step == 0.75
    assert x == "-1 to -0.75"
    assert n.endswith(" to 99")
    assert log.startswith("1 to ")


def test_it_is_json_whatever_the_study_holds() -> None:
    space = {"a": CategoricalDistribution([7, 2.5, None, True, "text"]), "n": IntDistribution(0, 5)}
    study = optuna.create_study(direction="minimize")
    for index, value in enumerate([1.0, math.inf, -math.inf, 2.0, 3.0]):
        params = {"a": space["a"].choices[index], "n": index}  # type: ignore[attr-defined]
        study.add_trial(optuna.create_trial(value=value, params=params, distributions=space))
    study.add_trial(optuna.create_trial(state=TrialState.FAIL, params={"a": 7}, distributions={"a": space["a"]}))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED))
    tree = MCTSSampler.tree(study)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert tree["value"] == 2.0  # of the finite ones
    assert at(tree, ["a", 7])["visits"] == 2
    assert at(tree, ["a", 2.5])["value"] is None
    assert tree["visits"] == 7


def test_without_noise_the_surrogate_expects_what_was_seen(tree: Node) -> None:
    for node in nodes(tree):
        assert node["surrogate_mean"] == pytest.approx(node["reward"], abs=0.05)
        assert 0 < node["surrogate_sd"] < 0.2


def test_under_noise_the_surrogate_is_nearer_to_the_truth_than_the_means_are() -> None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: additive(trial) + 0.2 * rng.normal(), n_trials=40)
    tree = MCTSSampler.tree(study)
    values = np.array([trial.value for trial in study.trials])
    low, high = values.min(), values.max()
    errors = []
    for trial in study.trials:
        true = (additive(optuna.trial.FixedTrial(trial.params)) - low) / (high - low)  # type: ignore[arg-type]
        leaf = tree
        while leaf["children"]:
            leaf = next(child for child in leaf["children"] if passed(trial, child["path"][-1]))
        errors.append((abs(leaf["surrogate_mean"] - true), abs(leaf["reward"] - true)))
    ours, raw = np.mean(errors, axis=0)
    assert ours < 0.75 * raw


def passed(trial: optuna.trial.FrozenTrial, step: list[Any]) -> bool:
    name, choice = step
    if not (isinstance(choice, str) and " to " in choice):
        return trial.params[name] == choice
    low, high = map(float, choice.split(" to "))
    return low * (1 - 1e-3) <= trial.params[name] <= high * (1 + 1e-3)


def test_the_surrogate_is_surer_of_what_was_visited_more() -> None:
    space = {"a": CategoricalDistribution(["often", "rarely"]), "b": CategoricalDistribution([0, 1, 2])}
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")

    def visit(a: str, times: int) -> None:
        for index in range(times):
            params = {"a": a, "b": index % 3}
            study.add_trial(optuna.create_trial(value=float(rng.normal()), params=params, distributions=space))

    visit("often", 12)
    visit("rarely", 3)
    before = MCTSSampler.tree(study)
    assert at(before, ["a", "often"])["surrogate_sd"] < at(before, ["a", "rarely"])["surrogate_sd"]
    visit("rarely", 21)
    after = MCTSSampler.tree(study)
    assert at(after, ["a", "rarely"])["surrogate_sd"] < at(before, ["a", "rarely"])["surrogate_sd"]


def test_an_empty_study_has_a_root_and_nothing_else() -> None:
    nothing = dict.fromkeys(("reward", "value", "surrogate_mean", "surrogate_sd"))
    assert MCTSSampler.tree(optuna.create_study()) == {"path": [], "visits": 0, "children": [], **nothing}


def test_trials_without_parameters_count_at_the_root() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: float(trial.number), n_trials=3)
    tree = MCTSSampler.tree(study)
    assert (tree["visits"], tree["value"], tree["reward"], tree["surrogate_mean"]) == (3, 1.0, 0.5, None)


def test_running_trials_are_not_in_it() -> None:
    study = optuna.create_study()
    study.ask({"x": FloatDistribution(0, 1)})
    assert MCTSSampler.tree(study)["visits"] == 0


def test_it_is_the_same_for_whoever_asks_and_changes_nothing(study: optuna.Study, tree: Node) -> None:
    before = [trial.params for trial in study.trials]
    assert MCTSSampler(seed=9, selection="uct").tree(study) == tree
    assert [trial.params for trial in study.trials] == before
