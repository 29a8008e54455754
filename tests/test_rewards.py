"""CKA and rewards, against published values, hand-computed ones, and what they must be blind to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_kd.registry import UnknownNameError
from optuna_kd.rewards import REWARDS, Metrics, MinibatchCKA, linear_cka, unbiased_hsic

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    case["id"]: case
    for case in json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))["cases"]
    if case["id"].startswith("cka_")
}
INPUTS = np.load(GOLDEN / "inputs.npz")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unbiased(*batches: tuple[Tensor, Tensor]) -> float:
    cka = MinibatchCKA()
    for x, y in batches:
        cka.update(x, y)
    return cka.raw()


def related(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = randn(n, 6, seed=seed)
    return x, x @ randn(6, 9, seed=99) + 0.5 * randn(n, 9, seed=seed + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(CASES))
def test_published_values(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    x, y = (torch.from_numpy(INPUTS[key]).to(dtype) for key in case["inputs"])
    kind = "float64" if dtype == torch.float64 else "float32"
    value = linear_cka(x, y) if "biased)" in case["distiller"] else unbiased((x, y))
    assert value == pytest.approx(case[f"expected_{kind}"]["value"], rel=case[f"rtol_{kind}"])


def test_there_are_golden_cases_of_both_forms() -> None:
    assert {"cka_linear_wide", "cka_unbiased_tall", "cka_unbiased_rotation"} <= set(CASES)


def test_unbiased_hsic_by_its_first_formula() -> None:
    # Song et al. 2012, with explicit sums over the Gram matrices without their diagonals.
    x, y = related(7)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    k0, l0 = k - torch.diag(k.diagonal()), l - torch.diag(l.diagonal())
    n = 7
    expected = ((k0 * l0).sum() + k0.sum() * l0.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k0.sum(0) @ l0.sum(0))) / (
        n * (n - 3)
    )
    torch.testing.assert_close(unbiased_hsic(k, l), expected)


def test_unrelated_wide_features_score_nothing_where_the_biased_form_scores_almost_one() -> None:
    values = [unbiased((randn(128, 4096, seed=seed), randn(128, 4096, seed=seed + 50))) for seed in range(5)]
    assert abs(sum(values) / 5) < 0.02
    assert max(map(abs, values)) < 0.05
    assert linear_cka(randn(128, 4096), randn(128, 4096, seed=1)) > 0.9


def test_minibatches_average_before_the_ratio() -> None:
    batches = [related(8, seed=seed) for seed in (0, 10, 20)]
    # Batches of different scale tell a ratio of averages from an average of ratios.
    batches[1] = (10 * batches[1][0], 3 * batches[1][1])
    sums = torch.zeros(3, dtype=torch.float64)
    for x, y in batches:
        k, l = x @ x.T, y @ y.T  # noqa: E741
        sums += torch.stack([unbiased_hsic(k, l), unbiased_hsic(k, k), unbiased_hsic(l, l)])
    ratio_of_averages = float(sums[0] / (sums[1] * sums[2]).sqrt())
    average_of_ratios = sum(unbiased(batch) for batch in batches) / 3
    assert unbiased(*batches) == pytest.approx(ratio_of_averages, rel=1e-9)
    assert abs(ratio_of_averages - average_of_ratios) > 1e-3


@pytest.mark.parametrize("measure", [linear_cka, lambda x, y: unbiased((x, y))])
def test_blind_to_scale_shift_and_rotation(measure: object) -> None:
    assert callable(measure)
    x, y = related(32)
    rotation, _ = torch.linalg.qr(randn(9, 9, seed=5))
    value = measure(x, y)
    assert 0.1 < value < 0.99
    for other in (1e-4 * y, -3e5 * y, y + 100, y @ rotation, y.reshape(32, 3, 3)):
        assert measure(x, other) == pytest.approx(value, rel=1e-6)
    assert measure(y, x) == pytest.approx(value, rel=1e-9)
    assert measure(x, x) == pytest.approx(1)
    # Not blind to a stretch of one direction.
    assert abs(measure(x, y * torch.arange(1, 10)) - value) > 1e-3


def test_order_of_samples_matters_only_between_the_two() -> None:
    x, y = related(32)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    assert unbiased((x[order], y[order])) == pytest.approx(unbiased((x, y)))
    assert unbiased((x, y[order])) < unbiased((x, y)) - 0.2


def test_a_side_that_does_not_vary_scores_zero() -> None:
    x = randn(16, 8)
    for constant in (torch.zeros(16, 8), torch.full((16, 8), 3.7, dtype=torch.float64)):
        assert linear_cka(x, constant) == 0
        assert unbiased((x, constant)) == 0
        assert unbiased((constant, constant)) == 0


def test_values_are_clipped_to_a_similarity() -> None:
    found = []
    for seed in range(10):
        cka = MinibatchCKA()
        cka.update(randn(8, 200, seed=seed), randn(8, 200, seed=seed + 100))
        assert 0 <= cka.value() <= 1
        found.append(cka.raw())
    assert min(found) < 0  # the estimate is unbiased, so it goes below


def test_small_batches_are_left_out() -> None:
    whole = related(16)
    cka = MinibatchCKA()
    cka.update(*related(3, seed=7))
    with pytest.raises(ValueError, match="at least one batch of 4 or more"):
        cka.raw()
    cka.update(*whole)
    cka.update(*related(1, seed=8))
    assert cka.raw() == unbiased(whole)


def test_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples; got 8 and 7"):
        MinibatchCKA().update(randn(8, 2), randn(7, 2))


def test_half_precision_and_large_values_stay_finite() -> None:
    x, y = (side.to(torch.float16) * 1000 for side in related(16))
    assert unbiased((x, y)) == pytest.approx(unbiased((x.double(), y.double())))
    assert linear_cka(x, y) == pytest.approx(linear_cka(x.double(), y.double()))


GOOD = Metrics(accuracy=0.9, cross_entropy=0.3, cka=0.8, l1=0.2, num_classes=10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", 0.5),  # 1 - (0.3 + 0.2)
        ("bounded", 1 - 0.5 / 3.302585092994046),  # ln 10 + 1
        ("ce", 1 - 0.3 / 2.302585092994046),
        ("ce-l1", 1 - 0.5 / 4.302585092994046),
        ("accuracy", 0.9),
    ],
)
def test_rewards_by_hand(name: str, expected: float) -> None:
    assert REWARDS[name](GOOD) == pytest.approx(expected, abs=1e-12)


def test_the_number_of_classes_sets_the_scale() -> None:
    hundred = Metrics(0.1, math.log(100), 0.0, 0.0, 100)
    assert REWARDS["bounded"](hundred) == pytest.approx(0, abs=1e-12)
    assert REWARDS["ce"](hundred) == pytest.approx(0, abs=1e-12)
    ten = Metrics(0.1, 1.0, 0.5, 0.0, 10)
    assert REWARDS["bounded"](ten) < REWARDS["bounded"](Metrics(0.1, 1.0, 0.5, 0.0, 100))


def test_bounded_ranks_as_the_paper_does() -> None:
    numbers = torch.rand(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    metrics = [Metrics(0.5, 2.3 * float(ce), float(cka), 0.0, 10) for ce, cka in numbers]
    by_paper = sorted(metrics, key=REWARDS["paper"])
    values = [REWARDS["bounded"](found) for found in by_paper]
    assert values == sorted(values)
    assert len(set(values)) == 300
    assert 0 < values[0] < values[-1] < 1


@pytest.mark.parametrize("name", ["bounded", "ce", "ce-l1"])
def test_rewards_are_clipped(name: str) -> None:
    assert REWARDS[name](Metrics(0.1, 50.0, 0.0, 2.0, 10)) == 0
    assert REWARDS[name](Metrics(1.0, 0.0, 1.0, 0.0, 10)) == 1
    assert REWARDS["paper"](Metrics(0.1, 50.0, 0.0, 2.0, 10)) == -50


def test_the_gap_and_unknown_rewards() -> None:
    assert GOOD.gap == pytest.approx(0.2)
    with pytest.raises(UnknownNameError, match=r"Unknown reward 'acuracy'. Did you mean 'accuracy'"):
        REWARDS["acuracy"]
