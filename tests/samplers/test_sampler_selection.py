"""The selection rule: the bound, ties, exhausted children, and other rules in its place."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from optuna_kd.registry import UnknownNameError
from optuna_kd.samplers import UCT, ChildStatistics, MCTSSampler, SurrogateSearch, ucb
from optuna_kd.samplers.selection import resolve_rule


def statistics(visits: list[float], totals: list[float], open_children: list[bool] | None = None) -> ChildStatistics:
    mask = np.ones(len(visits), bool) if open_children is None else np.array(open_children)
    return ChildStatistics(np.array(visits, float), np.array(totals, float), mask)


def test_ucb_golden_value() -> None:
    assert ucb(3.2, 5, 20, 0.5) == pytest.approx(1.1873328305111974, rel=1e-14)


def test_ucb_of_an_unvisited_node_is_infinite_for_scalars_and_arrays() -> None:
    assert ucb(0.0, 0, 20, 0.5) == np.inf
    assert ucb(0.0, 0, 0, 0.5) == np.inf
    bounds = ucb([3.2, 0.0, 1.0], [5, 0, 1], 20, 0.5)
    assert bounds[0] == pytest.approx(1.1873328305111974)
    assert bounds[1] == np.inf
    assert bounds[2] == pytest.approx(1 + 0.5 * np.sqrt(2 * np.log(20)))


def test_uct_enters_an_unvisited_child_first_and_breaks_ties_at_random() -> None:
    chosen = {UCT()(statistics([3, 0, 0], [3, 0, 0]), np.random.default_rng(seed)) for seed in range(30)}
    assert chosen == {1, 2}


def test_uct_weighs_reward_against_visits() -> None:
    few_visits = statistics([50, 2], [30, 1])  # means 0.6 and 0.5
    rng = np.random.default_rng(0)
    assert UCT(exploration=0.5)(few_visits, rng) == 1
    assert UCT(exploration=0.0)(few_visits, rng) == 0


def test_uct_leaves_exhausted_children_alone() -> None:
    best_is_closed = statistics([1, 1], [1, 0], [False, True])
    assert UCT()(best_is_closed, np.random.default_rng(0)) == 1


def test_uct_refuses_a_senseless_exploration() -> None:
    with pytest.raises(ValueError, match=">= 0; got -1"):
        UCT(exploration=-1)


def test_an_unknown_rule_is_named_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown selection rule 'uctt'. Did you mean 'uct'"):
        MCTSSampler(selection="uctt")


@pytest.mark.parametrize("wrong", [3, UCT])
def test_what_is_no_rule_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="a callable rule such as"):
        resolve_rule(wrong)  # type: ignore[arg-type]


def test_the_rule_is_replaceable() -> None:
    def last_open(children: ChildStatistics, rng: np.random.Generator) -> int:
        return int(np.flatnonzero(children.open)[-1])

    study = optuna.create_study(sampler=MCTSSampler(seed=0, selection=last_open))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 9), n_trials=8)
    values = [trial.params["x"] for trial in study.trials[1:]]  # the first trial is drawn at random
    free = [value for value in range(9, -1, -1) if value != study.trials[0].params["x"]]
    assert values == free[:7]


def test_the_surrogate_selects_unless_another_rule_is_named() -> None:
    assert resolve_rule("surrogate") == SurrogateSearch()
    assert resolve_rule(SurrogateSearch(startup_trials=9)) == SurrogateSearch(startup_trials=9)

    def drawn(sampler: MCTSSampler) -> list[dict]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=8)
        return [trial.params for trial in study.trials]

    assert drawn(MCTSSampler(seed=0)) == drawn(MCTSSampler(seed=0, selection="surrogate"))
    assert drawn(MCTSSampler(seed=0)) != drawn(MCTSSampler(seed=0, selection="uct"))


def test_a_surrogate_without_any_trial_to_start_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        SurrogateSearch(startup_trials=0)
