"""The learned space, the orders of its parameters, and what each explains: against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_kd.analysis import read_table
from optuna_kd.analysis.branches import Branch, Condition, conditions_of
from optuna_kd.analysis.shapley import Design, random_ranks
from optuna_kd.analysis.space import Space
from optuna_kd.samplers.domains import domain_of


def learned(objective: Callable[[optuna.Trial], float], trials: int = 60) -> tuple[Space, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=trials)
    table = read_table(study)
    return Space(table), table


def nested(trial: optuna.Trial) -> float:
    """A gate, a gate below it, a parameter that two branches share, one that always exists."""
    trial.suggest_float("always", 0.0, 1.0)
    if trial.suggest_categorical("outer", ["a", "b"]) == "a":
        trial.suggest_float("shared", 1.0, 10.0, log=True)
    elif trial.suggest_categorical("inner", ["p", "q", "r"]) == "p":
        trial.suggest_float("shared", 1.0, 10.0, log=True)
        trial.suggest_int("deep", 1, 3)
    return 0.0


def test_gates_are_found() -> None:
    space, table = learned(nested)
    gates = {
        name: {space.names[gate] for gate in np.flatnonzero(space.gates[:, column])}
        for column, name in enumerate(space.names)
    }
    assert gates == {
        "always": set(),
        "outer": set(),
        "inner": {"outer"},
        "shared": {"outer", "inner"},
        "deep": {"outer", "inner"},
    }
    assert conditions_of(space, table, "always") == ()
    assert conditions_of(space, table, "deep") == (Condition("outer", ("b",)), Condition("inner", ("p",)))
    assert [str(each) for each in conditions_of(space, table, "shared")] == ["inner = p"]  # of outer, both will do


def test_uniform_shares_draw_branch_by_branch() -> None:
    space, _ = learned(nested)
    positions = space.at(np.random.default_rng(0).random((20_000, len(space)))).positions
    present = dict(zip(space.names, (~np.isnan(positions)).mean(axis=0).tolist(), strict=True))
    expected = {"always": 1, "outer": 1, "inner": 1 / 2, "shared": 1 / 2 + 1 / 6, "deep": 1 / 6}
    assert present == pytest.approx(expected, abs=0.015)
    places = positions[:, space.names.index("shared")]
    assert np.nanmean(places) == pytest.approx(np.log(10) / 2, abs=0.03)  # uniform in the logarithm
    assert (
        np.bincount(positions[~np.isnan(positions[:, -1]), -1].astype(int)).min(initial=9, where=[False, 1, 1, 1]) > 0
    )


@pytest.mark.parametrize(
    "distribution",
    [
        optuna.distributions.CategoricalDistribution("abc"),
        optuna.distributions.FloatDistribution(-2.0, 3.0),
        optuna.distributions.FloatDistribution(1e-3, 1e2, log=True),
        optuna.distributions.FloatDistribution(0.0, 1.0, step=0.3),
        optuna.distributions.IntDistribution(2, 11, step=3),
        optuna.distributions.IntDistribution(1, 9, log=True),
    ],
)
def test_shares_spread_like_random_search(distribution: Any) -> None:
    domain = domain_of(distribution)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask({"p": distribution}).params["p"] for _ in range(3000)]
    theirs = np.array([domain.position(domain.coordinate(distribution.to_internal_repr(value))) for value in drawn])
    ours = domain.spread((np.arange(3000) + 0.5) / 3000)
    for quantile in (0.1, 0.3, 0.5, 0.7, 0.9):
        cut = np.quantile(ours, quantile)
        assert (theirs <= cut + 1e-9).mean() == pytest.approx((ours <= cut + 1e-9).mean(), abs=0.04)


def test_ranges_that_depend_on_others() -> None:
    def objective(trial: optuna.Trial) -> float:
        top = trial.suggest_categorical("top", [1.0, 10.0])
        return trial.suggest_float("x", 0.0, top)

    space, _ = learned(objective)
    positions = space.at(np.random.default_rng(0).random((4000, 2))).positions
    assert not space.gates.any()
    for option, top in ((0, 1.0), (1, 10.0)):
        x = positions[positions[:, 0] == option, 1]
        assert x.max() <= top
        assert x.mean() == pytest.approx(top / 2, rel=0.05)


def test_orders_put_gates_first_and_treat_the_rest_alike() -> None:
    # 0 is a gate of 1 and 3, 3 of 4; 2 is on its own.
    gates = np.zeros((5, 5), bool)
    gates[0, [1, 3, 4]] = gates[3, 4] = True
    ranks = random_ranks(gates, 8000, np.random.default_rng(0))
    assert (np.sort(ranks, axis=1) == np.arange(5)).all()
    for gate, below in np.argwhere(gates):
        assert (ranks[:, gate] < ranks[:, below]).all()
    for one, other in ((2, 0), (2, 1), (2, 4), (1, 3), (1, 4)):
        assert (ranks[:, one] < ranks[:, other]).mean() == pytest.approx(0.5, abs=0.03)


def test_a_parameter_below_two_gates_waits_for_both_and_disturbs_no_other() -> None:
    gates = np.zeros((4, 4), bool)  # 0 is a gate of 1; 0 and 2 are gates of 3
    gates[0, [1, 3]] = gates[2, 3] = True
    ranks = random_ranks(gates, 8000, np.random.default_rng(0))
    for gate, below in np.argwhere(gates):
        assert (ranks[:, gate] < ranks[:, below]).all()
    assert (ranks[:, 2] < ranks[:, 1]).mean() == pytest.approx(0.5, abs=0.03)
    assert (ranks[:, 2] < ranks[:, 0]).mean() == pytest.approx(0.5, abs=0.03)


def test_a_gate_that_came_into_the_study_after_what_it_decides_about_comes_first() -> None:
    gates = np.zeros((4, 4), bool)  # 3 is a gate of 1, and 1 of 0; 2 is on its own
    gates[3, [0, 1]] = gates[1, 0] = True
    ranks = random_ranks(gates, 8000, np.random.default_rng(0))
    assert (ranks[:, 3] < ranks[:, 1]).all()
    assert (ranks[:, 1] < ranks[:, 0]).all()
    assert (ranks[:, 2] < ranks[:, 3]).mean() == pytest.approx(0.5, abs=0.03)
    assert (ranks[:, 2] < ranks[:, 0]).mean() == pytest.approx(0.5, abs=0.03)


def test_no_two_parameters_decide_about_each_other_though_trials_ask_in_different_orders() -> None:
    def objective(trial: optuna.Trial) -> float:
        one, other = ("a", "b") if trial.number % 2 else ("b", "a")
        if trial.suggest_categorical(one, [True, False]):
            trial.suggest_categorical(other, [True, False])
        return 0.0

    space, _ = learned(objective)
    assert not (space.gates & space.gates.T).any()
    ranks = random_ranks(space.gates, 10, np.random.default_rng(0))
    assert (np.sort(ranks, axis=1) == np.arange(2)).all()


def explained_by(values: Callable[[np.ndarray], np.ndarray], gates: np.ndarray, pairs: int = 4096) -> np.ndarray:
    rng = np.random.default_rng(0)
    ones, others = rng.random((2, pairs, len(gates)))
    design = Design.of(gates, ones, others, rng)
    return design.explained(values(design.shares)[:, None]).mean(axis=0)[:, 0]


def test_a_sum_is_explained_by_its_terms() -> None:
    found = explained_by(lambda u: 2 * u[:, 0] + u[:, 1], np.zeros((3, 3), bool))
    assert found[:2] == pytest.approx([4 / 12, 1 / 12], rel=0.1)
    assert found[2] == 0  # exactly


def test_what_two_explain_together_is_shared_equally() -> None:
    found = explained_by(lambda u: np.sign(u[:, 0] - 0.5) * np.sign(u[:, 1] - 0.5), np.zeros((2, 2), bool))
    assert found == pytest.approx([0.5, 0.5], abs=0.05)


def test_what_a_branch_explains_goes_to_its_parameter_not_to_the_gate() -> None:
    # f = (2u - 1) where the gate is open, else 0: the gate changes no mean. P(open) Var(2u - 1) = 1/2 · 1/3.
    gates = np.array([[False, True], [False, False]])
    found = explained_by(lambda u: np.where(u[:, 0] < 0.5, 2 * u[:, 1] - 1, 0.0), gates)
    assert found == pytest.approx([0.0, 1 / 6], abs=0.015)
    shifted = explained_by(lambda u: np.where(u[:, 0] < 0.5, 2 * u[:, 1] + 1, 0.0), gates)
    assert shifted == pytest.approx([1.0, 1 / 6], abs=0.05)  # means 2 and 0


def test_nothing_is_left_over() -> None:
    gates = np.zeros((3, 3), bool)
    gates[0, 2] = True
    rng = np.random.default_rng(1)
    ones, others = rng.random((2, 64, 3))
    design = Design.of(gates, ones, others, rng)
    values = np.sin(7 * design.shares).prod(axis=1) + design.shares[:, 0]
    total = design.explained(values[:, None]).sum(axis=1)[:, 0]
    ends = values.reshape(64, 4)
    assert total == pytest.approx((ends[:, -1] - ends[:, 0]) ** 2 / 2)


def test_draws_from_a_branch_are_in_it_and_entered_the_same_way() -> None:
    space, table = learned(nested)
    branch = Branch(space, table, {"inner": "p"})
    ones, others = branch.pairs(64, np.random.default_rng(0))
    for shares in (ones, others, np.where(np.arange(len(space)) % 2, ones, others)):
        positions = space.at(shares).positions
        assert (positions[:, space.names.index("inner")] == 0).all()
        assert not np.isnan(positions[:, space.names.index("deep")]).any()
    assert {space.names[place] for place in np.flatnonzero(branch.entry)} == {"outer", "inner"}
    there = Branch(space, table, {}, ("deep",)).draw(32, np.random.default_rng(0))
    assert not np.isnan(space.at(there).positions[:, space.names.index("deep")]).any()


def test_a_branch_that_is_none() -> None:
    space, table = learned(nested)
    with pytest.raises(ValueError, match="No usable trial has the parameter 'outter'"):
        Branch(space, table, {"outter": "a"})
    with pytest.raises(ValueError, match="named by options of categorical parameters; 'always' has"):
        Branch(space, table, {"always": 0.5})
    with pytest.raises(ValueError, match="'c' not in"):
        Branch(space, table, {"outer": "c"})
    with pytest.raises(ValueError, match="No way into the branch"):
        Branch(space, table, {"outer": "a", "inner": "p"}).draw(8, np.random.default_rng(0))


def test_numbers_can_be_gates() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_int("layers", 1, 4) >= 3:
            trial.suggest_float("dropout", 0.0, 1.0)
        return 0.0

    space, table = learned(objective)
    (condition,) = conditions_of(space, table, "dropout")
    assert (condition.parameter, condition.low, condition.high) == ("layers", 3.0, 4.0)
    assert str(condition) == "layers from 3 to 4"
