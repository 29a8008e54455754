"""Distances and transforms against numbers computed by hand or in another way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers import DISTANCES, TRANSFORMS, renyi_entropy
from optuna_kd.registry import UnknownNameError


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def transform(name: str, student: Tensor, teacher: Tensor, **options: object) -> list[tuple[Tensor, Tensor]]:
    return TRANSFORMS[name].function(student, teacher, generator=torch.Generator().manual_seed(0), **options)


def distance(name: str, student: Tensor, teacher: Tensor, **options: object) -> float:
    return DISTANCES[name].function(student, teacher, **options).item()


def test_kl_of_two_classes_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    assert distance("kl", student, teacher) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_kl_scales_with_the_square_of_the_temperature() -> None:
    student, teacher = rand(4, 5), rand(4, 5, seed=1)
    assert distance("kl", student, teacher, temperature=3.0) == pytest.approx(
        9 * distance("kl", student / 3, teacher / 3)
    )


def test_kl_intra_is_kl_of_the_transposed_logits() -> None:
    student, teacher = rand(4, 5), rand(4, 5, seed=1)
    assert distance("kl_intra", student, teacher) == pytest.approx(distance("kl", student.T, teacher.T))


def test_kl_of_underflowing_probabilities_is_the_gap_of_the_logits() -> None:
    student, teacher = torch.tensor([[150.0, -150.0]]), torch.tensor([[-150.0, 150.0]])
    assert distance("kl", student, teacher) == pytest.approx(300)


def test_l2_of_rows_is_twice_one_minus_cosine() -> None:
    student, teacher = rand(2, 3, 4), rand(2, 3, 4, seed=1)
    expected = (2 - 2 * F.cosine_similarity(student, teacher, dim=-1)).mean().item()
    assert distance("l2", student, teacher) == pytest.approx(expected)


def test_gl2_by_hand() -> None:
    # Rows (1,0), (0,1) against (1,0), (1,0): rows of the Gram matrices (1,0), (0,1) against (1,1)/√2.
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert distance("gl2", student, teacher) == pytest.approx(2 - math.sqrt(2))
    assert distance("gl2", student, teacher, squared=False) == pytest.approx(math.sqrt(2 - math.sqrt(2)))
    # As a whole: (1,0,0,1)/√2 against (1,1,1,1)/2.
    assert distance("gl2", student, teacher, norm="fro") == pytest.approx(2 - math.sqrt(2))


def test_unsquared_gl2_has_a_finite_gradient_at_equality() -> None:
    student = rand(4, 5).requires_grad_()
    DISTANCES["gl2"].function(student, student.detach(), squared=False, norm="fro").backward()
    assert student.grad.isfinite().all()


def test_gl2_pools_large_maps_before_the_gram_matrix_of_positions() -> None:
    student, teacher = rand(1, 3, 32, 34), rand(1, 3, 32, 34, seed=1)
    pooled = [F.adaptive_avg_pool2d(x, 16) for x in (student, teacher)]
    assert distance("gl2", student, teacher) == pytest.approx(distance("gl2", *pooled))


def test_pearson_of_a_batch_of_one_has_only_the_part_within_the_sample() -> None:
    student, teacher = rand(1, 5), rand(1, 5, seed=1)
    assert distance("pearson", student, teacher) == distance("pearson", student, teacher, intra=False)


@pytest.mark.parametrize("name", ["zscore", "l2norm"])
def test_normalised_logits_ignore_their_scale(name: str) -> None:
    student = rand(4, 5)
    ((scaled, _),) = transform(name, 7 * student, student)
    ((plain, _),) = transform(name, student, student)
    torch.testing.assert_close(scaled, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("point", [("zscore", "kl"), ("l2norm", "kl"), (None, "pearson")])
def test_a_zero_initialised_classifier_gets_no_exploding_gradient(point: tuple[str | None, str]) -> None:
    student, teacher = torch.zeros(4, 10, requires_grad=True), rand(4, 10)
    pair = transform(point[0], student, teacher)[0] if point[0] else (student, teacher)
    DISTANCES[point[1]].function(*pair).backward()
    assert student.grad.abs().max() < 10


def test_renyi_entropy_counts_independent_directions() -> None:
    assert renyi_entropy(torch.eye(8)).item() == pytest.approx(3)
    assert renyi_entropy(torch.ones(8, 4)).item() == pytest.approx(0, abs=1e-6)
    assert renyi_entropy(torch.eye(8), alpha=1).item() == pytest.approx(3, abs=1e-5)
    assert renyi_entropy(rand(8, 3), alpha=2.000001).item() == pytest.approx(renyi_entropy(rand(8, 3)).item(), abs=1e-5)


@pytest.mark.parametrize("alpha", [0, -1.0, math.inf])
def test_renyi_entropy_refuses_orders_that_are_none(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        renyi_entropy(torch.eye(2), alpha)


def test_renyi_is_lowest_where_the_student_tells_apart_what_the_teacher_does() -> None:
    teacher = rand(8, 16)
    assert distance("renyi", teacher, teacher) < distance("renyi", rand(8, 16, seed=1), teacher)
    assert distance("renyi", teacher, teacher) < distance("renyi", torch.ones(8, 16), teacher)


def test_attention_has_mean_one_and_is_shared() -> None:
    student, teacher = rand(2, 3, 4, 4), rand(2, 3, 4, 4, seed=1)
    for kind, dims in (("spatial", (1, 16)), ("channel", (3, 1))):
        ((s, t),) = transform("attention", student, teacher, kind=kind)
        alpha = (s / student).flatten(2)
        torch.testing.assert_close(alpha, (t / teacher).flatten(2))
        torch.testing.assert_close(alpha, alpha[:, : dims[0], : dims[1]].expand_as(alpha))
        assert alpha.mean().item() == pytest.approx(1)


@pytest.mark.parametrize(("kind", "expected"), [("spatial", (2, 1, 16, 16)), ("channel", (2, 64, 1, 1))])
def test_mask_removes_a_share_of_both_sides_alike(kind: str, expected: tuple[int, ...]) -> None:
    ones = torch.ones(2, 64, 16, 16)
    ((student, teacher),) = transform("mask", ones, 2 * ones, kind=kind, ratio=0.25)
    torch.testing.assert_close(2 * student, teacher)
    assert student.unique().tolist() == [0, 1]
    assert student.mean().item() == pytest.approx(0.75, abs=0.1)
    shared = student[:, : expected[1], : expected[2], : expected[3]]
    torch.testing.assert_close(student, shared.expand_as(student))


def test_mask_is_fresh_each_time_and_repeats_from_the_seed() -> None:
    ones, generator = torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(5)
    first, second = (TRANSFORMS["mask"].function(ones, ones, generator=generator)[0][0] for _ in range(2))
    again = TRANSFORMS["mask"].function(ones, ones, generator=torch.Generator().manual_seed(5))[0][0]
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="generator"):
        TRANSFORMS["mask"].function(ones, ones)


@pytest.mark.parametrize(
    ("size", "full_map", "expected"),
    [
        ((8, 8), True, [(8, 8), (4, 4), (2, 2)]),
        ((7, 5), True, [(7, 5), (3, 2), (1, 1)]),
        ((2, 3), True, [(2, 3), (1, 1)]),
        ((8, 8), False, [(4, 4), (2, 2)]),
        ((1, 1), True, [(1, 1)]),
    ],
)
def test_multiscale_pools_by_2_and_4(size: tuple[int, int], full_map: bool, expected: list[tuple[int, int]]) -> None:
    pairs = transform("multiscale", rand(1, 2, *size), rand(1, 2, *size), full_map=full_map)
    assert [tuple(student.shape[2:]) for student, _ in pairs] == expected


def test_multiscale_averages_cells() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert transform("multiscale", image, image)[1][0].flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_multiscale_without_any_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="full_map=True"):
        transform("multiscale", rand(1, 2, 1, 4), rand(1, 2, 1, 4), full_map=False)


def test_local_folds_patches_into_the_batch_and_crops_the_border() -> None:
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    ((patches, _),) = transform("local", image, image)
    assert patches.shape == (4, 1, 2, 2)
    assert patches[:, 0].flatten(1).tolist() == [
        [0, 1, 5, 6],
        [2, 3, 7, 8],
        [10, 11, 15, 16],
        [12, 13, 17, 18],
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "channel"}, "Did you mean 'kind'"),
        ({"kind": "both"}, "one of 'spatial', 'channel'; got 'both'"),
        ({"ratio": 1.0}, "< 1; got 1.0"),
        ({"ratio": -0.1}, ">= 0"),
        ({"ratio": "half"}, "a float"),
        ({"ratio": True}, "got True"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transform("mask", torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), **options)


def test_unknown_names_suggest_what_was_meant() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'kl'"):
        DISTANCES["kll"]
    with pytest.raises(ValueError, match="'l2' has no options; got 'squared'"):
        DISTANCES["l2"].function(torch.ones(1, 2), torch.ones(1, 2), squared=True)


@pytest.mark.parametrize("name", ["attention", "mask"])
def test_shared_maps_refuse_sides_that_do_not_match(name: str) -> None:
    with pytest.raises(ValueError, match="equal map sizes"):
        transform(name, rand(1, 2, 4, 4), rand(1, 2, 8, 8))
    with pytest.raises(ValueError, match="equal numbers of channels"):
        transform(name, rand(1, 2, 4, 4), rand(1, 3, 4, 4), kind="channel")
