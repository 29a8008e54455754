"""The transforms of UniADS against a second implementation in numpy, and against numbers computed by hand."""

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

from optuna_kd.distillers import TRANSFORMS, UNIADS_TRANSFORMS

Array = NDArray[np.float64]
TAU = 3.0


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transformed(name: str, student: Tensor, teacher: Tensor | None = None, **options: object) -> Tensor:
    """Give the student's side; the teacher is another network, which must not matter."""
    teacher = rand(*student.shape, seed=99).to(student.dtype) if teacher is None else teacher
    temperature = {"temperature": TAU} if TRANSFORMS[name].uses_temperature else {}
    ((result, other),) = TRANSFORMS[name].function(
        student, teacher, generator=torch.Generator().manual_seed(0), **temperature, **options
    )
    assert other.shape == result.shape
    return result


def softmax(x: Array, axis: int | tuple[int, ...]) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def length(x: Array, axis: int, power: int = 2) -> Array:
    return (np.abs(x) ** power).sum(axis, keepdims=True) ** (1 / power)


def batchnorm(x: Array) -> Array:
    axis = (0, 2, 3) if x.ndim == 4 else 0
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)


def per_sample(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def apply(x: Array) -> Array:
        rows = x if x.ndim == 3 else x.reshape(len(x), -1)
        return function(rows).reshape(x.shape)

    return apply


def min_max(rows: Array) -> Array:
    low, high = rows.min(-1, keepdims=True), rows.max(-1, keepdims=True)
    return (rows - low) / (high - low + 1e-6)


def satt(x: Array) -> Array:
    n, _, h, w = x.shape
    return x * h * w * softmax(np.abs(x).mean(1).reshape(n, -1) / 0.5, 1).reshape(n, 1, h, w)


def catt(x: Array) -> Array:
    strength = np.abs(x) if x.ndim == 2 else np.abs(x).mean((2, 3), keepdims=True)
    return x * x.shape[1] * softmax(strength / 0.5, 1)


def natt(x: Array) -> Array:
    strength = np.array([np.abs(sample).mean() for sample in x])
    return x * (len(x) * softmax(strength / 0.5, 0)).reshape(-1, *[1] * (x.ndim - 1))


def bmm(x: Array) -> Array:
    rows = x.reshape(*x.shape[:2], -1) if x.ndim == 4 else x if x.ndim == 3 else x[None]
    products = np.einsum("bid,bjd->bij", rows, rows)
    return products / length(products, -1)


EXPECTED: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "pow2": lambda x: x**2,
    "over_tau": lambda x: x / TAU,
    "batchnorm": batchnorm,
    "norm_N": lambda x: x / length(x, 0),
    "norm_C": lambda x: x / length(x, 1),
    "norm_H": lambda x: x / length(x, 2),
    "norm_W": lambda x: x / length(x, 3),
    "scale": per_sample(min_max),
    "scale_r1": per_sample(lambda rows: rows / length(rows, -1, power=1)),
    "scale_r2": per_sample(lambda rows: rows / length(rows, -1)),
    "satt": satt,
    "catt": catt,
    "natt": natt,
    "softmax_N": lambda x: softmax(x / TAU, 0),
    "softmax_C": lambda x: softmax(x / TAU, -1 if x.ndim == 3 else 1),
    "softmax_HW": lambda x: softmax(x / TAU, (2, 3)),
    "bmm": bmm,
}
SHAPES = {"map": (4, 3, 2, 5), "rows": (4, 3, 5), "matrix": (4, 7)}
CASES = [(name, form) for name in EXPECTED for form in TRANSFORMS[name].takes]


def test_every_transform_without_an_order_is_tested_here() -> None:
    assert {name for name, info in TRANSFORMS.items() if info.stage == "any"} == {*EXPECTED, "drop"}


@pytest.mark.parametrize(("name", "form"), CASES)
def test_value_is_that_of_a_second_implementation(name: str, form: str) -> None:
    x = 2 * rand(*SHAPES[form])
    np.testing.assert_allclose(transformed(name, x).numpy(), EXPECTED[name](x.numpy()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_form_is_the_declared_one_and_the_teacher_is_transformed_alike(name: str, form: str) -> None:
    info, x = TRANSFORMS[name], rand(*SHAPES[form])
    assert transformed(name, x).dim() == {"map": 4, "rows": 3, "matrix": 2}[info.gives or form]
    ((student, teacher),) = info.function(x, x)
    assert torch.equal(student, teacher)


def test_facts_tell_where_each_fits() -> None:
    for knowledge, names in UNIADS_TRANSFORMS.items():
        form = "map" if knowledge == "features" else "matrix"
        fitting = {name for name, info in TRANSFORMS.items() if info.stage == "any" and form in info.takes}
        assert fitting - set(names) == {"over_tau"}  # eq. 1 as printed, not one of the choices
        assert all(form in TRANSFORMS[name].takes for name in names if name != "none")


def test_by_hand() -> None:
    row = torch.tensor([[3.0, -4.0], [0.0, 1.0]], dtype=torch.float64)
    assert transformed("scale_r2", row).tolist() == [[0.6, -0.8], [0, 1]]
    assert transformed("scale_r1", row)[0].tolist() == pytest.approx([3 / 7, -4 / 7])
    assert transformed("scale", row)[0].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert transformed("norm_N", row)[:, 1].tolist() == pytest.approx([-4 / math.sqrt(17), 1 / math.sqrt(17)])
    # The products are 25, -4, -4 and 1.
    assert transformed("bmm", row)[0, 0].tolist() == pytest.approx([25 / math.sqrt(641), -4 / math.sqrt(641)])


def test_exp_is_bounded_and_has_no_gradient_above() -> None:
    x = torch.tensor([[1.0, 10.0, 1e4]], requires_grad=True)
    result = transformed("exp", x)
    assert result[0].tolist() == pytest.approx([math.e, math.exp(10), math.exp(10)])
    result.sum().backward()
    assert x.grad[0, 2] == 0
    assert x.grad[0, 0].item() == pytest.approx(math.e)


def test_softmax_gives_probabilities_along_its_axis() -> None:
    x = rand(4, 3, 2, 5)
    for name, axes in (("softmax_N", 0), ("softmax_C", 1), ("softmax_HW", (2, 3))):
        torch.testing.assert_close(transformed(name, x).sum(axes), torch.ones_like(x).mean(axes))


@pytest.mark.parametrize(("name", "axes"), [("satt", (2, 3)), ("catt", 1), ("natt", 0)])
def test_attention_has_mean_one_and_can_be_compared_itself(name: str, axes: int | tuple[int, ...]) -> None:
    x = rand(4, 3, 2, 5)
    attention = transformed(name, x, attention_output="map")
    torch.testing.assert_close(transformed(name, x), x * attention)
    torch.testing.assert_close(attention.mean(axes), torch.ones_like(attention.mean(axes)))
    assert attention.numel() == {"satt": 4 * 10, "catt": 4 * 3, "natt": 4}[name]
    flat = transformed(name, x, temperature=1e6)
    torch.testing.assert_close(flat, x, rtol=1e-5, atol=0)


def test_attention_of_the_student_teaches_through_its_map() -> None:
    for name in ("satt", "catt", "natt"):
        x = rand(4, 3, 2, 5).requires_grad_()
        transformed(name, x, attention_output="map").square().sum().backward()
        assert x.grad.abs().sum() > 0


def test_drop_removes_whole_channels_of_both_sides_and_keeps_the_mean() -> None:
    ones = torch.ones(200, 50, 2, 2)
    ((student, teacher),) = TRANSFORMS["drop"].function(
        ones, 2 * ones, generator=torch.Generator().manual_seed(0), ratio=0.2
    )
    torch.testing.assert_close(2 * student, teacher)
    assert student.unique().tolist() == pytest.approx([0, 1.25])
    assert student.mean().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(student, student[:, :, :1, :1].expand_as(student))


def test_drop_is_light_by_default() -> None:
    share = (transformed("drop", torch.ones(100, 100)) == 0).double().mean().item()
    assert share == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("name", ["drop", "mask"])
@pytest.mark.parametrize("kind", ["spatial", "channel"])
def test_random_transforms_remove_single_entries_of_both_sides_of_a_matrix(name: str, kind: str) -> None:
    ones = torch.ones(100, 60)
    options = {"kind": kind} if name == "mask" else {}
    ((student, teacher),) = TRANSFORMS[name].function(
        ones, 3 * ones, generator=torch.Generator().manual_seed(0), **options
    )
    torch.testing.assert_close(3 * student, teacher)
    removed = (student == 0).double()
    assert removed.mean().item() == pytest.approx(TRANSFORMS[name].options["ratio"].default, abs=0.03)
    assert removed.mean(0).min() > 0  # no column is kept or goes as a whole
    assert removed.mean(0).max() < 1


@pytest.mark.parametrize("name", ["drop", "mask"])
def test_random_transforms_repeat_from_the_seed_and_need_a_generator(name: str) -> None:
    x, generator = torch.ones(8, 40), torch.Generator().manual_seed(5)
    first, second = (TRANSFORMS[name].function(x, x, generator=generator)[0][0] for _ in range(2))
    again = TRANSFORMS[name].function(x, x, generator=torch.Generator().manual_seed(5))[0][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match=f"{name!r} draws at random"):
        TRANSFORMS[name].function(x, x)
    with pytest.raises(ValueError, match=r"equal widths; got student \(40,\) and teacher \(39,\)"):
        TRANSFORMS[name].function(x, x[:, :39], generator=generator)


@pytest.mark.parametrize("name", ["norm_N", "norm_C", "scale", "scale_r1", "scale_r2", "bmm", "batchnorm"])
@given(exponent=st.integers(-3, 12))
@settings(max_examples=10, deadline=None)
def test_normalisations_ignore_the_scale(name: str, exponent: int) -> None:
    x = rand(4, 7).float() * (1 if exponent > 0 else 1e4)  # the constants of 1e-5 and 1e-6 show on small numbers
    scaled = transformed(name, x * 10.0**exponent)
    torch.testing.assert_close(scaled, transformed(name, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["norm_N", "norm_C", "scale", "scale_r1", "scale_r2", "bmm", "batchnorm", "catt"])
def test_a_zero_initialised_classifier_gets_no_exploding_gradient(name: str) -> None:
    x = torch.zeros(4, 10, requires_grad=True)
    result = transformed(name, x)
    (result - rand(*result.shape)).square().mean().backward()
    assert x.grad.abs().max() < 100


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4, -1e4])
def test_extreme_and_constant_entries_stay_finite(name: str, form: str, value: float) -> None:
    for x in (torch.full(SHAPES[form], value), value * torch.sign(rand(*SHAPES[form]).float())):
        x.requires_grad_()
        result = transformed(name, x)
        result.square().mean().backward()
        assert result.isfinite().all()
        assert x.grad.isfinite().all()
