"""DisWOT: both parts are what the papers' formulas give, and a ranking depends on its seed alone."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from optuna_kd.distillers.distances import gl2
from optuna_kd.models import checksum, create_model, create_student
from optuna_kd.recipe import StudentConfig
from optuna_kd.registry import UnknownNameError
from optuna_kd.seeds import derive_seed
from optuna_kd.training import ImageClassification, diswot
from optuna_kd.training.diswot import (
    diswot_score,
    look,
    rank_students,
    reinitialise,
    relation_distance,
    semantic_distance,
)

HALF = math.sqrt(0.5)


def student(depth: int = 1, width: float = 0.5) -> StudentConfig:
    return StudentConfig("resnet", {"depth_1": depth, "depth_2": 1, "depth_3": 1, "width": width})


def build(config: StudentConfig) -> nn.Module:
    return create_student(config, num_classes=10, in_channels=1, input_size=8)


@pytest.fixture(scope="module")
def open_task(make_task: Callable[..., Any]) -> ImageClassification:
    """Students of any depth and width; a width of 0.5 is the teacher's."""
    task: ImageClassification = make_task(student=build)
    return task


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, 1, 4, 4, generator=generator), torch.tensor([0, 1, 2, 0, 1, 1])


def tiny(channels: int = 3, classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, channels, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, classes),
    )


def score(teacher: nn.Module, student: nn.Module, batch: tuple[Tensor, Tensor], **changes: Any) -> float:
    return diswot_score(teacher, student, *batch, **{"teacher_layer": "1", "student_layer": "1", **changes})


def rows_of_length_one(matrix: np.ndarray) -> np.ndarray:
    length = np.sqrt((matrix**2).sum(-1, keepdims=True))
    return np.divide(matrix, length, out=np.zeros_like(matrix), where=length > 0)


def numpy_glance(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute maps and dCE/dW of a tiny network without torch."""
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    pixels = images.double().numpy()[:, 0]
    count, side = len(pixels), pixels.shape[1] // 2
    patches = pixels.reshape(count, side, 2, side, 2)
    maps = np.maximum(np.einsum("nhawb,cab->nchw", patches, state["0.weight"][:, 0]), 0)
    hidden = maps.mean((2, 3))
    logits = hidden @ state["4.weight"].T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return maps, (p - np.eye(p.shape[1])[labels.numpy()]).T @ hidden / count


@pytest.mark.parametrize("channels", [3, 2])
def test_the_score_is_minus_sp_minus_ickd(batch: tuple[Tensor, Tensor], channels: int) -> None:
    networks = {"teacher": tiny(3), "student": tiny(channels)}
    sides = [
        numpy_glance(reinitialise(network, derive_seed(7, "diswot", role)), *batch)
        for role, network in networks.items()
    ]
    samples = [rows_of_length_one(maps.reshape(6, -1) @ maps.reshape(6, -1).T) for maps, _ in sides]
    relation = ((samples[0] - samples[1]) ** 2).sum() / 6**2
    if channels == 3:
        semantic = 0.0
        for g_t, g_s in zip(sides[0][1], sides[1][1], strict=True):
            gram_t, gram_s = (rows_of_length_one(np.outer(g, g)) for g in (g_t, g_s))
            semantic += ((gram_t - gram_s) ** 2).sum() / (3 * 3)
    else:
        classes = [rows_of_length_one(g @ g.T) for _, g in sides]
        semantic = ((classes[0] - classes[1]) ** 2).sum() / 3
    assert score(networks["teacher"], networks["student"], batch, seed=7) == pytest.approx(-relation - semantic, 1e-4)


def test_relations_by_hand() -> None:
    # Gram matrices 1 and all ones; rows (1, 0) and (√½, √½) differ by 2 - √2 in square, twice, over 2².
    apart, alike = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert float(relation_distance(apart, alike)) == pytest.approx((2 - 2 * HALF) / 2)
    assert float(relation_distance(torch.eye(2).view(2, 2, 1, 1), torch.ones(2, 5, 3, 3))) == pytest.approx(1 - HALF)


def test_semantics_by_hand() -> None:
    # Rows (1, 0) and (0, 0) against twice (√½, √½): 2 - √2 and 1, over K·D = 2.
    assert float(semantic_distance(torch.tensor([[3.0, 0.0]]), torch.ones(1, 2))) == pytest.approx((3 - 2 * HALF) / 2)
    # A sign does not count for a matrix of rank one, but a sign of one channel does: rows differ by (0, √2), (√2, 0).
    assert float(semantic_distance(-torch.ones(1, 2), torch.ones(1, 2))) == pytest.approx(0)
    assert float(semantic_distance(torch.tensor([[1.0, -1.0]]), torch.ones(1, 2))) == pytest.approx(2)
    wide = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert float(semantic_distance(wide, torch.ones(2, 2), per_class=True)) == pytest.approx(2 - 2 * HALF)


def test_the_short_form_of_the_semantics_is_that_of_the_gram_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    g_s, g_t = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    g_s[:, 2], g_t[:, :2], g_s[3], g_t[4] = 0, 0, 0, 0
    expected = gl2(g_s[:, :, None], g_t[:, :, None], norm="row", squared=True)
    torch.testing.assert_close(semantic_distance(g_s, g_t), expected)


@pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e25])
def test_scales_do_not_count(batch: tuple[Tensor, Tensor], scale: float) -> None:
    taught, learnt = (look(tiny(), *batch, "1", role="teacher", seed=seed) for seed in (0, 1))
    for per_class in (False, True):
        torch.testing.assert_close(
            semantic_distance(learnt.gradient * scale, taught.gradient, per_class=per_class),
            semantic_distance(learnt.gradient, taught.gradient, per_class=per_class),
        )
    expected = relation_distance(learnt.maps, taught.maps)
    torch.testing.assert_close(relation_distance(learnt.maps, taught.maps * scale), expected)


def test_nothing_is_above_zero_and_equal_networks_are_there(batch: tuple[Tensor, Tensor]) -> None:
    one, other = (look(tiny(), *batch, "1", role="teacher", seed=5) for _ in range(2))
    for per_class in (False, True):
        assert float(semantic_distance(one.gradient, other.gradient, per_class=per_class)) == 0
    assert float(relation_distance(one.maps, other.maps)) == 0
    assert score(tiny(), tiny(), batch) < 0
    # Nothing to tell apart: a map without weights, and images without a difference.
    pooling = nn.Sequential(nn.AvgPool2d(2), nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    assert score(pooling, pooling, (torch.full((6, 1, 4, 4), 0.1), batch[1])) == pytest.approx(0, abs=1e-9)


def test_scores_depend_on_the_seed_alone(batch: tuple[Tensor, Tensor]) -> None:
    teacher, network = tiny(), tiny(5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    found = score(teacher, network, batch, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    with torch.no_grad():
        assert score(tiny(), tiny(5), batch, seed=4) == found  # of other weights
    assert score(teacher, network, batch, seed=5) != found


def test_the_networks_stay_as_they_are() -> None:
    network = create_model("resnet8x0.25", num_classes=10, in_channels=1, input_size=8).train()
    network.layer1.eval().requires_grad_(False)
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)

    def state() -> Any:
        hooks = [len(module._forward_hooks) for module in network.modules()]
        modes = [module.training for module in network.modules()]
        return checksum(network), hooks, modes, [(p.requires_grad, p.grad) for p in network.parameters()]

    before, pixels = state(), images.clone()
    score(network, network, (images, labels), teacher_layer="layer3", student_layer="layer3")
    assert state() == before
    assert torch.equal(images, pixels)


@pytest.mark.parametrize(("variance", "deviation"), [("one", 1), ("fan_in", 1 / 12)])
def test_weights_are_gaussian_and_normalisation_is_new(variance: Any, deviation: float) -> None:
    network = nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Dropout(), nn.GroupNorm(2, 64))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 7)
    network[1].running_mean.fill_(7)
    copy = reinitialise(network, seed=0, variance=variance)
    weights = copy[0].weight / deviation
    assert float(weights.mean()) == pytest.approx(0, abs=0.03)
    assert float(weights.std()) == pytest.approx(1, abs=0.03)
    assert float(weights.pow(4).mean()) == pytest.approx(3, abs=0.3)
    assert not copy[0].bias.any()
    for norm in (copy[1], copy[3]):
        assert bool((norm.weight == 1).all())
        assert not norm.bias.any()
    assert not copy[1].running_mean.any()
    assert [module.training for module in copy] == [False, True, False, False]


def test_a_ranking_is_of_diswot_scores(open_task: ImageClassification) -> None:
    whole = len(open_task.train_set)  # the batch is then all images, in another order
    ranking = rank_students(open_task, [student(1), student(3), student(5)], batch=2 * whole)
    images, labels = open_task.train_set.batch(range(whole))
    expected = {
        config: diswot_score(
            open_task.teacher,
            build(config),
            open_task.prepare(images),
            labels,
            teacher_layer="layer3",
            student_layer="layer3",
            seed=derive_seed(0, "repeat", 0),
        )
        for config in ranking
    }
    assert ranking == pytest.approx(expected, rel=1e-3)
    assert list(ranking) == sorted(expected, key=expected.__getitem__, reverse=True)
    assert len(set(ranking.values())) == 3


def test_a_ranking_with_other_widths_uses_one_form_for_all(open_task: ImageClassification) -> None:
    alone = rank_students(open_task, [student(1), student(3)])
    mixed = rank_students(open_task, [student(1), student(3), student(1, width=0.25)])
    assert set(mixed) == {student(1), student(3), student(1, width=0.25)}
    both = rank_students(open_task, [student(1), student(1, width=0.25)])
    assert mixed[student(1)] == both[student(1)] != alone[student(1)]


def test_repeats_are_averaged(open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_students(open_task, [student()], repeats=2) != rank_students(open_task, [student()])
    parts: Iterator[Any] = iter([diswot._Comparison(1, 9, 3), diswot._Comparison(2, 9, 6)])
    monkeypatch.setattr(diswot, "_compare", lambda *_: next(parts))
    assert rank_students(open_task, [student(), student()], repeats=2) == {student(): -(4 + 8) / 2}


def test_students_that_cannot_be_built_are_left_out(
    open_task: ImageClassification, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [student(0), StudentConfig("resnet", {"width": 1}), StudentConfig("resnet8x0.001")]
    with caplog.at_level(logging.WARNING):
        ranking = rank_students(open_task, [broken[0], student(), *broken[1:]])
    assert list(ranking) == [student()]
    assert "3 students cannot be built and are left out, the first: resnet(depth_1=0" in caplog.text
    assert rank_students(open_task, []) == {}


RANKING = """
import json, numpy as np, torch
from optuna_kd.models import create_model, create_student
from optuna_kd.recipe import StudentConfig
from optuna_kd.training import ImageClassification
from optuna_kd.training.diswot import rank_students

torch.set_num_threads(1)
small = dict(num_classes=10, in_channels=1, input_size=8)
images = np.random.default_rng(0).normal(size=(200, 1, 8, 8)).astype(np.float32)
teacher = create_model("resnet8x0.5", **small)
data = images, np.arange(200) % 10
task = ImageClassification(teacher, lambda config: create_student(config, **small), data, device="cpu")
students = [StudentConfig(name) for name in ("resnet8x0.5", "resnet14x0.5", "wrn_10_1")]
ranking = json.dumps([[config.name, score] for config, score in rank_students(task, students, seed=1).items()])
"""


def test_a_ranking_is_the_same_in_every_process(one_thread: None) -> None:
    here: dict[str, Any] = {}
    exec(RANKING, here)
    done = subprocess.run(
        [sys.executable, "-c", f"{RANKING}print(ranking)"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(here["ranking"])) == 3
    assert done.stdout.strip() == here["ranking"]


def test_networks_without_a_linear_classifier_are_refused(
    batch: tuple[Tensor, Tensor], make_task: Callable[..., Any]
) -> None:
    def convolutional(classes: int = 3) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(1, classes, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with pytest.raises(ValueError, match=r"last linear layer that gives the 3 logits.*\(student\) has none: none ran"):
        score(tiny(), convolutional(), batch)
    cut = nn.Sequential(*tiny(classes=4), nn.AdaptiveMaxPool1d(3))
    with pytest.raises(ValueError, match=r"\(teacher\) has none: its last one puts out 4 values"):
        score(cut, tiny(), batch)
    task = make_task(student=lambda config: convolutional(10))
    with pytest.raises(ValueError, match=r"The student resnet8 has no DisWOT score: .*none ran"):
        rank_students(task, [StudentConfig("resnet8")])


def test_values_that_are_not_finite_are_refused(batch: tuple[Tensor, Tensor]) -> None:
    images = batch[0].clone()
    images[2, 0, 1, 1] = math.nan
    with pytest.raises(ValueError, match=r"The maps of the teacher are not finite .* check the images for NaN"):
        score(tiny(), tiny(), (images, batch[1]))
    with pytest.raises(ValueError, match=r"The gradients of the (teacher|student) are not finite"):
        score(tiny(), tiny(), (batch[0] * 3e37, batch[1]))


def test_batches_that_do_not_fit_are_refused(batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    with pytest.raises(ValueError, match="it needs two images or more; got 1"):
        score(tiny(), tiny(), (images[:1], labels[:1]))
    for wrong in (labels[:5], labels[:0], labels.float()):
        with pytest.raises(ValueError, match="Labels are int64, one for each of 6 images; got"):
            score(tiny(), tiny(), (images, wrong))
    for wrong in (labels + 1, labels - 1):
        with pytest.raises(ValueError, match=r"Labels are in 0..2; got"):
            score(tiny(), tiny(), (images, wrong))
    with pytest.raises(UnknownNameError, match="Unknown layer '9'"):
        score(tiny(), tiny(), batch, student_layer="9")
    with pytest.raises(ValueError, match=r"the same classes K.* got student \[4, 3\] and teacher \[3, 3\]"):
        score(tiny(), tiny(classes=4), batch)


def test_rankings_that_make_no_sense_are_refused(open_task: ImageClassification, task: ImageClassification) -> None:
    with pytest.raises(ValueError, match="This task has one student"):
        rank_students(task, [student()])
    with pytest.raises(ValueError, match=r"batch >= 2 and repeats >= 1; got batch=1"):
        rank_students(open_task, [student()], batch=1)
    with pytest.raises(ValueError, match="repeats=0"):
        rank_students(open_task, [student()], repeats=0)
