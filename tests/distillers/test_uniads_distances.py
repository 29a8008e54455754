"""The distances of UniADS against a second implementation in numpy, and their properties."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers import DISTANCES

Array = NDArray[np.float64]
SHAPES = {"map": (4, 3, 2, 5), "rows": (4, 3, 5), "matrix": (4, 7)}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(name: str, student: Tensor, teacher: Tensor, **options: object) -> float:
    return DISTANCES[name].function(student, teacher, **options).item()


def rows(x: Array) -> Array:
    """Give [B, R, D]."""
    return x if x.ndim == 3 else x.reshape(1, len(x), -1)


def correlations(x: Array) -> Array:
    return np.stack([np.corrcoef(group) for group in rows(x)])


def each_row(function: Callable[[Array, Array], float]) -> Callable[[Array, Array], float]:
    def mean(student: Array, teacher: Array) -> float:
        pairs = zip(np.concatenate(rows(student)), np.concatenate(rows(teacher)), strict=True)
        return float(np.mean([function(s, t) for s, t in pairs]))

    return mean


def smooth(student: Array, teacher: Array) -> float:
    d = np.abs(student - teacher)
    return float(np.where(d < 1, d * d / 2, d - 0.5).mean())


EXPECTED: dict[str, Callable[[Array, Array], float]] = {
    "mse": lambda s, t: float(((s - t) ** 2).mean()),
    "smooth_l1": smooth,
    "l1": lambda s, t: float(np.abs(s - t).mean()),
    "cosine": each_row(lambda s, t: 1 - s @ t / math.sqrt((s @ s) * (t @ t))),
    "row_pearson": each_row(lambda s, t: 1 - np.corrcoef(s, t)[0, 1]),
    "correlation": lambda s, t: float(((correlations(s) - correlations(t)) ** 2).mean()),
    "hard": each_row(lambda s, t: math.log(np.exp(s).sum()) - s[t.argmax()]),
}


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("name", EXPECTED)
def test_value_is_that_of_a_second_implementation(name: str, form: str) -> None:
    student, teacher = 2 * rand(*SHAPES[form]), 2 * rand(*SHAPES[form], seed=1)
    expected = EXPECTED[name](student.numpy(), teacher.numpy())
    assert distance(name, student, teacher) == pytest.approx(expected, rel=1e-10)


def test_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert distance("cosine", student, teacher) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert distance("mse", student, teacher) == pytest.approx((1 + 4) / 4)
    assert distance("smooth_l1", student, teacher) == pytest.approx((0.5 + 1.5) / 4)
    # The teacher's first row is a tie, which goes to the first of the two.
    first, second = math.log(math.e + 1) - 1, math.log(1 + math.exp(3)) - 3
    assert distance("hard", student, teacher) == pytest.approx((first + second) / 2)


def test_hard_on_logits_is_the_cross_entropy_with_the_teachers_class() -> None:
    student, teacher = rand(6, 5), rand(6, 5, seed=1)
    assert distance("hard", student, teacher) == pytest.approx(F.cross_entropy(student, teacher.argmax(1)).item())


def test_hard_on_probabilities_takes_no_second_softmax() -> None:
    student, teacher = rand(6, 5, 2, 3), rand(6, 5, 2, 3, seed=1)
    p_s, p_t = student.softmax(1), teacher.softmax(1)
    expected = F.cross_entropy(student, teacher.argmax(1)).item()
    assert distance("hard", p_s, p_t, probabilities_over="C") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "dims"),
    [
        ((4, 3, 2, 5), "N", (0,)),
        ((4, 3, 2, 5), "C", (1,)),
        ((4, 3, 2, 5), "HW", (2, 3)),
        ((4, 3, 5), "C", (2,)),
        ((4, 7), "N", (0,)),
        ((4, 7), "C", (1,)),
    ],
)
def test_kl_of_probabilities_sums_along_their_axis(shape: tuple[int, ...], axis: str, dims: tuple[int, ...]) -> None:
    p, q = (np.exp(rand(*shape, seed=seed).numpy()) for seed in (0, 1))
    p, q = p / p.sum(dims, keepdims=True), q / q.sum(dims, keepdims=True)
    expected = 9 * (q * np.log(q / p)).sum(dims).mean()
    given = distance("kl", torch.tensor(p), torch.tensor(q), probabilities_over=axis, temperature=3.0)
    assert given == pytest.approx(expected, rel=1e-5)


def test_kl_of_probabilities_that_underflow_is_bounded() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 1.0]])
    loss = DISTANCES["kl"].function(student, teacher, probabilities_over="C")
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-8), rel=1e-3)
    assert student.grad.isfinite().all()


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_what_the_norm_losses_ignore(scale: float, shift: float) -> None:
    student, teacher = rand(4, 3, 2, 5), rand(4, 3, 2, 5, seed=1)
    for name, changed in (
        ("cosine", scale * student),
        ("row_pearson", scale * student + shift),
        ("correlation", scale * student + shift),
    ):
        assert distance(name, changed, teacher) == pytest.approx(distance(name, student, teacher), abs=1e-9)


@pytest.mark.parametrize("name", ["row_pearson", "correlation", "cosine"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_zero_initialised_classifier_gets_no_exploding_gradient(name: str, value: float) -> None:
    student, teacher = torch.full((4, 10), value, requires_grad=True), rand(4, 10).float()
    DISTANCES[name].function(student, teacher).backward()
    assert student.grad.abs().max() < 10


def test_constant_rows_correlate_with_nothing() -> None:
    # 0.1 has no exact mean: what rounding leaves must not be blown up to length 1.
    constant, teacher = torch.full((4, 10), 0.1), rand(4, 10).float()
    assert distance("row_pearson", constant, teacher) == 1
    assert distance("correlation", constant, constant) == 0


def test_correlation_compares_networks_of_different_width_but_not_of_different_batches() -> None:
    teacher = rand(4, 9)
    assert distance("correlation", torch.cat([teacher, teacher], 1), teacher) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"'correlation' compares the same rows.*\(3, 9\) and teacher \(4, 9\)"):
        distance("correlation", teacher[:3], teacher)


def test_mse_sees_rows_as_numbers_where_l2_makes_them_unit_vectors() -> None:
    student, teacher = rand(2, 3, 4), rand(2, 3, 4, seed=1)
    assert distance("mse", student, teacher) == pytest.approx(distance("mse", student.flatten(1), teacher.flatten(1)))
    assert distance("mse", student, teacher) != pytest.approx(distance("l2", student, teacher))
    assert distance("mse", student[0], teacher[0]) == distance("l2", student[0], teacher[0])


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("form", SHAPES)
def test_extreme_entries_stay_finite(name: str, form: str) -> None:
    signs = [torch.sign(rand(*SHAPES[form], seed=seed)).float() for seed in (0, 1)]
    for student, teacher in (
        (1e4 * signs[0], signs[1]),
        (signs[0], 1e4 * signs[1]),
        (1e4 * signs[0], -1e4 * signs[0]),
        (0 * signs[0], 1e4 * signs[1]),
        (1e-20 * signs[0], signs[1]),
    ):
        student = student.clone().requires_grad_()
        loss = DISTANCES[name].function(student, teacher)
        loss.backward()
        assert loss.isfinite()
        assert student.grad.isfinite().all()
