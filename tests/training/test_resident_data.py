"""What the networks see of resident and of streamed images: the same pixels, by whatever way they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from optuna_kd.data import ImageSet, StreamingSet
from optuna_kd.training import ImageClassification
from optuna_kd.training.offline import store_knowledge
from optuna_kd.training.teacher_answers import prepare_view, teacher_answers, view_images

Make = Callable[..., ImageClassification]


def expected(task: ImageClassification, view: int, index: int) -> np.ndarray:
    """One image as the definitions say it."""
    assert isinstance(task.train_set, ImageSet)
    row = task.view_table(view)[index].tolist()
    pad, side = task.augmentation.pad, 8
    padded = np.pad(task.train_set.images[index].numpy(), ((0, 0), (pad, pad), (pad, pad)))
    pixels = padded[:, row[0] : row[0] + side, row[1] : row[1] + side]
    pixels = pixels[:, :, ::-1] if row[2] else pixels
    mean, std = (np.float32(value[0]) for value in (task.normalizer.mean, task.normalizer.std))
    seen = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    if task.augmentation.cut:
        y, x = (value * side // 65536 - task.augmentation.cut // 2 for value in row[3:])
        seen[:, max(0, y) : max(0, y + 4), max(0, x) : max(0, x + 4)] = 0
    return seen


@pytest.mark.parametrize("augment", ["none", "shift", "crop-flip", "crop-flip-cutout"])
def test_a_view_is_bit_for_bit_what_its_table_says(make_task: Make, augment: str) -> None:
    task = make_task(augment=augment)
    indices = torch.tensor([5, 150, 5, 0, 77])
    for view in (0, 3):
        seen = view_images(task, view, indices).numpy()
        assert seen.dtype == np.float32
        for image, index in zip(seen, indices.tolist(), strict=True):
            assert np.array_equal(image, expected(task, view, index))


def test_images_read_ahead_are_seen_alike(make_task: Make) -> None:
    task = make_task(augment="crop-flip-cutout")
    batches = [torch.tensor([3, 1]), torch.tensor([0, 9, 150])]
    for batch, (raw, _) in zip(batches, task.train_set.read_ahead(batches), strict=True):
        assert torch.equal(prepare_view(task, 1, batch, raw), view_images(task, 1, batch))


def test_knowledge_of_views_with_cutout_is_replayed(make_task: Make) -> None:
    task = make_task(augment="shift-cutout")
    known = store_knowledge(task)
    indices = torch.arange(0, 32)
    for view in (0, 1):
        online = task.teacher_knowledge(view_images(task, view, indices))
        stored = known.batch(view, indices, task.device)
        torch.testing.assert_close(stored.logits, online.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stored.features[0], online.features[0], rtol=1e-4, atol=1e-5)


def test_cutout_says_so_in_what_a_study_stores(make_task: Make) -> None:
    assert make_task(augment="crop-flip").preprocessing()["augment"] == {"name": "crop-flip", "pad": 1, "flip": True}
    described = make_task(augment="crop-flip-cutout").preprocessing()["augment"]
    assert described == {"name": "crop-flip-cutout", "pad": 1, "flip": True, "cut": 4}


def test_the_teacher_answers_alike_about_streamed_images(make_task: Make, digits: dict[str, Any]) -> None:
    images, labels = digits["train"]
    pixels = TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    streamed = StreamingSet(pixels, torch.from_numpy(labels), is_random=False)
    tasks = [
        make_task(train=data, augment="shift", normalize=((0.3,), (0.4,))) for data in (streamed, (images, labels))
    ]
    assert [type(task.train_set).__name__ for task in tasks] == ["StreamingSet", "ImageSet"]
    indices = torch.arange(0, 160, 3)
    streaming, resident = (list(teacher_answers(task, indices, [0, None])) for task in tasks)
    assert [(answer.prefix, answer.row) for answer in resident] == [("", 0), ("", 54), ("val_", 0)]
    for a, b in zip(streaming, resident, strict=True):
        assert (a.prefix, a.row) == (b.prefix, b.row)
        assert torch.equal(a.logits, b.logits)
        assert torch.equal(a.features, b.features)
