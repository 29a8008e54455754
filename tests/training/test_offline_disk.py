"""Knowledge on disk: half precision, checked when it is opened, rebuilt when it is damaged, done without if need be."""

from __future__ import annotations

import errno
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from strided_teacher import StridedTeacher, strided_task
from torch import Tensor, nn

from optuna_kd.training import ImageClassification, TeacherKnowledge, store_knowledge
from optuna_kd.training import knowledge_cache as cache_module
from optuna_kd.training import knowledge_file as file_module
from optuna_kd.training import offline as offline_module
from optuna_kd.training.knowledge_file import KnowledgeWriter, read_knowledge_file
from optuna_kd.training.offline import KnowledgeChoices, plan_knowledge, prepare_knowledge

CPU = torch.device("cpu")
ALL = torch.arange(32)


@pytest.fixture(scope="module")
def task(one_thread: None) -> ImageClassification:
    return strided_task()


@pytest.fixture(scope="module")
def exact(task: ImageClassification) -> TeacherKnowledge:
    return store_knowledge(task)


class Disk:
    """Prepares knowledge in one folder, and keeps what is said."""

    def __init__(self, folder: Path, task: ImageClassification) -> None:
        self.folder, self.task = folder, task
        self.said: list[str] = []

    def __call__(self, task: ImageClassification | None = None, **options: Any) -> TeacherKnowledge | None:
        self.said.clear()
        choices = KnowledgeChoices(**{"directory": self.folder, **options})
        return prepare_knowledge(task or self.task, choices, say=self.said.append)

    def plan(self, task: ImageClassification | None = None, images: Tensor | None = None, **options: Any) -> Any:
        return plan_knowledge(task or self.task, KnowledgeChoices(directory=self.folder, **options), images)

    @property
    def file(self) -> Path:
        (file,) = self.folder.iterdir()
        return file


@pytest.fixture
def disk(tmp_path: Path, task: ImageClassification) -> Disk:
    return Disk(tmp_path / "knowledge", task)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time the teacher is asked."""
    asked: list[int] = []
    ask = offline_module.teacher_answers

    def counted(*arguments: Any) -> Any:
        asked.append(1)
        return ask(*arguments)

    monkeypatch.setattr(offline_module, "teacher_answers", counted)
    return asked


def close_to(given: TeacherKnowledge | None, exact: TeacherKnowledge, rtol: float = 2.0**-10) -> TeacherKnowledge:
    """Check all that is handed out: maps rounded, logits exact."""
    assert given is not None
    some = torch.tensor([31, 0, 17])
    pairs = [(given.batch(view, some, CPU), exact.batch(view, some, CPU)) for view in range(exact.views or 0)]
    for ours, true in [*pairs, (given.validation(some[1:] // 2, CPU), exact.validation(some[1:] // 2, CPU))]:
        torch.testing.assert_close(ours.features[0], true.features[0], rtol=rtol, atol=1e-7)
        assert ours.features[0].dtype == torch.float32
        assert torch.equal(ours.logits, true.logits)
    return given


def test_replay_on_disk_is_exact_up_to_half_precision(disk: Disk, exact: TeacherKnowledge, asked: list[int]) -> None:
    known = close_to(disk(), exact)
    assert known.features.dtype == torch.float16
    error = (known.features.double() - exact.features.double()).norm() / exact.features.double().norm()
    assert 0 < known.figures["rounding"] == pytest.approx(float(error), rel=0.1)
    assert disk.said[1] == f"The maps are rounded to float16: {100 * known.figures['rounding']:.3f} % off"
    plan = disk.plan()
    assert plan.size <= disk.file.stat().st_size <= plan.peak
    close_to(disk(), exact)
    assert len(asked) == 1
    assert disk.said == [f"{str(plan).rpartition(';')[0]}; there already"]


def test_what_is_there_is_read_also_where_storing_would_not_pay(disk: Disk, asked: list[int]) -> None:
    disk()
    known = disk(epochs=1)
    assert known is not None
    assert known.file == disk.file
    assert len(asked) == 1


@pytest.mark.parametrize("change", ["teacher", "layer", "data", "augmentation", "views", "images"])
def test_each_knowledge_has_its_own_file(disk: Disk, change: str) -> None:
    images = torch.randint(0, 256, (48, 1, 16, 16), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    other = {
        "teacher": lambda: strided_task(StridedTeacher(scale=2.0)),
        "layer": lambda: strided_task(nn.Sequential(nn.Identity(), StridedTeacher()), teacher_layer="1.conv"),
        "data": lambda: strided_task(train=(images, torch.arange(48) % 4)),
        "augmentation": lambda: strided_task(augment="shift"),
        "views": lambda: strided_task(views=2),
        "images": lambda: disk.task,
    }[change]()
    fewer: dict[str, Any] = {"images": ALL[:8], "limit": 59_000} if change == "images" else {}
    plans = [disk.plan(), disk.plan(other, **fewer)]
    assert None not in (plans[0].file, plans[1].file)
    assert plans[0].file != plans[1].file


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-100], "bytes instead of"),
        (lambda data: data + b"more", "bytes instead of"),
        (lambda data: b"", "does not begin like one"),
        (lambda data: data[:5], "does not begin like one"),
        (lambda data: data[:300], "header is damaged"),
        (lambda data: flipped(data, 0), "does not begin like one"),
        (lambda data: flipped(data, 9), "header is damaged"),
        (lambda data: flipped(data, 40), "header is damaged"),
        (lambda data: flipped(data, 6000), "checksum differs"),
        (lambda data: flipped(data, -1), "checksum differs"),
        (lambda data: b"\x80\x04." * 9000, "does not begin like one"),
    ],
)
def test_a_damaged_file_is_rebuilt(disk: Disk, exact: TeacherKnowledge, damage: Any, reason: str) -> None:
    disk()
    whole = disk.file.read_bytes()
    disk.file.write_bytes(damage(whole))
    with pytest.raises(ValueError, match=f"holds no teacher knowledge that `save` wrote: .*{reason}"):
        TeacherKnowledge.load(disk.file, disk.task)
    close_to(disk(), exact)
    assert disk.said[1].startswith(f"{disk.file} cannot be used (")
    assert reason in disk.said[1]
    assert disk.file.read_bytes() == whole


def flipped(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def test_the_file_of_something_else_under_this_name_is_rebuilt(disk: Disk, exact: TeacherKnowledge) -> None:
    disk(strided_task(views=2))
    disk.file.rename(disk.plan().file)
    close_to(disk(), exact)
    assert "cannot be used (it belongs to something else)" in disk.said[1]


def test_a_folder_that_cannot_be_made(tmp_path: Path, task: ImageClassification, exact: TeacherKnowledge) -> None:
    (tmp_path / "file").write_text("not a folder")
    disk = Disk(tmp_path / "file" / "knowledge", task)
    known = close_to(disk(), exact, rtol=0)
    assert known.file is None
    assert disk.said == [
        f"replay: 3 views of 32 images, 43.8 kB in half precision in {disk.plan().file}; pays back after 3 epochs",
        f"The teacher's outputs cannot be kept in {disk.folder} (Not a directory): going on without",
        "replay: 3 views of 32 images, 85.8 kB in memory; pays back after 3 epochs",
    ]


@pytest.mark.parametrize("step", ["lock", "write", "late write", "rename"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_folder_that_is_full_or_read_only(
    disk: Disk, exact: TeacherKnowledge, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Simulated, because root may write everywhere."""
    error = OSError(number, errno.errorcode[number])

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise error

    if step == "lock":
        monkeypatch.setattr(cache_module.os, "open", refuse)
    elif step == "write":
        monkeypatch.setattr(file_module, "open", refuse, raising=False)
    elif step == "late write":
        monkeypatch.setattr(file_module.os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    close_to(disk(), exact, rtol=0)
    assert [line for line in disk.said if "cannot be kept" in line] == [
        f"The teacher's outputs cannot be kept in {disk.folder} ({error.strerror}): going on without"
    ]
    assert list(disk.folder.iterdir()) == []
    known = disk(limit=100_000)  # enough for half precision only, and there is no room for that
    assert known is not None
    assert not known.is_stored
    assert disk.said[-1].startswith(
        "replay: the teacher is asked in every step, about the same 3 views of each image: "
    )


def test_a_full_disk_is_seen_before_the_teacher_is_asked(
    disk: Disk, exact: TeacherKnowledge, monkeypatch: pytest.MonkeyPatch, asked: list[int]
) -> None:
    monkeypatch.setattr(offline_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    close_to(disk(), exact, rtol=0)
    assert "(59.8 kB are needed, 1.0 kB are free): going on without" in disk.said[1]
    assert len(asked) == 1


@pytest.mark.parametrize(("scale", "wide"), [(1e6, True), (1e30, True), (1e-9, True), (1e4, False), (1e-2, False)])
def test_values_beyond_half_precision(disk: Disk, one_thread: None, scale: float, wide: bool) -> None:
    """Float16 ends at 65,504, and loses digits below 6e-5."""
    task = strided_task(StridedTeacher(scale=scale))
    exact = store_knowledge(task)
    known = disk(task)
    assert known is not None
    assert bool(torch.isfinite(known.features).all())
    assert known.features.dtype == (torch.bfloat16 if wide else torch.float16)
    error = (known.features.double() - exact.features.double()).norm() / exact.features.double().norm()
    assert error < (2.0**-8 if wide else 2.0**-11)
    assert ("bfloat16, because float16 does not hold them" in disk.said[1]) == wide
    assert known.figures["rounding"] == pytest.approx(float(error), rel=0.1)


def test_what_was_written_before_the_first_overflow_is_converted(tmp_path: Path) -> None:
    values = torch.randn(40, 3, 2, generator=torch.Generator().manual_seed(0))
    values[33, 1, 1] = 1e5
    writer = KnowledgeWriter(tmp_path / "file", {"features": (40, 3, 2), "logits": (40, 3)}, ("features",), {})
    for row in range(0, 40, 10):
        writer.write("features", row, values[row : row + 10])
        writer.write("logits", row, values[row : row + 10, :, 0])
    assert writer.dtypes == {"features": "bfloat16", "logits": "float32"}
    writer.close()
    description, arrays = read_knowledge_file(tmp_path / "file")
    torch.testing.assert_close(arrays["features"].float(), values, rtol=2.0**-8 + 2.0**-11, atol=1e-7)
    assert torch.equal(arrays["logits"], values[:, :, 0])
    error = (arrays["features"].double() - values.double()).norm() / values.double().norm()
    assert description["rounding"] == pytest.approx(float(error), rel=1e-2)


def test_a_file_that_is_not_kept(disk: Disk, exact: TeacherKnowledge) -> None:
    known = close_to(disk(keep=False), exact)
    assert disk.file == known.file
    known.close()
    assert list(disk.folder.iterdir()) == []
    close_to(known, exact)  # mapped still
    known.close()
    known = disk(keep=False)
    assert disk.file.exists()
    del known
    gc.collect()
    assert list(disk.folder.iterdir()) == []


def test_a_file_that_is_kept_is_not_deleted_by_others(disk: Disk) -> None:
    kept = disk()
    borrowed = disk(keep=False)
    assert kept is not None
    assert borrowed is not None
    borrowed.close()
    kept.close()
    assert disk.file.exists()


def test_a_mapped_file_travels_as_it_is(disk: Disk, tmp_path: Path) -> None:
    known = disk(keep=False)
    assert known is not None
    known.save(tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == disk.file.read_bytes()
    copy = TeacherKnowledge.load(tmp_path / "copy.bin", disk.task)
    copy.close()
    assert (tmp_path / "copy.bin").exists()


def test_a_teacher_that_is_not_finite_leaves_nothing(disk: Disk, one_thread: None) -> None:
    with pytest.raises(ValueError, match="The maps of the teacher are not finite"):
        disk(strided_task(StridedTeacher(scale=torch.inf)))
    assert list(disk.folder.iterdir()) == []


def test_knowledge_that_cannot_be_saved_says_so(exact: TeacherKnowledge, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        exact.save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
