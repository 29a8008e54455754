"""What every registered transform and distance must hold; a new one is picked up from the registries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optuna_kd.distillers import DISTANCES, TRANSFORMS, Term, build_term
from optuna_kd.recipe import OpConfig, TermConfig

SHAPES = {"features": (6, 8, 8), "embeddings": (16,), "logits": (10,)}
FORMS = {"features": "map", "embeddings": "matrix", "logits": "matrix"}


def _terms() -> list[Term]:
    """Each distance on all it takes, and each transform before three distances."""
    points = set()
    for name, info in DISTANCES.items():
        for knowledge in info.knowledge:
            if FORMS[knowledge] in info.takes:
                points.add((knowledge, (), name))
            if knowledge == "features" and "rows" in info.takes:
                points |= {(knowledge, (inter,), name) for inter in ("sample", "channel")}
    for name, info in TRANSFORMS.items():
        for form in info.takes:
            knowledge = "features" if form == "map" else "logits"
            points |= {(knowledge, (name,), distance) for distance in ("gl2", "kl", "l2")}
    # Softmax over the single channel of an attention map is constant.
    points -= {("features", ("attention_map",), "kl")}
    # KL divides by the temperature itself; such a chain is refused.
    points -= {(knowledge, ("over_tau",), "kl") for knowledge in SHAPES}
    return [
        build_term(TermConfig(knowledge, OpConfig(distance), transforms=tuple(map(OpConfig, chain))))
        for knowledge, chain, distance in sorted(points)
    ]


TERMS = _terms()


def each_term(keep: Callable[[Term], bool] = lambda term: True) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("term", list(filter(keep, TERMS)), ids=lambda term: f"{term.name}-{term}")


every_term = each_term()


def draw(term: Term, batch: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, *SHAPES[term.config.knowledge])
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student.to(dtype), teacher.to(dtype)


def loss_of(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    return term(student, teacher, torch.Generator().manual_seed(2))


def gradient_of(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    student = student.detach().clone().requires_grad_()
    return torch.autograd.grad(loss_of(term, student, teacher), student)[0]


@every_term
def test_loss_is_finite_and_teaches_only_the_student(term: Term) -> None:
    student, teacher = (x.requires_grad_() for x in draw(term))
    loss = loss_of(term, student, teacher)
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == torch.float64
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


# |x| has a kink, and the attention is left out of the gradient on purpose.
@each_term(lambda term: term.distance.name != "l1" and not str(term).startswith("attention|"))
def test_gradient_is_that_of_the_value(term: Term) -> None:
    student, teacher = draw(term, batch=3)
    direction = torch.randn(student.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    up, down = (loss_of(term, student + sign * 1e-6 * direction, teacher) for sign in (1, -1))
    slope = (gradient_of(term, student, teacher) * direction).sum()
    assert slope.item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-4, abs=1e-8)


@every_term
def test_equal_knowledge_gives_zero_and_a_finite_gradient(term: Term) -> None:
    student, _ = draw(term)
    assert gradient_of(term, student, student).isfinite().all()
    if term.distance.zero_at_equality:
        assert loss_of(term, student, student).item() == pytest.approx(0, abs=1e-5)


@every_term
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(term: Term, dtype: torch.dtype) -> None:
    student, teacher = draw(term, dtype=dtype)
    loss = loss_of(term, student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(term, student.float(), teacher.float()).item(), rel=1e-6)
    assert loss.item() == pytest.approx(loss_of(term, *draw(term)).item(), rel=2e-2, abs=2e-2)
    gradient = gradient_of(term, student, teacher)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@every_term
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(term: Term, dtype: torch.dtype) -> None:
    student, teacher = draw(term, dtype=torch.float32)
    without = loss_of(term, student, teacher)
    with torch.autocast("cpu", dtype=dtype):
        inside = loss_of(term, student, teacher)
    assert inside.dtype == torch.float32
    assert inside.item() == without.item()


@each_term(lambda term: not term.random)  # masks are drawn in the order of the batch
def test_order_of_the_batch_does_not_matter(term: Term) -> None:
    student, teacher = draw(term)
    order = torch.randperm(len(student), generator=torch.Generator().manual_seed(4))
    shuffled = loss_of(term, student[order], teacher[order])
    assert shuffled.item() == pytest.approx(loss_of(term, student, teacher).item(), rel=1e-9)


@each_term(lambda term: not term.random and term.config.knowledge == "features")
def test_swapping_height_and_width_does_not_matter(term: Term) -> None:
    student, teacher = draw(term)
    student, teacher = student[..., :6], teacher[..., :6]  # not square
    mirrored = {"norm_H": "norm_W", "norm_W": "norm_H"}
    chain = tuple(OpConfig(mirrored.get(op.name, op.name)) for op in term.config.transforms)
    turned = loss_of(build_term(dataclasses.replace(term.config, transforms=chain)), student.mT, teacher.mT)
    assert turned.item() == pytest.approx(loss_of(term, student, teacher).item(), rel=1e-9)


@every_term
def test_batch_of_one_is_finite(term: Term) -> None:
    student, teacher = draw(term, batch=1)
    assert loss_of(term, student, teacher).isfinite()
    assert gradient_of(term, student, teacher).isfinite().all()


@every_term
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_hard_inputs_never_give_nan(term: Term, dtype: torch.dtype) -> None:
    student, teacher = draw(term, dtype=dtype)
    zero = torch.zeros_like(student)
    one_dead_channel = student.clone()
    one_dead_channel[:, 0] = 0
    size = 100 if "pow2" in str(term) else 150  # a gradient of the order of 150³ leaves the range of float16
    large = size * torch.sign(student)
    spike = zero.clone()
    spike[:, 0] = size
    # Where the loss ignores the scale, the gradient grows as the scale falls: float16 cannot hold it.
    tiny = student if dtype == torch.float16 else 1e-6 * student
    for s, t in (
        (zero, teacher),
        (student, zero),
        (zero, zero),
        (one_dead_channel, teacher),
        (large, teacher),
        (student, large),
        (large, -large),
        (spike, spike.flip(1)),
        (spike, spike),
        (torch.ones_like(student), teacher),
        (tiny, teacher),
        (tiny, tiny),
    ):
        assert loss_of(term, s, t).isfinite()
        assert gradient_of(term, s, t).isfinite().all()


# `renyi` and `kl_intra` say how a batch is spread.
@each_term(lambda term: not term.random and term.distance.name not in ("renyi", "kl_intra"))
def test_loss_does_not_grow_with_the_batch(term: Term) -> None:
    student, teacher = draw(term)
    once = loss_of(term, student, teacher)
    twice = loss_of(term, torch.cat([student, student]), torch.cat([teacher, teacher]))
    assert twice.item() <= 1.5 * once.item()
    # What is normalised over the batch is shared out among more samples.
    if not str(term).startswith(("norm_N", "softmax_N", "bmm|kl")):
        assert twice.item() >= 0.5 * once.item()


@pytest.mark.parametrize("chain", [(), ("sample",), ("channel",), ("local", "sample"), ("attention_map",)])
@given(exponent_s=st.integers(-9, 9), exponent_t=st.integers(-9, 9))
@settings(max_examples=15, deadline=None)
def test_scale_of_the_features_does_not_matter_to_gram_matrices(
    chain: tuple[str, ...], exponent_s: int, exponent_t: int
) -> None:
    term = build_term(TermConfig("features", OpConfig("gl2"), transforms=tuple(map(OpConfig, chain))))
    student, teacher = draw(term, batch=4, dtype=torch.float32)
    expected = loss_of(term, student, teacher).item()
    scaled = loss_of(term, student * 10.0**exponent_s, teacher * 10.0**exponent_t)
    assert scaled.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("chain", [(), ("sample",), ("local", "sample"), ("attention_map",), ("attention", "sample")])
def test_gram_matrices_accept_different_numbers_of_channels(chain: tuple[str, ...]) -> None:
    term = build_term(TermConfig("features", OpConfig("gl2"), transforms=tuple(map(OpConfig, chain))))
    student, teacher = draw(term)
    assert gradient_of(term, student[:, :3], teacher).abs().sum() > 0


@pytest.mark.parametrize("name", [name for name, info in DISTANCES.items() if not info.needs_equal_width])
def test_distances_without_width_accept_embeddings_of_different_length(name: str) -> None:
    term = build_term(TermConfig("embeddings", OpConfig(name)))
    student, teacher = draw(term)
    assert gradient_of(term, student[:, :5], teacher).abs().sum() > 0


@pytest.mark.parametrize("name", [name for name, info in DISTANCES.items() if info.needs_equal_width])
def test_distances_refuse_shapes_that_do_not_match(name: str) -> None:
    shape = {"map": (4, 3, 2, 2), "rows": (2, 3, 4), "matrix": (4, 3)}[DISTANCES[name].takes[-1]]
    with pytest.raises(ValueError, match="Align them first"):
        DISTANCES[name].function(torch.rand(shape), torch.rand(*shape[:-1], shape[-1] + 1))


@pytest.mark.parametrize("info", [*TRANSFORMS.values(), *DISTANCES.values()], ids=lambda info: info.name)
def test_facts_are_complete_and_forms_are_checked(info: object) -> None:
    assert info.description.endswith((".", ":")) or "." in info.description
    assert info.source
    assert info.resolve({}) == {name: option.default for name, option in info.options.items()}
    with pytest.raises(ValueError, match="takes"):
        info.function(torch.rand(4), torch.rand(4))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_integer_knowledge_is_refused(name: str) -> None:
    info = TRANSFORMS[name]
    whole = torch.ones((2, 3, 4, 4) if "map" in info.takes else (2, 3), dtype=torch.int64)
    with pytest.raises(TypeError, match="floating point"):
        info.function(whole, whole, generator=torch.Generator())
