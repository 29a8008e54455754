"""The scale of rewards: what it bends, what it leaves alone, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from optuna_kd.samplers.surrogate.scale import Scale


@pytest.mark.parametrize("bend", [1.0, 1.4, 2.0])
def test_the_bend_is_that_of_yeo_and_johnson(bend: float) -> None:
    rewards = np.array([-3.0, -0.5, 0.0, 0.2, 4.0])
    found = Scale(0.0, 1.0, bend, 0.0, 1.0).to(rewards)
    np.testing.assert_allclose(found, stats.yeojohnson(rewards, bend), rtol=1e-12)


@pytest.mark.parametrize("bend", [1.0, 1.7, 2.0])
def test_what_goes_there_comes_back_with_its_spread(bend: float) -> None:
    scale = Scale(mean=0.4, deviation=0.1, bend=bend, shift=0.2, stretch=1.3)
    rewards = np.array([-0.3, 0.38, 0.4, 0.41, 0.9])
    there = scale.to(rewards)
    step = np.full(5, 1e-5)
    back, spread = scale.back(there, step)
    np.testing.assert_allclose(back, rewards, rtol=1e-9)
    around = scale.back(there + step, step)[0] - scale.back(there - step, step)[0]
    np.testing.assert_allclose(spread, around / 2, rtol=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_order_survives_and_nothing_becomes_infinite(rewards: list[float], factor: float, shift: float) -> None:
    scale = Scale.of(rewards)
    found = scale.to(rewards)
    assert np.isfinite(found).all()
    assert (np.diff(found[np.argsort(rewards, kind="stable")]) >= -1e-9).all()
    mean, spread = scale.back(np.array([-30.0, 0.0, 30.0]), np.ones(3))
    assert np.isfinite(mean).all()
    assert (spread > 0).all()


def test_disasters_are_drawn_in_and_the_top_is_spread() -> None:
    rng = np.random.default_rng(0)
    rewards = np.concatenate([0.9 + 0.02 * rng.normal(size=60), rng.uniform(0.0, 0.8, size=20)])
    plain = (rewards - rewards.mean()) / rewards.std()
    scale = Scale.of(rewards)
    assert scale.bend > 1.5
    top = rewards > 0.85
    assert scale.to(rewards)[top].std() > 1.5 * plain[top].std()


def test_a_few_rewards_above_all_others_stay_apart() -> None:
    scale = Scale.of([0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.9, 1.0])
    assert scale.bend == 1


def test_normal_rewards_and_a_few_rewards_are_hardly_bent() -> None:
    rng = np.random.default_rng(1)
    bends = [Scale.of(rng.normal(size=200)).bend for _ in range(20)]
    assert np.abs(np.array(bends) - 1).mean() < 0.1
    assert abs(Scale.of([0.0, 0.9, 1.0]).bend - 1) < 0.5


def test_equal_rewards_are_all_at_zero() -> None:
    scale = Scale.of([0.7, 0.7, 0.7])
    np.testing.assert_array_equal(scale.to([0.7, 0.7]), [0, 0])
    assert scale.back(np.zeros(1), np.ones(1))[0] == pytest.approx(0.7)
