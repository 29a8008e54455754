"""What a user takes home: loss terms for a loop of their own, a student that predicts, an ONNX file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optuna_kd import build_distiller, load_student
from optuna_kd.distillers import InvalidChainError
from optuna_kd.recipe import DistillerConfig, OpConfig, Recipe, StudentConfig, TermConfig
from optuna_kd.student import export_onnx
from optuna_kd.training import ImageClassification, distill
from optuna_kd.training.full import save_student, student_card

KD = Recipe.from_string("attention>channel|gl2*5 + kl@4*1")


@pytest.fixture(scope="module")
def trained(task: ImageClassification) -> nn.Module:
    return distill(task, KD, epochs=1, seeds=1).student


def write(folder: Path, task: ImageClassification, student: nn.Module, name: str | None = "resnet8x0.25") -> Path:
    """Write the files of a finished search."""
    folder.mkdir(exist_ok=True)
    save_student(student.state_dict(), folder / "student.pt")
    Recipe(KD.distiller, StudentConfig(name) if name else None).save(folder / "recipe.json")
    card = student_card(task)
    card["student"]["class_names"] = [f"digit {number}" for number in range(10)]
    (folder / "summary.json").write_text(json.dumps(card))
    return folder


def test_a_loop_of_ones_own_learns(task: ImageClassification) -> None:
    distiller = build_distiller(KD, task, seed=1)
    student = task.make_student(seed=0)
    observe = task.observe(student)
    optimizer = torch.optim.SGD([*student.parameters(), *distiller.parameters()], lr=0.05, momentum=0.9)
    images, labels = task.prepare(task.train_set.images[:64]), task.train_set.labels[:64]
    taught = task.teacher_knowledge(images)
    history = []
    for _ in range(12):
        terms = distiller(observe(images), taught, labels)
        assert set(terms) == {"cross_entropy", "features", "logits"}
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: float(value.detach()) for name, value in terms.items()})
    assert sum(history[-1].values()) < 0.8 * sum(history[0].values())
    assert history[-1]["features"] < history[0]["features"]
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]


def test_its_adapters_and_masks_depend_on_the_seed_alone(task: ImageClassification) -> None:
    recipe = Recipe.from_string("mask|l2*5")

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed + 100)
        return torch.cat(
            [parameter.detach().flatten() for parameter in build_distiller(recipe, task, seed=seed).parameters()]
        )

    assert len(weights(0)) > 0
    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_a_recipe_that_does_not_fit_is_refused(task: ImageClassification) -> None:
    chain = (OpConfig("sample"), OpConfig("multiscale"))
    with pytest.raises(InvalidChainError):
        build_distiller(Recipe(DistillerConfig((TermConfig("features", OpConfig("l2"), 1, chain),))), task)


def test_a_saved_student_predicts_on_raw_images(task: ImageClassification, trained: nn.Module, tmp_path: Path) -> None:
    student = load_student(write(tmp_path / "run", task, trained))
    raw = task.val_set.images
    assert raw.dtype == torch.uint8
    with torch.no_grad():
        expected = trained.eval()(task.prepare(raw))
        torch.testing.assert_close(student(raw), expected)
        torch.testing.assert_close(student(raw.float() / 255), expected)
    assert not student.training
    assert student.class_names[3] == "digit 3"
    assert load_student(str(tmp_path / "run"))(raw[:1]).shape == (1, 10)


def test_folders_that_hold_no_student_are_refused(
    task: ImageClassification, trained: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds no recipe.json"):
        load_student(tmp_path)
    folder = write(tmp_path / "own", task, trained, name=None)
    with pytest.raises(ValueError, match=r"is a class of your own. Load it with model.load_state_dict"):
        load_student(folder)
    folder = write(tmp_path / "other", task, trained, name="resnet8x0.5")
    with pytest.raises(ValueError, match=r"The weights in .* are not those of this ResNet"):
        load_student(folder)
    folder = write(tmp_path / "unknown", task, trained, name="resnet8000001")
    with pytest.raises(ValueError, match="There is no 'resnet8000001'"):
        load_student(folder)
    folder = write(tmp_path / "broken", task, trained)
    (folder / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"Cannot read .*summary\.json"):
        load_student(folder)
    (folder / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"Cannot read .*summary\.json"):
        load_student(folder)
    folder = write(tmp_path / "empty", task, trained)
    (folder / "student.pt").unlink()
    with pytest.raises(ValueError, match="no file of weights"):
        load_student(folder)


def test_a_found_recipe_distilled_again_loads_by_itself(task: ImageClassification, tmp_path: Path) -> None:
    result = distill(task, Recipe(KD.distiller, StudentConfig("resnet8x0.25")), epochs=1, seeds=1)
    student = load_student(result.save(tmp_path))
    with torch.no_grad():
        expected = result.student.eval()(task.prepare(task.val_set.images))
        torch.testing.assert_close(student(task.val_set.images), expected)


def test_what_distill_saves_says_how_to_load_it(task: ImageClassification, tmp_path: Path) -> None:
    folder = distill(task, Recipe(), epochs=1, seeds=1).save(tmp_path)
    with pytest.raises(ValueError, match=r"load_state_dict\(torch\.load\('student\.pt', weights_only=True\)\)"):
        load_student(folder)


@pytest.fixture(scope="module")
def onnx_file(task: ImageClassification, trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="ONNX is not installed")
    pytest.importorskip("onnxscript", reason="the exporter of torch needs onnxscript")
    folder = write(tmp_path_factory.mktemp("onnx"), task, trained)
    return export_onnx(folder, folder / "new folder" / "student.onnx")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_says_the_same_at_every_batch_size(
    onnx_file: Path, task: ImageClassification, trained: nn.Module, count: int
) -> None:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(onnx_file))
    assert (session.input_names, session.output_names) == (["images"], ["logits"])
    raw = task.val_set.images[:count]
    (logits,) = session.run(None, {"images": (raw / 255).numpy().astype(np.float32)})
    with torch.no_grad():
        expected = trained.eval()(task.prepare(raw)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_onnx_is_one_valid_file(onnx_file: Path) -> None:
    import onnx

    onnx.checker.check_model(str(onnx_file), full_check=True)
    assert [path.name for path in onnx_file.parent.iterdir()] == ["student.onnx"]


def test_onnx_without_its_packages_says_what_to_install(
    task: ImageClassification, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", missing)
    folder = write(tmp_path / "run", task, trained)
    with pytest.raises(ValueError, match=r'onnxscript.*pip install "optuna-kd\[onnx\]"'):
        export_onnx(folder, tmp_path / "student.onnx")


def test_labels_alone_have_no_terms(task: ImageClassification, make_task: Callable[..., Any]) -> None:
    distiller = build_distiller(Recipe(), task)
    assert list(distiller.parameters()) == []
    known = task.teacher_knowledge(task.prepare(task.val_set.images[:4]))
    assert set(distiller(known, known, task.val_set.labels[:4])) == {"cross_entropy"}
