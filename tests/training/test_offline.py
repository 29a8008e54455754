"""Offline teacher knowledge: exactly what the teacher would have said, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import (
    ImageClassification,
    KnowledgeMismatchError,
    StudentTraining,
    TeacherKnowledge,
    store_knowledge,
    teacher_answers,
)
from optuna_kd.training.lesson import Batch
from optuna_kd.training.offline import chunks, knowledge_bytes, store_affordable, view_images

Make = Callable[..., ImageClassification]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stored(task: ImageClassification) -> TeacherKnowledge:
    return store_knowledge(task)


def test_shapes_and_size(task: ImageClassification, stored: TeacherKnowledge) -> None:
    assert stored.views == 2
    assert stored.features.shape == (2, 160, 32, 4, 4)
    assert stored.logits.shape == (2, 160, 10)
    assert stored.val_features.shape == (40, 32, 4, 4)
    tensors = (stored.features, stored.logits, stored.val_features, stored.val_logits)
    assert knowledge_bytes(task) == sum(tensor.numel() * 4 for tensor in tensors)


@pytest.mark.parametrize("augment", ["none", "shift", "crop-flip"])
def test_it_is_what_the_teacher_says_online(make_task: Make, augment: str) -> None:
    """For any images in any order, on exactly these augmented pixels."""
    task = make_task(augment=augment)
    stored = store_knowledge(task)
    for view in range(task.views):
        indices = torch.randperm(160, generator=torch.Generator().manual_seed(view))[:33]
        online = task.teacher_knowledge(view_images(task, view, indices))
        offline = stored.batch(view, indices, CPU)
        # Another batch size sums in another order: equal up to rounding ...
        torch.testing.assert_close(offline.features[0], online.features[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(offline.logits, online.logits, rtol=1e-4, atol=1e-5)
        # ... and bit for bit with the same batches.
        same = task.teacher_knowledge(view_images(task, view, torch.arange(160)))
        assert torch.equal(stored.features[view], same.features[0])
        assert torch.equal(stored.logits[view], same.logits)
    validation = task.teacher_knowledge(task.prepare(task.val_set.images))
    known = stored.validation(torch.arange(40), CPU)
    assert torch.equal(known.features[0], validation.features[0])
    assert torch.equal(known.logits, validation.logits)


def test_a_misaligned_view_would_be_seen(task: ImageClassification, stored: TeacherKnowledge) -> None:
    # Guards the test above: views, images and augmented pixels do differ.
    assert not torch.allclose(stored.logits[0], stored.logits[1], atol=1e-3)
    assert not torch.allclose(stored.logits[0, :80], stored.logits[0, 80:], atol=1e-3)
    plain = task.teacher_knowledge(task.prepare(task.train_set.images))
    assert not torch.allclose(stored.logits[0], plain.logits, atol=1e-3)


def test_views_are_the_same_pixels_for_any_batch(task: ImageClassification) -> None:
    whole = view_images(task, 1, torch.arange(160))
    assert torch.equal(view_images(task, 1, torch.tensor([7, 150, 3])), whole[[7, 150, 3]])
    assert not torch.equal(view_images(task, 0, torch.arange(160)), whole)


def test_chunks_do_not_matter(
    task: ImageClassification, stored: TeacherKnowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_answers, "CHUNK", 37)
    again = store_knowledge(task)
    torch.testing.assert_close(again.features, stored.features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.val_logits, stored.val_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 255, 256, 257, 259, 260, 512, 1000, 1025])
def test_no_chunk_is_too_small_for_cka(count: int) -> None:
    parts = chunks(count)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    assert all(part.stop - part.start >= min(4, count) for part in parts)
    assert all(part.stop - part.start < 256 + 4 for part in parts)


def test_a_file_comes_back_bit_for_bit(task: ImageClassification, stored: TeacherKnowledge, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "knowledge.pt"
    stored.save(file)
    assert [path.name for path in file.parent.iterdir()] == ["knowledge.pt"]
    loaded = TeacherKnowledge.load(file, task)
    assert loaded.key == stored.key
    for name in ("features", "logits", "val_features", "val_logits"):
        assert torch.equal(getattr(loaded, name), getattr(stored, name))


@pytest.mark.parametrize(
    ("change", "side"),
    [
        ("teacher", "teacher"),
        ("teacher_layer", "teacher"),
        ("val_share", "split"),
        ("normalize", "preprocessing"),
        ("augment", "preprocessing"),
        ("views", "preprocessing"),
    ],
)
def test_knowledge_of_something_else_is_refused_naming_both(
    task: ImageClassification,
    stored: TeacherKnowledge,
    make_task: Make,
    make_teacher: Callable[[int], nn.Module],
    tmp_path: Path,
    change: str,
    side: str,
) -> None:
    values: dict[str, Any] = {
        "teacher": make_teacher(1), "teacher_layer": "layer2", "val_share": 0.3, "normalize": ([0.4], [0.4]),
        "augment": "crop-flip", "views": 3,
    }  # fmt: skip
    other = make_task(**{change: values[change]})
    stored.save(tmp_path / "knowledge.pt")
    with pytest.raises(KnowledgeMismatchError) as caught:
        TeacherKnowledge.load(tmp_path / "knowledge.pt", other)
    message = str(caught.value)
    assert f"{side}: stored " in message
    before, now = (t.describe() for t in (task, other))
    for described in (before, now):
        shown = {
            "teacher": described["teacher_layer"] if change == "teacher_layer" else described["teacher"],
            "split": described["validation"],
            "preprocessing": str(described["preprocessing"]["views"])
            if change == "views"
            else described["preprocessing"]["augment"]["name"],
        }[side]
        assert shown in message
    with pytest.raises(KnowledgeMismatchError):
        stored.check(other)


def test_another_student_may_use_it(stored: TeacherKnowledge, make_task: Make) -> None:
    stored.check(make_task(student_layer="layer2", lr=0.01, batch_size=8))


def test_a_changed_teacher_is_noticed(make_task: Make) -> None:
    task = make_task()
    stored = store_knowledge(task)
    with torch.no_grad():
        next(task.teacher.parameters())[0] += 1
    with pytest.raises(KnowledgeMismatchError, match="teacher: stored"):
        stored.check(task)


def test_a_teacher_that_is_not_finite_is_refused(make_task: Make, make_teacher: Callable[[int], nn.Module]) -> None:
    teacher = make_teacher(0)
    with torch.no_grad():
        next(teacher.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="The maps of the teacher are not finite"):
        store_knowledge(make_task(teacher=teacher))


class Online(StudentTraining):
    """Keeps the teacher's answers of every step."""

    def ask_teacher(self, batch: Batch) -> Any:
        known = super().ask_teacher(batch)
        self.asked = [*getattr(self, "asked", []), known]
        return known


@pytest.mark.parametrize("text", ["none|l2*5 + kl@4*1", "mask>local>sample|gl2*5 + pearson@4*1"])
def test_offline_and_online_teachers_train_the_same_student(make_task: Make, text: str) -> None:
    task = make_task(precision="float32")  # what is stored always is, and then both are
    stored = store_knowledge(task)
    recipe, proxy = Recipe.from_string(text), ProxyConfig(epochs=2)
    runs = [Online(task, recipe, proxy, seed=3, knowledge=known) for known in (stored, None)]
    metrics = [[rung.metrics for rung in run.run()] for run in runs]
    assert len(runs[0].asked) == len(runs[1].asked) == 10
    for offline, online in zip(runs[0].asked, runs[1].asked, strict=True):
        torch.testing.assert_close(offline.features[0], online.features[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(offline.logits, online.logits, rtol=1e-4, atol=1e-5)
    for first, second in zip(runs[0].student.parameters(), runs[1].student.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-3)
    for first, second in zip(*metrics, strict=True):
        assert first.cross_entropy == pytest.approx(second.cross_entropy, rel=1e-2)
        assert first.cka == pytest.approx(second.cka, abs=1e-2)


def test_streaming_data_have_no_stored_knowledge(make_task: Make, digits: dict[str, Any]) -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            image = torch.from_numpy(digits["train"][0][index]).float() / 255
            return image + torch.rand(1), int(digits["train"][1][index])

    with pytest.raises(ValueError, match="the teacher stays online"):
        store_knowledge(make_task(train=Noisy()))


def test_knowledge_of_some_images(task: ImageClassification, stored: TeacherKnowledge) -> None:
    some = torch.tensor([5, 3, 150])
    part = store_knowledge(task, some)
    assert part.covers(torch.tensor([3, 150]))
    assert not part.covers(torch.tensor([3, 4]))
    assert stored.covers(torch.arange(160))
    for view in range(task.views):
        asked = torch.tensor([150, 5])
        torch.testing.assert_close(part.batch(view, asked, CPU).logits, stored.batch(view, asked, CPU).logits)


def test_what_fits_is_stored(task: ImageClassification, caplog: pytest.LogCaptureFixture) -> None:
    some = torch.arange(20)
    # While it is built there are also the outputs for one chunk: all 160 images, or as many as are held out.
    whole = knowledge_bytes(task) + knowledge_bytes(task, 160, views=1, validation=0)
    least = knowledge_bytes(task, 20) + knowledge_bytes(task, 40, views=1, validation=0) + 8 * 160
    everything = store_affordable(task, some, limit=whole)
    part = store_affordable(task, some, limit=whole - 1)
    assert everything is not None
    assert everything.covers(torch.arange(160))
    assert part is not None
    assert part.covers(some)
    assert not part.covers(torch.arange(21))
    assert store_affordable(task, some, limit=least) is not None
    assert caplog.text == ""
    assert store_affordable(task, some, limit=least - 1) is None
    assert "The teacher is asked in every step: 2 views of 20 of 160 images would take" in caplog.text


def test_a_training_beyond_the_stored_images_asks_online(make_task: Make, stored: TeacherKnowledge) -> None:
    task = make_task(augment="shift")
    part = store_knowledge(task, torch.arange(20))
    training = Online(task, Recipe.from_string("kl@4*1"), ProxyConfig(epochs=1), seed=0, knowledge=part)
    (rung,) = training.run()
    assert training.knowledge is None
    assert len(training.asked) == 5
    assert rung.metrics.cka >= 0


def test_part_of_the_knowledge_travels(task: ImageClassification, tmp_path: Path) -> None:
    part = store_knowledge(task, torch.tensor([7, 9]))
    part.save(tmp_path / "knowledge.pt")
    loaded = TeacherKnowledge.load(tmp_path / "knowledge.pt", task)
    assert loaded.covers(torch.tensor([9]))
    assert not loaded.covers(torch.tensor([8]))
