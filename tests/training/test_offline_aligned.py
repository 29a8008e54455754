"""Aligned knowledge: exact where a network commutes with the augmentation, and an honest figure where it does not."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strided_teacher import StridedTeacher, strided_task
from torch import Tensor, nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, StudentTraining, TeacherKnowledge, store_knowledge
from optuna_kd.training.alignment import align_maps, measure_alignment
from optuna_kd.training.offline import AlignedKnowledge, KnowledgeChoices, prepare_knowledge, view_images

CPU = torch.device("cpu")
ALL = torch.arange(32)
ALIGNED = KnowledgeChoices(mode="aligned")


@pytest.fixture(scope="module")
def task(one_thread: None) -> ImageClassification:
    return strided_task()


def quiet(line: str) -> None:
    del line


def test_shifts_by_whole_map_pixels_and_flips_are_exact(task: ImageClassification) -> None:
    images = task.train_set.batch(ALL[:2])[0]
    clean = task.teacher_knowledge(task.prepare(images)).features[0]
    for dy, dx, flip in itertools.product((0, 2, 4), (0, 2, 4), (0, 1)):
        params = torch.tensor([[dy, dx, flip], [4 - dy, dx, 1 - flip]])
        moved = task.teacher_knowledge(task.prepare(task.augmentation.apply(images, params))).features[0]
        aligned = align_maps(clean, params, task.augmentation.pad, (16, 16))
        torch.testing.assert_close(aligned, moved, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(clean, moved, atol=0.1)


def test_only_borders_are_off_where_black_is_not_zero(one_thread: None) -> None:
    task = strided_task(StridedTeacher(bias=True))
    images, params = task.train_set.batch(ALL[:1])[0], torch.tensor([[4, 2, 1]])  # up by one map pixel, mirrored
    clean = task.teacher_knowledge(task.prepare(images)).features[0]
    moved = task.teacher_knowledge(task.prepare(task.augmentation.apply(images, params))).features[0]
    aligned = align_maps(clean, params, task.augmentation.pad, (16, 16))
    torch.testing.assert_close(aligned[:, :, :-1], moved[:, :, :-1], rtol=1e-4, atol=1e-5)
    assert torch.allclose(moved[:, :, -1], torch.ones(3, 8))  # what the bias makes of black
    assert torch.allclose(aligned[:, :, -1], torch.zeros(3, 8), atol=1e-5)


def test_half_a_map_pixel_by_hand() -> None:
    ramp = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]]).expand(1, 1, 4, 4)
    right = align_maps(ramp, torch.tensor([[2, 1, 0]]), 2, (8, 8))  # dx - pad = -1 of 8 pixels: half of 4
    assert right[0, 0, 0].tolist() == pytest.approx([0.0, 0.5, 1.5, 2.5])
    left_mirrored = align_maps(ramp, torch.tensor([[2, 3, 1]]), 2, (8, 8))
    assert left_mirrored[0, 0, 0].tolist() == pytest.approx([1.5, 2.5, 1.5, 0.5])  # 3 fades into zero outside
    up = align_maps(ramp.transpose(2, 3), torch.tensor([[3, 2, 0]]), 2, (8, 8))
    assert up[0, 0, :, 0].tolist() == pytest.approx([0.5, 1.5, 2.5, 1.5])


def test_a_view_moves_each_image_as_its_row_says(task: ImageClassification) -> None:
    known = prepare_knowledge(task, ALIGNED, say=quiet)
    assert isinstance(known, AlignedKnowledge)
    assert known.views is None
    assert known.features.shape == (1, 32, 3, 8, 8)
    for view in (0, 7):
        even = ((task.view_table(view)[:, :2] % 2) == 0).all(dim=1).nonzero().flatten().flip(0)
        assert len(even) > 3
        true = task.teacher_knowledge(view_images(task, view, even))
        given = known.batch(view, even, CPU)
        torch.testing.assert_close(given.features[0], true.features[0], rtol=1e-4, atol=1e-5)
        clean = task.teacher_knowledge(task.prepare(task.train_set.batch(even)[0]))
        torch.testing.assert_close(given.logits, clean.logits, rtol=1e-4, atol=1e-5)
    replayed = store_knowledge(task)
    assert torch.equal(known.validation(ALL[:5], CPU).features[0], replayed.validation(ALL[:5], CPU).features[0])


def test_the_error_against_numpy(task: ImageClassification) -> None:
    """All 32 images, each map and each logit computed again without the code under test."""
    error = measure_alignment(task)
    seen: list[np.ndarray] = []
    ask = task.teacher_knowledge

    def spy(images: Tensor) -> Any:
        seen.append(images.numpy()[:, 0])
        return ask(images)

    task.teacher_knowledge = spy  # type: ignore[method-assign]
    try:
        assert measure_alignment(task) == error
    finally:
        del task.teacher_knowledge
    views, clean = seen
    weight = task.teacher.conv.weight.detach().numpy()[:, 0]
    head = task.teacher.head.weight.detach().numpy()

    def conv(image: np.ndarray) -> np.ndarray:
        return np.einsum("oab,yaxb->oyx", weight, image.reshape(8, 2, 8, 2))

    def sample(maps: np.ndarray, y: float, x: float) -> np.ndarray:
        total = np.zeros(3)
        for i, j in itertools.product((0, 1), (0, 1)):
            row, column = int(np.floor(y)) + i, int(np.floor(x)) + j
            if 0 <= row < 8 and 0 <= column < 8:
                total += maps[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
        return total

    off = size = divergence = same = 0.0
    for shown, image in zip(views, clean, strict=True):
        dy, dx, flip = find_augmentation(image, shown)
        maps, truth = conv(image), conv(shown)
        for i, j in itertools.product(range(8), range(8)):
            guess = sample(maps, i + (dy - 2) / 2, (7 - j if flip else j) + (dx - 2) / 2)
            off += ((guess - truth[:, i, j]) ** 2).sum()
        size += (truth**2).sum()
        p, q = (np.exp(z) / np.exp(z).sum() for z in (head @ truth.ravel(), head @ maps.ravel()))
        divergence += (p * np.log(p / q)).sum()
        same += p.argmax() == q.argmax()
    assert error.images == 32
    assert error.maps == pytest.approx((off / size) ** 0.5, rel=1e-4)
    assert error.kl == pytest.approx(divergence / 32, rel=1e-3)
    assert error.agreement == same / 32
    assert 0.05 < error.maps < 1
    assert error.kl > 0


def find_augmentation(image: np.ndarray, shown: np.ndarray) -> tuple[int, int, bool]:
    """Find the shift and flip between two images by trying all."""
    padded = np.pad(image, 2)
    for dy, dx, flip in itertools.product(range(5), range(5), (False, True)):
        cut = padded[dy : dy + 16, dx : dx + 16]
        if np.array_equal(cut[:, ::-1] if flip else cut, shown):
            return dy, dx, flip
    raise AssertionError("not a view of this image")


def test_the_error_is_told_and_kept(task: ImageClassification, tmp_path: Path) -> None:
    said: list[str] = []
    choices = KnowledgeChoices(mode="aligned", directory=tmp_path)
    known = prepare_knowledge(task, choices, say=said.append)
    assert known is not None
    error = measure_alignment(task)
    assert said[1] == f"aligned: {error}"
    assert known.figures["maps"] == error.maps
    again = prepare_knowledge(task, choices, say=said.append)
    assert again is not None
    assert again.figures == known.figures
    assert isinstance(again, AlignedKnowledge)


def test_without_augmentation_it_is_exact(one_thread: None) -> None:
    task = strided_task(augment="none")
    error = measure_alignment(task)
    assert error.maps < 1e-6
    assert (error.kl, error.agreement) == (pytest.approx(0, abs=1e-6), 1)
    known, replayed = prepare_knowledge(task, ALIGNED, say=quiet), store_knowledge(task)
    assert known is not None
    runs = [
        StudentTraining(task, Recipe.from_string("none|l2*1 + kl@4*1"), ProxyConfig(epochs=2), seed=0, knowledge=given)
        for given in (known, replayed)
    ]
    first, second = ([rung.metrics for rung in run.run()][-1] for run in runs)
    assert first.cross_entropy == pytest.approx(second.cross_entropy, rel=1e-3)


def test_every_epoch_shows_a_new_view(task: ImageClassification) -> None:
    shown: list[int] = []

    class Spy(AlignedKnowledge):
        def batch(self, view: int, indices: Tensor, device: torch.device) -> Any:
            shown.append(view)
            return super().batch(view, indices, device)

    known = prepare_knowledge(task, ALIGNED, say=quiet)
    assert known is not None
    spy = Spy(**vars(known))
    list(StudentTraining(task, Recipe.from_string("kl@4*1"), ProxyConfig(epochs=5), seed=0, knowledge=spy).run())
    assert sorted(set(shown)) == [0, 1, 2, 3, 4]  # replay would have shown 0, 1, 2, 0, 1


def test_it_travels_in_a_file(task: ImageClassification, tmp_path: Path) -> None:
    known = prepare_knowledge(task, KnowledgeChoices(mode="aligned", limit=40_000), ALL[:8], say=quiet)
    assert known is not None
    assert known.covers(ALL[:8])
    assert not known.covers(ALL[:9])
    known.save(tmp_path / "aligned.bin")
    loaded = TeacherKnowledge.load(tmp_path / "aligned.bin", task)
    assert isinstance(loaded, AlignedKnowledge)
    for given, expected in zip(*(k.batch(5, ALL[2:6], CPU).features for k in (loaded, known)), strict=True):
        assert torch.equal(given, expected)


def test_a_teacher_that_is_not_finite_is_refused(one_thread: None) -> None:
    teacher = StridedTeacher()
    nn.init.constant_(teacher.head.weight, torch.inf)
    with pytest.raises(ValueError, match="The logits of the teacher are not finite"):
        prepare_knowledge(strided_task(teacher), ALIGNED, say=quiet)
