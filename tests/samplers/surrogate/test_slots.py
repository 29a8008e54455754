"""Trials as rows: where each parameter stands, which branch it is in, and which recipe it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from optuna_kd.samplers.surrogate.belief import inputs_of
from optuna_kd.samplers.surrogate.slots import PathLog, Slots, extend
from optuna_kd.samplers.tree import Step, path_of
from optuna_kd.samplers.view import StudyView

SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-1, 1),
    "rate": FloatDistribution(1e-3, 1e3, log=True),
    "n": IntDistribution(0, 10),
    "kind": CategoricalDistribution(["a", "b", "c"]),
    "flag": CategoricalDistribution([True, False]),
}


def path(space: dict[str, BaseDistribution] = SPACE, **params: Any) -> list[Step]:
    return path_of(optuna.create_trial(value=0.0, params=params, distributions={name: space[name] for name in params}))


def log_of(*paths: list[Step]) -> PathLog:
    log = PathLog(Slots())
    for number, steps in enumerate(paths):
        log.add(number, steps)
    return log


def keys(*paths: list[Step]) -> list[int]:
    return log_of(*paths).paths().keys.tolist()


def test_a_recipe_has_the_same_key_in_whatever_order_it_was_suggested_and_in_every_study() -> None:
    one, other = keys(path(x=0.5, kind="b", n=3), path(n=3, x=0.5, kind="b"))
    assert one == other
    assert keys(path(flag=True), path(n=3, kind="b", x=0.5))[1] == one


def test_other_values_and_other_parameters_have_other_keys() -> None:
    recipes = [
        path(x=0.5, n=3), path(x=0.5, n=4), path(x=0.25, n=3), path(x=0.5), path(n=3), path(n=0), path(kind="a"),
        path(kind="b"), path(flag=True), path(kind="a", flag=True), path(kind="b", flag=False), path(x=1.0, n=1),
    ]  # fmt: skip
    assert len(set(keys(*recipes))) == len(recipes)


def test_zero_has_no_sign() -> None:
    assert len(set(keys(path(x=0.0), path(x=-0.0)))) == 1


@given(st.lists(st.tuples(st.integers(0, 10), st.sampled_from("abc"), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_keys_are_equal_just_where_recipes_are(recipes: list[tuple[int, str, bool]]) -> None:
    found = keys(*(path(n=n, kind=kind, flag=flag) for n, kind, flag in recipes))
    assert len(set(found)) == len(set(recipes))
    assert len(set(zip(found, recipes, strict=True))) == len(set(recipes))


def test_the_log_grows_with_trials_and_parameters() -> None:
    space: dict[str, BaseDistribution] = {f"p{i}": IntDistribution(0, 99) for i in range(30)}
    log = PathLog(Slots())
    for number in range(100):
        log.add(number, path(space, **{f"p{number % 30}": number, f"p{(number + 7) % 30}": 5}))
    positions = log.paths().positions
    assert positions.shape == (100, 30)
    assert len(log) == 100
    for number in range(100):
        row = positions[number]
        assert row[log.slots.columns[f"p{number % 30}"]] == number
        assert row[log.slots.columns[f"p{(number + 7) % 30}"]] == 5
        assert np.isnan(row).sum() == 28


def test_keys_do_not_depend_on_when_they_are_asked_for() -> None:
    steps = [path(x=0.1 * number, n=number % 11) for number in range(10)] + [path(kind="a", x=0.5)]
    log = PathLog(Slots())
    for number, each in enumerate(steps):
        log.add(number, each)
        log.paths()
    np.testing.assert_array_equal(log.paths().keys, log_of(*steps).paths().keys)


def test_numbers_stand_at_their_value_or_its_logarithm() -> None:
    log = log_of(path(x=-0.5, rate=0.1, n=7, kind="c"))
    row = log.paths().positions[0]
    found = {name: row[column] for name, column in log.slots.columns.items()}
    assert found == {"x": -0.5, "rate": pytest.approx(np.log(0.1)), "n": 7, "kind": 2}


def test_branches_number_the_choices_so_far_whatever_the_numbers_between() -> None:
    log = log_of(
        path(kind="a", x=0.1, flag=True),
        path(x=0.9, kind="a", n=2, flag=True),
        path(kind="a", flag=False),
        path(kind="b", flag=True),
        path(flag=True, kind="a"),
        path(x=0.5),
    )
    branches = log.paths().branches
    assert branches[0].tolist() == branches[1].tolist()
    assert branches[0, 0] == branches[2, 0] != branches[3, 0]
    assert len({int(number) for number in branches[:5, 1]}) == 4  # the first two share theirs
    assert branches[5].tolist() == [0, 0]


def test_a_branch_that_is_extended_has_the_number_of_one_that_was_logged() -> None:
    log = log_of(path(kind="b", flag=True), path(kind="c", flag=False))
    slots, branches = log.slots, log.paths().branches
    first = extend(np.zeros(2, np.uint64), slots[slots.columns["kind"]], np.array([1, 2]))
    np.testing.assert_array_equal(first, branches[:, 0])
    second = extend(first, slots[slots.columns["flag"]], np.array([0, 1]))
    np.testing.assert_array_equal(second, branches[:, 1])


def test_cutting_paths_off_by_hand() -> None:
    log = log_of(path(x=0.5, n=3, kind="b"), path(n=4, x=0.25))
    x, n, kind = (log.slots.columns[name] for name in ("x", "n", "kind"))
    positions, depths = log.before(np.array([0, 0, 1]), np.array([1, 3, 2]))
    nan = np.nan
    np.testing.assert_array_equal(positions[:, [x, n, kind]], [[0.5, nan, nan], [0.5, 3, 1], [0.25, 4, nan]])
    np.testing.assert_allclose(depths[[x, n, kind]], [(0 + 0 + 1) / 3, (1 + 0) / 2, 2])
    _, depths = log.before(np.array([0]), np.array([1]))
    np.testing.assert_allclose(depths[[x, n, kind]], [0, -1, -1])


def test_columns_go_by_name_for_whatever_must_not_depend_on_who_came_first(
    random_study: Callable[..., optuna.Study], view_of: Callable[..., StudyView]
) -> None:
    study = random_study(trials=20)
    forth, back = view_of(study).log, view_of(study, reversed(study.trials)).log
    assert list(forth.slots.columns) != list(back.slots.columns)
    assert [forth.slots[column].name for column in forth.slots.canonical] == sorted(forth.slots.columns)
    one, other = inputs_of(forth.slots, forth.paths()), inputs_of(back.slots, back.paths())
    np.testing.assert_array_equal(one.values, other.values[::-1])
    np.testing.assert_array_equal(one.ordered, other.ordered)
    np.testing.assert_array_equal(one.branches, other.branches[::-1])
    np.testing.assert_array_equal(forth.paths().keys, back.paths().keys[::-1])


def test_a_slot_knows_the_widest_range_and_the_latest_domain_in_whatever_order_trials_come() -> None:
    ranges = {3: (0, 5), 7: (2, 30), 5: (-4, 6)}
    for order in ([3, 5, 7], [7, 5, 3], [5, 7, 3]):
        slots = Slots()
        for number in order:
            slots.number("n", path({"n": IntDistribution(*ranges[number])}, n=3)[0].domain, number)
        assert (slots[0].low, slots[0].high) == (-4, 30)
        assert slots[0].domain.bounds() == (2, 30)
        np.testing.assert_allclose(slots[0].scaled(np.array([-4.0, 13.0, 30.0])), [0, 0.5, 1])


def test_the_widest_range_and_the_narrowest_are_scaled() -> None:
    for low, high in ((-1.7e308, 1.7e308), (1.0, float(np.nextafter(1.0, 2.0))), (0.0, 5e-324), (2.0, 2.0)):
        log = log_of(path({"x": FloatDistribution(low, high)}, x=low))
        scaled = log.slots[0].scaled(np.array([low, high]))
        assert scaled[0] == 0
        assert 0 <= scaled[1] <= 1


def test_joined_paths_are_widened(random_study: Callable[..., optuna.Study], view_of: Callable[..., StudyView]) -> None:
    paths = view_of(random_study(trials=12)).log.paths()
    narrow = log_of(path(kind="a", x=0.5)).paths()
    joined = type(paths).joined([paths, narrow], slots=9)
    assert joined.positions.shape == (13, 9)
    assert joined.branches.shape == (13, paths.branches.shape[1])
    assert len(joined) == 13
    np.testing.assert_array_equal(joined.take(np.array([12])).keys, narrow.keys)
