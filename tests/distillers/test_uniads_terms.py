"""Terms of UniADS: the declared table, chains, where τ acts, points that are equal, and the searched distillers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from optuna_kd.distillers import (
    DISTANCES,
    TRANSFORMS,
    UNIADS_DISTANCES,
    UNIADS_TRANSFORMS,
    Distiller,
    InvalidChainError,
    Term,
    build_term,
)
from optuna_kd.models.knowledge import Knowledge
from optuna_kd.recipe import DistillerConfig, OpConfig, TermConfig

SHAPES = {"features": (3, 16, 16), "embeddings": (12,), "logits": (10,)}
#: Transforms that work on single entries or whole rows, and thus on what `sample`, `channel` and `bmm` give.
ON_ROWS = {
    *("none", "exp", "relu", "tanh", "sigmoid", "pow2", "over_tau"),
    *("scale", "scale_r1", "scale_r2", "softmax_C", "bmm"),
}
GIVES_ROWS = {"sample", "channel", "bmm"}


def draw(knowledge: str, batch: int = 4, seed: int = 0) -> Tensor:
    shape = (batch, *SHAPES[knowledge])
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def term(knowledge: Any, *names: str, temperature: float = 1.0) -> Term:
    *chain, distance = names
    transforms = tuple(map(OpConfig, chain))
    return build_term(TermConfig(knowledge, OpConfig(distance), transforms=transforms, temperature=temperature))


def value(knowledge: str, *names: str, temperature: float = 1.0) -> float:
    student, teacher = draw(knowledge), draw(knowledge, seed=1)
    loss = term(knowledge, *names, temperature=temperature)
    return loss(student, teacher, torch.Generator().manual_seed(0)).item()


@pytest.mark.parametrize("knowledge", UNIADS_TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_every_declared_combination_teaches_the_student(knowledge: str, dtype: torch.dtype) -> None:
    for transform, distance in itertools.product(UNIADS_TRANSFORMS[knowledge], UNIADS_DISTANCES):
        loss_of = term(knowledge, transform, distance, temperature=4.0)
        student, teacher = (draw(knowledge, seed=seed).to(dtype).requires_grad_() for seed in (0, 1))
        loss = loss_of(student, teacher, torch.Generator().manual_seed(0))
        loss.backward()
        assert loss.isfinite(), (transform, distance)
        assert loss.dtype == torch.float32
        assert student.grad.isfinite().all(), (transform, distance)
        # The gradients of `scale_r1` before `mse` are too small for float16.
        assert student.grad.abs().sum() > 0 or dtype == torch.float16, (transform, distance)
        assert teacher.grad is None


@pytest.mark.parametrize("knowledge", UNIADS_TRANSFORMS)
def test_nothing_else_of_uniads_fits(knowledge: str) -> None:
    for transform in UNIADS_TRANSFORMS["features"]:
        if transform not in UNIADS_TRANSFORMS[knowledge]:
            with pytest.raises(InvalidChainError, match=f"'{transform}' takes map"):
                term(knowledge, transform, "mse")


def fits(knowledge: str, chain: list[str]) -> bool:
    rows = False
    for name in chain:
        if name not in (ON_ROWS if rows else UNIADS_TRANSFORMS[knowledge]):
            return False
        rows = rows or name in GIVES_ROWS
    return True


@given(
    knowledge=st.sampled_from(sorted(SHAPES)),
    chain=st.lists(st.sampled_from(UNIADS_TRANSFORMS["features"]), min_size=2, max_size=3),
    distance=st.sampled_from(UNIADS_DISTANCES),
)
@settings(max_examples=300, deadline=None)
def test_chains_are_built_where_forms_fit_and_refused_elsewhere(
    knowledge: str, chain: list[str], distance: str
) -> None:
    if not fits(knowledge, chain):
        with pytest.raises(InvalidChainError, match=r"takes (map|rows|matrix)"):
            term(knowledge, *chain, distance)
        return
    student = draw(knowledge).requires_grad_()
    loss = term(knowledge, *chain, distance)(student, draw(knowledge, seed=1), torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", ["sample", "channel", "bmm"])
def test_what_follows_rows(name: str) -> None:
    for follower in UNIADS_TRANSFORMS["features"]:
        if follower in ON_ROWS:
            assert term("features", name, follower, "cosine")
        else:
            with pytest.raises(InvalidChainError, match=f"'{follower}' takes .* but '{name}' gives rows"):
                term("features", name, follower, "cosine")


# Temperature


@pytest.mark.parametrize("temperature", [1.0, 4.0, 16.0])
def test_kl_takes_no_second_softmax_of_probabilities(temperature: float) -> None:
    for knowledge in SHAPES:
        expected = value(knowledge, "kl", temperature=temperature)
        assert value(knowledge, "softmax_C", "kl", temperature=temperature) == pytest.approx(expected, rel=1e-5)
    # 1e-8 is added to each of 256 probabilities.
    expected = value("features", "channel", "kl", temperature=temperature)
    assert value("features", "softmax_HW", "kl", temperature=temperature) == pytest.approx(expected, rel=1e-4)


def test_kl_after_softmax_n_compares_classes_over_the_batch() -> None:
    student, teacher = (np.exp(draw("logits", seed=seed).numpy() / 4) for seed in (0, 1))
    p, q = student / student.sum(0), teacher / teacher.sum(0)
    expected = 16 * np.mean([(q[:, k] * np.log(q[:, k] / p[:, k])).sum() for k in range(10)])
    assert value("logits", "softmax_N", "kl", temperature=4.0) == pytest.approx(expected, rel=1e-6)
    assert value("logits", "kl_intra", temperature=4.0) == pytest.approx(expected)


def test_other_distances_use_probabilities_as_they_are_times_the_square_of_the_temperature() -> None:
    student, teacher = ((draw("logits", seed=seed) / 4).softmax(1) for seed in (0, 1))
    for distance in ("l1", "mse", "smooth_l1", "cosine", "row_pearson", "correlation"):
        expected = 16 * DISTANCES[distance].function(student, teacher).item()
        assert value("logits", "softmax_C", distance, temperature=4.0) == pytest.approx(expected)


def test_hard_after_softmax_is_the_softened_cross_entropy() -> None:
    student, teacher = draw("logits"), draw("logits", seed=1)
    expected = 16 * F.cross_entropy(student / 4, teacher.argmax(1)).item()
    assert value("logits", "softmax_C", "hard", temperature=4.0) == pytest.approx(expected, rel=1e-5)


def test_only_the_last_transform_decides_what_the_distance_gets() -> None:
    p, q = ((draw("logits", seed=seed) / 4).softmax(1) for seed in (0, 1))
    expected = DISTANCES["kl"].function(p, q, temperature=4.0).item()
    assert value("logits", "softmax_C", "relu", "kl", temperature=4.0) == pytest.approx(expected)


def test_temperature_leaves_other_terms_alone() -> None:
    for distance in set(UNIADS_DISTANCES) - {"kl"}:
        assert value("logits", "tanh", distance, temperature=16.0) == value("logits", "tanh", distance)


def test_over_tau_makes_equation_1_as_printed() -> None:
    def literal(distance: str) -> float:
        return value("logits", "over_tau", distance, temperature=4.0)

    assert literal("l1") == pytest.approx(4 * value("logits", "l1"))
    assert literal("mse") == pytest.approx(value("logits", "mse"))
    for distance in ("cosine", "row_pearson", "correlation"):  # they ignore the scale: τ² is a weight
        assert literal(distance) == pytest.approx(16 * value("logits", distance))
    student, teacher = draw("logits"), draw("logits", seed=1)
    assert literal("smooth_l1") == pytest.approx(16 * F.smooth_l1_loss(student / 4, teacher / 4).item())
    assert literal("hard") == pytest.approx(16 * F.cross_entropy(student / 4, teacher.argmax(1)).item())


@pytest.mark.parametrize(
    ("transform", "distance"), [("over_tau", "kl"), ("softmax_C", "pearson"), ("softmax_N", "kl_intra")]
)
def test_softening_twice_in_a_row_is_refused(transform: str, distance: str) -> None:
    with pytest.raises(InvalidChainError, match=f"'{transform}' and the distance '{distance}' divide by the temp"):
        term("logits", transform, distance)


# Equal points


def equal_points() -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Terms of one transform that a search need not try twice: the same number from other operations."""
    points = []
    for distance in ("l1", "mse", "smooth_l1"):  # they do not see rows
        points += [("features", (name, distance), (distance,)) for name in ("sample", "channel", "local")]
    for distance in ("hard", "cosine", "row_pearson", "correlation"):  # rows are samples already
        points.append(("features", ("sample", distance), (distance,)))
    points += [("features", ("local", "kl"), ("kl",)), ("features", ("softmax_HW", "kl"), ("channel", "kl"))]
    for knowledge in SHAPES:
        points.append((knowledge, ("softmax_C", "kl"), ("kl",)))
        ignored = ("scale_r1", "scale_r2", "natt") + (() if knowledge == "features" else ("norm_C",))
        for distance in ("cosine", "row_pearson", "correlation"):  # they ignore the length of each sample
            points += [(knowledge, (name, distance), (distance,)) for name in ignored]
        for distance in ("row_pearson", "correlation"):  # and an offset
            points.append((knowledge, ("scale", distance), (distance,)))
        if knowledge != "features":
            points += [(knowledge, ("norm_C", name), ("scale_r2", name)) for name in UNIADS_DISTANCES]
    return points


@pytest.mark.parametrize("point", equal_points(), ids=lambda point: f"{point[0]}-{'>'.join(point[1])}")
def test_equal_points(point: tuple[str, tuple[str, ...], tuple[str, ...]]) -> None:
    knowledge, names, others = point
    expected = value(knowledge, *others, temperature=3.0)
    assert value(knowledge, *names, temperature=3.0) == pytest.approx(expected, rel=1e-4)


def test_smooth_l1_is_half_of_mse_on_entries_between_zero_and_one() -> None:
    for transform in ("sigmoid", "scale", "softmax_N", "softmax_C"):
        assert value("logits", transform, "smooth_l1") == pytest.approx(value("logits", transform, "mse") / 2)


def test_relu_changes_nothing_behind_a_relu() -> None:
    student, teacher = draw("features").relu(), draw("features", seed=1).relu()
    for distance in UNIADS_DISTANCES:
        assert term("features", "relu", distance)(student, teacher) == term("features", distance)(student, teacher)


# In a distiller

#: Table 2: transforms of features, embeddings and logits, one distance, one τ. Its weights are not printed.
SEARCHED = [
    (("batchnorm", "scale_r2", "softmax_N"), "kl", 4.0),
    (("mask", "mask", "softmax_C"), "mse", 16.0),
    (("tanh", "scale_r1", "scale"), "correlation", 8.0),
    (("drop", "natt", "bmm"), "kl", 8.0),
]


def knowledge(*shape: int, classes: int = 10, seed: int) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(8, *shape, generator=generator).requires_grad_()
    return Knowledge((features,), torch.randn(8, classes, generator=generator).requires_grad_())


@pytest.mark.parametrize(("transforms", "distance", "temperature"), SEARCHED)
def test_searched_distillers_train_student_and_adapter(
    transforms: tuple[str, str, str], distance: str, temperature: float
) -> None:
    kinds: tuple[Any, ...] = ("features", "embeddings", "logits")
    terms = tuple(
        TermConfig(kind, OpConfig(distance), transforms=(OpConfig(name),), temperature=temperature)
        for kind, name in zip(kinds, transforms, strict=True)
    )
    distiller = Distiller(DistillerConfig(terms), [(6, 4, 4)], [(8, 8, 8)])
    student, teacher = knowledge(6, 4, 4, seed=0), knowledge(8, 8, 8, seed=1)
    losses = distiller(student, teacher)
    assert list(losses) == list(kinds)
    sum(losses.values()).backward()
    for loss in losses.values():
        assert 0 < loss < 100
    for trained in (student.features[0], student.logits, *distiller.parameters()):
        assert trained.grad.isfinite().all()
        assert trained.grad.abs().sum() > 0
    assert teacher.features[0].grad is None
    assert teacher.logits.grad is None
    distiller.check_terms(student, teacher)


@pytest.mark.parametrize(("transform", "adapters"), [("none", 0), ("bmm", 0), ("scale", 0), ("mask", 1), ("drop", 1)])
def test_embeddings_share_a_mask_only_where_they_are_projected(transform: str, adapters: int) -> None:
    config = TermConfig("embeddings", OpConfig("correlation"), transforms=(OpConfig(transform),))
    distiller = Distiller(DistillerConfig((config,)), [(6, 4, 4)], [(8, 4, 4)])
    assert len(distiller.adapters) == adapters
    student = knowledge(6, 4, 4, seed=0)
    distiller(student, knowledge(8, 4, 4, seed=1))["embeddings"].backward()
    assert student.features[0].grad.abs().sum() > 0


def test_order_of_the_batch_does_not_matter_to_any_declared_term() -> None:
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3))
    for kind, names in UNIADS_TRANSFORMS.items():
        for transform, distance in itertools.product(names, UNIADS_DISTANCES):
            if transform != "none" and TRANSFORMS[transform].random:
                continue
            student, teacher = draw(kind), draw(kind, seed=1)
            loss = term(kind, transform, distance, temperature=2.0)
            assert loss(student[order], teacher[order]).item() == pytest.approx(loss(student, teacher).item())


def test_a_student_that_equals_its_teacher_has_no_loss_but_the_hard_one() -> None:
    for kind, names in UNIADS_TRANSFORMS.items():
        for transform, distance in itertools.product(names, UNIADS_DISTANCES):
            student = draw(kind).requires_grad_()
            loss = term(kind, transform, distance)(student, student, torch.Generator().manual_seed(0))
            loss.backward()
            assert student.grad.isfinite().all()
            if distance != "hard":
                assert loss.item() == pytest.approx(0, abs=1e-9), (transform, distance)
