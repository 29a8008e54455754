"""Paired tests over seeds: right values, and no more false alarms than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from optuna_kd.analysis import bootstrap_interval, compare, detectable_difference, holm, mean_interval, wilcoxon_p

A = [0.91, 0.93, 0.92, 0.95, 0.90]
B = [0.90, 0.90, 0.92, 0.93, 0.91]


def test_the_paired_test_is_scipys() -> None:
    found = compare(A, {"b": B})["b"]
    assert found.p_value == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert found.difference == pytest.approx(0.01)
    assert found.sd == pytest.approx(np.std(np.subtract(A, B), ddof=1))
    assert (found.other, found.n) == ("b", 5)
    assert found.adjusted == found.p_value


def test_pairs_count_not_places() -> None:
    # The same values against each other in another order: the mean stays, the spread does not.
    paired = compare(A, {"b": B})["b"]
    shuffled = compare(A, {"b": B[::-1]})["b"]
    assert paired.difference == pytest.approx(shuffled.difference)
    assert paired.p_value < shuffled.p_value


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06, .04, made rising.
    adjusted = holm({"c": 0.03, "a": 0.01, "d": 0.04, "b": 0.02})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.03}) == {"a": 0.03}
    assert holm({}) == {}


def test_comparisons_are_corrected_together() -> None:
    alone = compare(A, {"b": B})["b"]
    three = compare(A, {"b": B, "c": [0.91, 0.9, 0.95, 0.93, 0.92], "d": A})
    assert three["b"].p_value == alone.p_value
    assert three["b"].adjusted == pytest.approx(min(1, 3 * alone.p_value))
    assert three["d"].p_value == 1


def test_significant_means_after_correction() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.9, 0.01, 10)
    better = base + 0.01 + rng.normal(0, 0.003, 10)
    found = compare(list(better), {"base": list(base)})["base"]
    assert found.significant
    assert found.difference > 0
    assert not compare(list(base), {"itself": list(base)})["itself"].significant


def test_no_spread() -> None:
    assert compare([0.5, 0.5], {"same": [0.5, 0.5]})["same"].p_value == 1
    # Accuracies are counts: three equal differences happen by chance, and are no evidence.
    constant = compare([3.0, 4.0, 5.0], {"less": [2.0, 3.0, 4.0]})["less"]
    assert (constant.p_value, constant.sd, constant.detectable) == (1, 0, math.inf)
    assert not constant.significant


@pytest.mark.parametrize("images", [360, 1000, 10_000, 40_960, 50_000])
def test_a_shift_by_whole_images_has_no_spread_however_the_shares_round(images: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        right = rng.integers(images // 2, images - 10, size=12)
        shift = int(rng.integers(1, 9))
        values, others = ((right + shift) / images).tolist(), (right / images).tolist()
        found = compare(values, {"constant": others, "itself": values})["constant"]
        assert (found.p_value, found.adjusted, found.sd, found.detectable) == (1, 1, 0, math.inf)
        assert found.difference == pytest.approx(shift / images)
        assert found.interval == found.bootstrap == pytest.approx((shift / images, shift / images))
        assert found.wilcoxon == pytest.approx(2 / 2**12)  # one sign twelve times


def test_differences_of_whole_images_tie_in_ranks_and_others_stay_as_they_are() -> None:
    right, shifts = np.array([260, 237, 121, 106, 316, 288, 309, 234]), np.array([1, -1, 2, 0, 2, -2, 1, 3])
    found = compare(((right + shifts) / 360).tolist(), {"others": (right / 360).tolist()})["others"]
    assert found.wilcoxon == wilcoxon_p(shifts)
    assert len({abs(each) for each in found.differences}) == 4
    assert found.p_value == pytest.approx(stats.ttest_1samp(shifts, 0).pvalue)
    losses = [2.1e-9, 5.0e-9, 3.3e-9, 7.7e-9]
    small = compare(losses, {"others": losses[::-1]})["others"]
    assert small.differences == tuple(np.subtract(losses, losses[::-1]).tolist())


def test_values_that_are_no_numbers_stay_none() -> None:
    found = compare([0.5, math.nan, 0.7], {"others": [0.4, 0.5, 0.5]})["others"]
    assert math.isnan(found.differences[1])
    assert not found.significant


def test_one_seed_says_nothing() -> None:
    found = compare([0.9], {"b": [0.5]})["b"]
    assert found.difference == pytest.approx(0.4)
    assert (found.p_value, found.adjusted) == (1, 1)
    assert math.isnan(found.sd)
    assert found.detectable == math.inf
    assert not found.significant


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many values; got 5 and 2 for 'b'"):
        compare(A, {"b": [0.1, 0.2]})


@pytest.mark.parametrize(
    # Tables of the paired t-test (two-sided, 5 %, power 80 %): G*Power 3.1 asks for these n at these effects.
    ("n", "effect"),
    [(10, 1.0), (34, 0.5), (15, 0.78), (199, 0.2), (5, 1.68)],
)
def test_detectable_effects_of_power_tables(n: int, effect: float) -> None:
    assert detectable_difference(1.0, n) == pytest.approx(effect, rel=0.01)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 25, 100, 1000])
def test_detectable_differences_have_a_power_of_80_percent(n: int) -> None:
    # Independent of the non-central t: a normal mean over the quantiles of a chi-distributed sd.
    noncentrality = detectable_difference(1.0, n) * math.sqrt(n)
    sd = stats.chi.ppf((np.arange(20_000) + 0.5) / 20_000, n - 1) / math.sqrt(n - 1)
    critical = stats.t.ppf(0.975, n - 1) * sd
    power = np.mean(stats.norm.sf(critical - noncentrality) + stats.norm.cdf(-critical - noncentrality))
    assert power == pytest.approx(0.8, abs=1e-4)


def test_detectable_differences_are_detected_in_simulation() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(detectable_difference(0.7, 10), 0.7, (4000, 10))
    power = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert power == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 4000))


def test_detectable_differences_scale() -> None:
    assert detectable_difference(3.0, 10) == pytest.approx(3 * detectable_difference(1.0, 10))
    values = [detectable_difference(1.0, n) for n in range(2, 60)]
    assert values == sorted(values, reverse=True)
    assert detectable_difference(1.0, 1) == math.inf
    assert detectable_difference(0.0, 5) == math.inf
    assert detectable_difference(1.0, 10, 0.05 / 3) > detectable_difference(1.0, 10)
    assert math.isnan(detectable_difference(math.nan, 5))


def test_false_alarms_stay_at_five_percent() -> None:
    # Three comparisons of methods that are equal: any alarm is false (the family-wise rate that Holm promises).
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(2000):
        seeds = rng.normal(0, 1, 10)  # a seed moves all methods alike
        methods = seeds + rng.normal(0, 1, (4, 10))
        found = compare(list(methods[0]), {str(k): list(methods[k]) for k in (1, 2, 3)})
        alarms += any(comparison.significant for comparison in found.values())
    assert alarms / 2000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)
    assert alarms > 20  # and it does not stay silent by never testing


def test_the_t_interval_is_scipys() -> None:
    expected = stats.ttest_rel(A, B).confidence_interval(0.95)
    assert compare(A, {"b": B})["b"].interval == pytest.approx((expected.low, expected.high))
    assert mean_interval([0.3]) == (-math.inf, math.inf)
    assert mean_interval([0.3, 0.3]) == pytest.approx((0.3, 0.3))


def test_wilcoxon_of_distinct_differences_is_the_tables() -> None:
    # Positive ranks 1 to 8 but 2: W- = 2, of 256 sign patterns 3 have so small a sum ({}, {1}, {2}), two-sided 6.
    assert wilcoxon_p([1, -2, 3, 4, 5, 6, 7, 8]) == pytest.approx(6 / 256)
    assert wilcoxon_p([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)  # the smallest that six pairs can have
    assert wilcoxon_p([-1, -2, -3, -4, -5, -6]) == pytest.approx(2 / 64)


def test_wilcoxon_with_ties_and_equal_pairs() -> None:
    # Two ranks dropped with their zeros (1.5 each), the others 3 to 6: of 16 patterns two are as extreme.
    assert wilcoxon_p([0, 0, 1, 2, 3, 4]) == pytest.approx(2 / 16)
    assert wilcoxon_p([1, 1, 1, 1, 1, 1]) == pytest.approx(2 / 64)
    assert wilcoxon_p([0.0] * 6) == 1


def test_wilcoxon_is_exact_for_many_pairs_too() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, size=40)
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert wilcoxon_p(np.arange(1.0, 101.0)) == pytest.approx(2 / 2**100)


def test_wilcoxon_is_silent_where_it_can_never_speak() -> None:
    assert wilcoxon_p([1, 2, 3, 4, 5]) is None  # 2 / 32 = 0.0625 at best
    assert compare(A, {"b": B})["b"].wilcoxon is None


def test_bootstrap_intervals_need_ten_values_and_keep_their_promise() -> None:
    assert bootstrap_interval(np.arange(9.0)) is None
    assert bootstrap_interval(np.full(10, 0.2)) == pytest.approx((0.2, 0.2))
    rng = np.random.default_rng(0)
    samples = rng.gamma(2.0, size=(300, 10))  # skewed, with mean 2
    covered = [low <= 2 <= high for low, high in map(bootstrap_interval, samples)]
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)
    low, high = bootstrap_interval(samples[0])  # type: ignore[misc]
    assert low < samples[0].mean() < high


def test_bootstrap_intervals_shift_and_scale_with_the_values() -> None:
    values = np.random.default_rng(1).normal(size=12)
    low, high = bootstrap_interval(values)  # type: ignore[misc]
    assert bootstrap_interval(3 * values + 1) == pytest.approx((3 * low + 1, 3 * high + 1))


def test_comparisons_as_json_have_no_infinities() -> None:
    one = compare([0.9], {"b": [0.5]})["b"].to_dict()
    assert one["interval"] == [None, None]
    assert one["detectable"] is None
    assert one["sd"] is None
    assert "other" not in one
    ten = compare(A * 2, {"b": B * 2})["b"].to_dict()
    assert len(ten["bootstrap"]) == 2
    assert 0 < ten["wilcoxon"] < 1
