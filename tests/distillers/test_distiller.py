"""The distiller: named, weighted, scheduled terms that train the student and the adapters only."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from optuna_kd.distillers import Distiller, InvalidChainError
from optuna_kd.models.knowledge import Knowledge
from optuna_kd.recipe import DistillerConfig, OpConfig, Recipe, TermConfig
from optuna_kd.registry import UnknownNameError

FEATURE_CELLS = list(
    itertools.product(
        ("attention", "mask", "none"),
        ("multiscale", "local", "none"),
        ("sample", "channel", "none"),
        ("gl2", "kl", "l2"),
    )
)
DEAD_ON_2X2 = {("local", "channel", "kl"), ("local", "channel", "l2"), ("local", "none", "gl2")}


def draw(*shapes: tuple[int, int, int], batch: int = 4, seed: int = 0, grad: bool = False) -> Knowledge:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(batch, *shape, generator=generator) for shape in (*shapes, (10,))]
    *features, logits = (tensor.requires_grad_(grad) for tensor in tensors)
    return Knowledge(features=tuple(features), logits=logits)


def config(text: str, **options: Any) -> DistillerConfig:
    return DistillerConfig(Recipe.from_string(text).distiller.terms, **options)


S, T = (6, 4, 4), (8, 4, 4)
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("logit_distance", ["kl", "pearson"])
@pytest.mark.parametrize("size", [2, 4, 7, 8])
def test_every_cell_of_the_space_trains_the_student(size: int, logit_distance: str) -> None:
    shapes = (6, size, size), (8, size, size)
    for cell in FEATURE_CELLS:
        distiller = Distiller(
            config(f"{'>'.join(cell[:3])}|{cell[3]}*5 + {logit_distance}@4*1"), [shapes[0]], [shapes[1]]
        )
        student, teacher = draw(shapes[0], grad=True), draw(shapes[1], seed=1, grad=True)
        losses = distiller(student, teacher, LABELS)
        assert list(losses) == ["cross_entropy", "features", "logits"]
        sum(losses.values()).backward()
        assert all(loss.isfinite() and loss.shape == () for loss in losses.values()), cell
        assert student.features[0].grad.isfinite().all(), cell
        alive = size > 2 or cell[1:] not in DEAD_ON_2X2
        assert (student.features[0].grad.abs().max() > 1e-6) == alive, cell
        assert student.logits.grad.abs().sum() > 0
        assert teacher.features[0].grad is None
        assert teacher.logits.grad is None


def test_terms_are_weighted_sums_of_their_parts() -> None:
    distiller = Distiller(config("none|l2*5 + kl@4*0.5"), [S], [S])
    student, teacher = draw(S), draw(S, seed=1)
    losses = distiller(student, teacher, LABELS)
    assert losses["cross_entropy"].item() == pytest.approx(F.cross_entropy(student.logits, LABELS).item())
    assert losses["features"].item() == pytest.approx(5 * F.mse_loss(student.features[0], teacher.features[0]).item())
    raw = distiller.raw_losses(student, teacher)
    assert losses["logits"].item() == pytest.approx(0.5 * raw["logits"].item())
    assert "cross_entropy" not in distiller(student, teacher)


def test_terms_of_one_kind_are_numbered_and_share_their_layers_adapter() -> None:
    terms = tuple(
        TermConfig("features", OpConfig(name), layer=layer) for name, layer in (("l2", -1), ("kl", 1), ("l2", 0))
    )
    distiller = Distiller(DistillerConfig(terms), [S, S], [T, T])
    assert [term.name for term in distiller.terms] == ["features", "features_2", "features_3"]
    assert sorted(distiller.adapters) == ["0", "1"]
    assert len(distiller(draw(S, S), draw(T, T, seed=1))) == 3


def test_batch_statistics_of_a_shared_adapter_move_once_a_step() -> None:
    terms = (TermConfig("features", OpConfig("l2")), TermConfig("features", OpConfig("kl")))
    distiller = Distiller(DistillerConfig(terms), [S], [T])
    distiller(draw(S), draw(T))
    assert distiller.adapters["0"].norm.num_batches_tracked == 1


def test_labels_alone_need_no_feature_maps() -> None:
    losses = Distiller(DistillerConfig())(draw(), draw(), LABELS)
    assert list(losses) == ["cross_entropy"]


@pytest.mark.parametrize(("distance", "adapters"), [("gl2", 0), ("renyi", 0), ("l2", 1)])
def test_embeddings_are_projected_only_where_widths_must_match(distance: str, adapters: int) -> None:
    distiller = Distiller(DistillerConfig((TermConfig("embeddings", OpConfig(distance)),)), [S], [T])
    assert len(distiller.adapters) == adapters
    student = draw(S, grad=True)
    distiller(student, draw(T, seed=1))["embeddings"].backward()
    assert student.features[0].grad.abs().sum() > 0


def test_embeddings_are_the_average_of_the_map() -> None:
    distiller = Distiller(DistillerConfig((TermConfig("embeddings", OpConfig("l2")),)), [S], [S])
    student, teacher = draw(S), draw(S, seed=1)
    expected = F.mse_loss(student.embeddings[0], teacher.embeddings[0]).item()
    assert distiller(student, teacher)["embeddings"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("warmup", "stop", "expected"),
    [
        (0.0, 1.0, {0.0: 1, 0.5: 1, 1.0: 1}),
        (0.1, 1.0, {0.0: 0, 0.05: 0.5, 0.1: 1, 1.0: 1}),
        (0.0, 0.5, {0.0: 1, 0.49: 1, 0.5: 0, 1.0: 0}),
        (0.2, 0.5, {0.1: 0.5, 0.3: 1, 0.6: 0}),
    ],
)
def test_weights_warm_up_and_stop(warmup: float, stop: float, expected: dict[float, float]) -> None:
    distiller = Distiller(config("none|l2*2 + kl@1*1", warmup=warmup, stop=stop), [S], [S])
    student, teacher = draw(S), draw(S, seed=1)
    full = {name: value.item() for name, value in distiller.raw_losses(student, teacher).items()}
    for progress, factor in expected.items():
        losses = distiller(student, teacher, LABELS, progress=progress)
        assert losses["features"].item() == pytest.approx(2 * factor * full["features"])
        assert losses["logits"].item() == pytest.approx(factor * full["logits"])
        assert losses["cross_entropy"] > 0


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_outside_the_training_is_refused(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        Distiller(DistillerConfig())(draw(), draw(), progress=progress)


def test_normalised_terms_start_with_a_unit_gradient_and_keep_their_scale() -> None:
    distiller = Distiller(config("sample|gl2*1 + kl@4*1", normalise="initial"), [S], [T])
    student, teacher = draw(S, grad=True), draw(T, seed=1)
    with torch.no_grad():
        distiller(student, teacher)  # an evaluation does not count as the first step
    losses = distiller(student, teacher)
    for name, source in (("features", student.features[0]), ("logits", student.logits)):
        (gradient,) = torch.autograd.grad(losses[name], source, retain_graph=True)
        assert gradient.norm().item() == pytest.approx(1, rel=1e-4)
    scales = distiller.scales.clone()
    distiller(draw(S, seed=5, grad=True), teacher)
    assert torch.equal(distiller.scales, scales)


def test_normalised_terms_are_scaled_at_the_first_step_of_a_warm_up_too() -> None:
    distiller = Distiller(config("none|l2*1", normalise="initial", warmup=0.5), [S], [S])
    assert distiller(draw(S, grad=True), draw(S, seed=1), LABELS, progress=0.0)["features"] == 0
    assert distiller.scales[0] != 1


def test_checkpoint_keeps_adapters_scales_and_masks() -> None:
    def build(seed: int) -> Distiller:
        return Distiller(config("mask|l2*1 + kl@4*1", normalise="initial"), [S], [T], seed=seed)

    first, student, teacher = build(0), draw(S, grad=True), draw(T, seed=1)
    first(student, teacher)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build(1)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second(student, teacher)["features"].item() == first(student, teacher)["features"].item()


def test_seed_decides_adapters_and_masks_and_nothing_else_does() -> None:
    def loss(seed: int) -> float:
        return Distiller(config("mask|l2*1"), [S], [T], seed=seed)(draw(S), draw(T, seed=1))["features"].item()

    torch.manual_seed(1)
    first = loss(3)
    torch.manual_seed(2)
    assert loss(3) == first
    assert loss(4) != first


def test_masks_start_anew_from_a_seed() -> None:
    distiller = Distiller(config("mask|l2*1"), [S], [S], seed=3)
    first = distiller(draw(S), draw(S, seed=1))["features"].item()
    assert distiller(draw(S), draw(S, seed=1))["features"].item() != first
    distiller.reset_generator(3)
    assert distiller(draw(S), draw(S, seed=1))["features"].item() == first


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_distillers_can_be_copied_and_pickled(duplicate: Any) -> None:
    distiller = Distiller(config("mask>multiscale>channel|kl*1 + pearson@2*1"), [S], [T])
    student, teacher = draw(S), draw(T, seed=1)
    assert duplicate(distiller)(student, teacher)["features"].item() == distiller(student, teacher)["features"].item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_precision_of_the_losses(dtype: torch.dtype) -> None:
    distiller = Distiller(config("attention>local>sample|gl2*1 + pearson@4*1"), [S], [T])
    student, teacher = draw(S), draw(T, seed=1)
    full = distiller(student, teacher, LABELS)
    cast = [Knowledge(tuple(x.to(dtype) for x in k.features), k.logits.to(dtype)) for k in (student, teacher)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = distiller(*cast, LABELS)
    for name, loss in losses.items():
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert loss.item() == pytest.approx(full[name].item(), rel=2e-2)


def test_training_an_adapter_lowers_the_loss() -> None:
    distiller, student, teacher = Distiller(config("none|l2*1"), [S], [T]), draw(S), draw(T, seed=1)
    optimiser = torch.optim.SGD(distiller.parameters(), lr=1.0)
    losses = []
    for _ in range(20):
        loss = distiller(student, teacher)["features"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample>multiscale|l2*1", "'multiscale' takes map .4-D., but 'sample' gives rows"),
        ("sample>channel|l2*1", "'channel' takes map"),
        ("zscore|l2*1", "'zscore' takes matrix .2-D., but the features gives map"),
        ("none|pearson*1", "'pearson' is for logits"),
        ("gl2@1*1 + renyi@1*1", "'renyi' is for embeddings"),
    ],
)
def test_chains_that_do_not_fit_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidChainError, match=message):
        Distiller(config(text), [S], [T])


def test_patches_larger_than_the_map_are_refused_where_they_meet() -> None:
    assert Distiller(config("local|l2*1"), [S], [(6, 2, 2)])
    for chain, shape in (("local", (6, 1, 4)), ("multiscale>local", (6, 4, 4))):
        with pytest.raises(InvalidChainError, match=r"'features'.*cannot be cut into 2x2 patches"):
            Distiller(config(f"{chain}|l2*1"), [S], [shape])


@pytest.mark.parametrize("text", ["atention|l2*1", "none|kll*1", "kll@1*1"])
def test_unknown_names_are_refused_with_a_suggestion(text: str) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        Distiller(config(text), [S], [T])


def test_layers_and_shapes_must_pair_up() -> None:
    deep = DistillerConfig((TermConfig("features", OpConfig("l2"), layer=2),))
    with pytest.raises(ValueError, match="allowed are -2 to 1"):
        Distiller(deep, [S, S], [T, T])
    with pytest.raises(ValueError, match="no layer is tapped"):
        Distiller(config("none|l2*1"))
    with pytest.raises(ValueError, match="got 1 and 2 shapes"):
        Distiller(config("none|l2*1"), [S], [T, T])
    with pytest.raises(ValueError, match="made for 1 tapped layers; got 2"):
        Distiller(config("none|l2*1"), [S], [T])(draw(S, S), draw(T, T))


def test_logits_of_different_class_counts_are_refused() -> None:
    teacher = Knowledge((), torch.rand(4, 7))
    with pytest.raises(ValueError, match=r"student \(4, 10\) and teacher \(4, 7\)"):
        Distiller(config("kl@4*1"))(draw(), teacher)
