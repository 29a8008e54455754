"""Knowledge that could not be stored: the same views, and a teacher that is asked about them in every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from strided_teacher import strided_task
from torch import Tensor

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, StudentTraining, TeacherKnowledge, store_knowledge
from optuna_kd.training import offline as offline_module
from optuna_kd.training.offline import AlignedKnowledge, KnowledgeChoices, prepare_knowledge, view_images

CPU = torch.device("cpu")
ALL = torch.arange(32)
SOME = torch.tensor([31, 0, 17])


@pytest.fixture(scope="module")
def task(one_thread: None) -> ImageClassification:
    return strided_task()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that cannot be made."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "knowledge"


def unstored(
    task: ImageClassification, folder: Path, mode: str, images: Tensor | None = None, limit: int = 62_000
) -> TeacherKnowledge:
    """Prepare knowledge that fits the limit in half precision only, for which there is no room."""
    choices = KnowledgeChoices(mode=mode, directory=folder, limit=limit)
    known = prepare_knowledge(task, choices, images, say=lambda line: None)
    assert known is not None
    assert not known.is_stored
    return known


def test_each_failure_is_said_once(task: ImageClassification, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 85804 bytes")

    monkeypatch.setattr(offline_module, "_answers", refuse)
    said: list[str] = []
    known = prepare_knowledge(task, KnowledgeChoices(directory=folder), say=said.append)
    assert known is not None
    assert not known.is_stored
    assert said[1:] == [
        f"The teacher's outputs cannot be kept in {folder} (Not a directory): going on without",
        "replay: 3 views of 32 images, 85.8 kB in memory; pays back after 3 epochs",
        "The teacher's outputs cannot be kept in memory (out of memory while asking the teacher: DefaultCPUAllocator: "
        "can't allocate memory: you tried to allocate 85804 bytes): going on without",
        "replay: the teacher is asked in every step, about the same 3 views of each image: there is no room",
    ]


def test_it_answers_as_the_teacher(task: ImageClassification, folder: Path) -> None:
    known, stored = unstored(task, folder, "replay"), store_knowledge(task)
    assert known.views == stored.views == 3
    for view in range(3):
        given, true = known.batch(view, SOME, CPU), task.teacher_knowledge(view_images(task, view, SOME))
        assert torch.equal(given.features[0], true.features[0])
        assert torch.equal(given.logits, true.logits)
    given, true = known.validation(SOME // 2, CPU), stored.validation(SOME // 2, CPU)
    torch.testing.assert_close(given.features[0], true.features[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.logits, true.logits, rtol=1e-4, atol=1e-5)


def test_moved_maps_stay_moved_maps(task: ImageClassification, folder: Path) -> None:
    known = unstored(task, folder, "aligned")
    stored = prepare_knowledge(task, KnowledgeChoices(mode="aligned"), say=lambda line: None)
    assert isinstance(known, AlignedKnowledge)
    assert stored is not None
    assert not stored.unstored().is_stored
    for other in (known, stored.unstored()):
        given, expected = other.batch(7, SOME, CPU), stored.batch(7, SOME, CPU)
        torch.testing.assert_close(given.features[0], expected.features[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(given.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_a_training_sees_the_same_pixels(task: ImageClassification, folder: Path) -> None:
    """On labels alone it is the same training, bit for bit; with a teacher, up to rounding."""

    def trained(text: str, knowledge: TeacherKnowledge | None) -> list[Tensor]:
        training = StudentTraining(task, Recipe.from_string(text), ProxyConfig(epochs=5), seed=0, knowledge=knowledge)
        list(training.run())
        return [parameter.detach() for parameter in training.student.parameters()]

    known, stored = unstored(task, folder, "replay"), store_knowledge(task)
    pairs = zip(trained("labels", known), trained("labels", stored), trained("labels", None), strict=True)
    same, new = zip(*((torch.equal(a, b), torch.equal(a, c)) for a, b, c in pairs), strict=True)
    assert all(same)
    assert not all(new)  # new views from the fourth epoch on
    for ours, theirs in zip(trained("kl@4*1", known), trained("kl@4*1", stored), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_it_is_about_the_planned_images_and_travels(task: ImageClassification, folder: Path, tmp_path: Path) -> None:
    known = unstored(task, folder, "replay", ALL[:8], limit=36_000)
    known.save(tmp_path / "none.bin")
    loaded = TeacherKnowledge.load(tmp_path / "none.bin", task)
    for given in (known, loaded):
        assert not given.is_stored
        assert given.views == 3
        assert given.covers(ALL[:8])
        assert not given.covers(ALL[:9])
        assert torch.equal(given.batch(2, ALL[:5], CPU).logits, known.batch(2, ALL[:5], CPU).logits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_device_that_is_full_is_replaced_by_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    task = strided_task(device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 110_000, 10**9))
    said: list[str] = []
    known = prepare_knowledge(task, say=said.append)
    assert known is not None
    assert known.features.device == CPU
    assert said[1] == "The teacher's outputs cannot be kept on the device (110.2 kB are needed, 107.4 kB are free): " \
        "going on without"  # fmt: skip
    assert "in memory" in said[2]
