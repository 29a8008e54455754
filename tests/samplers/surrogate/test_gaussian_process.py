"""The Gaussian process: its covariance term by term, its gradient, its posterior, and what the fit makes of noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from optuna_kd.samplers.surrogate.belief import inputs_of
from optuna_kd.samplers.surrogate.kernel import Inputs, Kernel
from optuna_kd.samplers.surrogate.likelihood import Likelihood, fit
from optuna_kd.samplers.surrogate.posterior import Posterior
from optuna_kd.samplers.view import StudyView

RandomStudy = Callable[..., optuna.Study]
ViewOf = Callable[..., StudyView]


@pytest.fixture(scope="module")
def study(random_study: RandomStudy) -> optuna.Study:
    return random_study(trials=40)


@pytest.fixture(scope="module")
def inputs(study: optuna.Study, view_of: ViewOf) -> Inputs:
    log = view_of(study).log
    return inputs_of(log.slots, log.paths())


def standardised(rewards: Sequence[float | None] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.array(rewards, float)
    return (values - values.mean()) / values.std()


def some_kernel(slots: int, seed: int = 0) -> Kernel:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1.0, 4).tolist()
    return Kernel(
        *weights,
        noise=0.3,
        full=0.6,
        reach=1.3,
        relevance=rng.uniform(0.5, 2, slots),
        length=rng.uniform(0.2, 1, slots),
    )


def rows(inputs: Inputs, start: int, stop: int) -> Inputs:
    return Inputs(inputs.values[start:stop], inputs.ordered, inputs.branches[start:stop])


def by_hand(kernel: Kernel, names: list[str], one: FrozenTrial, other: FrozenTrial) -> float:
    """The covariance as the module's first lines define it, from the trials themselves."""
    similarities, apart = [], 0.0
    for index, name in enumerate(names):
        if name not in one.params or name not in other.params:
            apart += kernel.relevance[index] * ((name in one.params) != (name in other.params))
            continue
        mine, theirs, distribution = one.params[name], other.params[name], one.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            similarity = float(mine == theirs)
        else:
            low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
            if distribution.log:  # type: ignore[attr-defined]
                mine, theirs, low, high = (math.log(x) for x in (mine, theirs, low, high))
            d = math.sqrt(5) * abs(mine - theirs) / (high - low) / kernel.length[index]
            similarity = (1 + d + d * d / 3) * math.exp(-d)
        similarities.append(kernel.relevance[index] * similarity)
        apart += kernel.relevance[index] * (1 - similarity)
    total = kernel.full * math.exp(-apart / kernel.reach)
    total += 1.0 + kernel.main * sum(similarities) + 0.25 * bowl(names, one) * bowl(names, other)
    for index, first in enumerate(similarities):
        for second in similarities[:index]:
            total += kernel.pair * first * second
    for depth, (mine, theirs) in enumerate(zip(choices(one), choices(other), strict=False)):
        if mine != theirs:
            break
        total += kernel.prefix * kernel.decay**depth
    return total


ORDERED = 3  # of the parameters of `gated`: rate, depth and shift


def bowl(names: list[str], trial: FrozenTrial) -> float:
    """How far the numbers of a trial are from the middles of their ranges, with mean 0 and variance 1."""
    total = 0.0
    for name in names:
        if name in trial.params and not isinstance(trial.distributions[name], CategoricalDistribution):
            value, low, high = trial.params[name], trial.distributions[name].low, trial.distributions[name].high  # type: ignore[attr-defined]
            if trial.distributions[name].log:  # type: ignore[attr-defined]
                value, low, high = (math.log(x) for x in (value, low, high))
            total += (2 * (value - low) / (high - low) - 1) ** 2 - 1 / 3
    return total / math.sqrt(4 / 45 * ORDERED)


def choices(trial: FrozenTrial) -> list[tuple[str, object]]:
    categorical = [name for name, d in trial.distributions.items() if isinstance(d, CategoricalDistribution)]
    return [(name, trial.params[name]) for name in categorical]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_covariance_is_the_sum_that_its_definition_says(study: optuna.Study, inputs: Inputs, seed: int) -> None:
    kernel = some_kernel(inputs.values.shape[1], seed)
    # The fixed paths know neither all choices nor all branches of the others.
    found = kernel.against(rows(inputs, 0, 8))(rows(inputs, 5, 40))
    trials = study.trials
    names = sorted({name for trial in trials for name in trial.params})
    expected = [[by_hand(kernel, names, one, other) for other in trials[:8]] for one in trials[5:]]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_covariance_is_symmetric_and_positive_with_the_variances_on_its_diagonal(inputs: Inputs) -> None:
    kernel = some_kernel(inputs.values.shape[1])
    covariance = kernel.against(inputs)(inputs)
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)
    np.testing.assert_allclose(np.diag(covariance), kernel.variances(inputs), rtol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_the_slope_of_the_likelihood_is_that_of_finite_differences(study: optuna.Study, inputs: Inputs) -> None:
    likelihood = Likelihood(inputs, standardised([trial.value for trial in study.trials]))
    rng = np.random.default_rng(0)
    for _ in range(3):
        place = likelihood.middle + 0.5 * rng.normal(size=len(likelihood.middle))
        _, slope = likelihood(place)
        steps = 1e-5 * np.eye(len(place))
        differences = [(likelihood(place + step)[0] - likelihood(place - step)[0]) / 2e-5 for step in steps]
        np.testing.assert_allclose(slope, differences, rtol=1e-4, atol=1e-5)


def test_the_likelihood_and_the_posterior_speak_of_the_same_covariance(study: optuna.Study, inputs: Inputs) -> None:
    rewards = standardised([trial.value for trial in study.trials])
    likelihood = Likelihood(inputs, rewards)
    logs = likelihood.middle + 0.1
    kernel = likelihood.kernel(logs)
    matrix = kernel.against(inputs)(inputs) + (kernel.noise + 1e-6) * np.eye(len(inputs))
    rewards = rewards + 0.5 * inputs.bowl()
    density = 0.5 * rewards @ np.linalg.solve(matrix, rewards) + 0.5 * np.linalg.slogdet(matrix)[1]
    away = (logs - likelihood.middle) / likelihood.spread
    assert likelihood(logs)[0] == pytest.approx(density + 0.5 * away @ away)


def test_the_posterior_is_the_textbook_one(inputs: Inputs) -> None:
    kernel = some_kernel(inputs.values.shape[1])
    seen, asked = rows(inputs, 0, 25), rows(inputs, 20, 40)
    rewards = np.random.default_rng(0).normal(size=25)
    among, between = kernel.against(seen)(seen), kernel.against(seen)(asked)
    noisy = among + kernel.noise * np.eye(25)
    posterior = Posterior(kernel, seen, rewards)
    mean, deviation = posterior(asked)
    raised = rewards + 0.5 * seen.bowl()
    np.testing.assert_allclose(mean, -0.5 * asked.bowl() + between @ np.linalg.solve(noisy, raised), atol=1e-4)
    left = kernel.against(asked)(asked) - between @ np.linalg.solve(noisy, between.T)
    np.testing.assert_allclose(deviation**2, np.diag(left), atol=1e-4)
    expected = -0.5 * seen.bowl() + among @ np.linalg.solve(noisy, raised)
    np.testing.assert_allclose(posterior.expected, expected, atol=1e-4)


def test_the_bowl_of_uniform_numbers_has_mean_0_and_variance_1() -> None:
    values = np.random.default_rng(0).random((20_000, 5))
    found = Inputs(values, np.ones(5, bool), np.zeros((20_000, 0), np.uint64)).bowl()
    assert found.mean() == pytest.approx(0, abs=0.03)
    assert found.std() == pytest.approx(1, abs=0.03)


def test_before_any_evidence_the_middle_of_a_range_is_expected_to_be_better_than_its_ends() -> None:
    seen = Inputs(np.array([[0.0]]), np.array([True]), np.zeros((1, 0), np.uint64))
    asked = Inputs(np.array([[0.5], [1.0]]), seen.ordered, np.zeros((2, 0), np.uint64))
    middle, end = Posterior(Kernel.typical(1), seen, np.zeros(1))(asked)[0]
    assert middle > end + 0.3


def test_repeats_that_agree_have_little_noise_and_repeats_that_do_not_have_much(inputs: Inputs) -> None:
    rng = np.random.default_rng(0)
    twice = rows(inputs, 0, 20).joined(rows(inputs, 0, 20))
    gate = np.flatnonzero(~twice.ordered & ~np.isnan(twice.values).any(axis=0))[0]
    effect = twice.values[:, gate] == 1  # one choice decides
    assert 5 < effect.sum() < 35
    clean = fit(twice, standardised(effect.astype(float))).noise
    noisy = fit(twice, standardised(rng.normal(size=40))).noise
    assert clean < 0.02
    assert noisy > 0.4


def test_the_parameter_that_counts_is_found_relevant(inputs: Inputs) -> None:
    shift = inputs.values[:, -1]
    assert not np.isnan(shift).any()
    kernel = fit(inputs, standardised(np.sin(6 * shift)))
    assert kernel.relevance.argmax() == len(kernel.relevance) - 1


def alone(study: optuna.Study, view_of: ViewOf, name: str) -> Inputs:
    """The inputs of the trials as if `name` was their only parameter."""
    other = optuna.create_study(direction="maximize")
    for trial in study.trials:
        if name in trial.params:
            distributions = {name: trial.distributions[name]}
            other.add_trial(
                optuna.create_trial(value=0.0, params={name: trial.params[name]}, distributions=distributions)
            )
    log = view_of(other).log
    return inputs_of(log.slots, log.paths())


@pytest.mark.parametrize("name", ["gate", "depth", "rate"])
def test_a_single_parameter_of_any_kind_is_enough(study: optuna.Study, view_of: ViewOf, name: str) -> None:
    inputs = alone(study, view_of, name)
    rewards = standardised(np.nan_to_num(inputs.values[:, 0]))
    kernel = fit(inputs, rewards)
    mean, deviation = Posterior(kernel, inputs, rewards)(inputs)
    assert np.corrcoef(mean, rewards)[0, 1] > 0.9
    assert np.isfinite(deviation).all()


def test_one_observation_and_equal_rewards_are_no_trouble(inputs: Inputs) -> None:
    for seen in (rows(inputs, 0, 1), rows(inputs, 0, 30)):
        rewards = np.zeros(len(seen))
        expected, spread = Posterior(fit(seen, rewards), seen, rewards)(inputs)
        assert np.abs(expected).max() < 2
        assert (np.isfinite(spread) & (spread > 0)).all()


def test_no_observed_path_leaves_more_than_the_prior_says(inputs: Inputs) -> None:
    kernel = Kernel.typical(inputs.values.shape[1])
    _, before = Posterior(kernel, rows(inputs, 0, 1), np.zeros(1))(inputs)
    _, after = Posterior(kernel, rows(inputs, 0, 20), np.zeros(20))(inputs)
    assert (before**2 <= kernel.variances(inputs) + 1e-9).all()
    assert (after <= before + 1e-9).all()
