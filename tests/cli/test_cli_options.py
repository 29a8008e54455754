"""What the command line offers, and the one line that anything wrong gets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TINY, Output, Run, assert_refused, files
from PIL import Image

import optuna_kd
from optuna_kd.models import create_model
from optuna_kd.recipe import VERSION, Recipe


def test_version(run: Run) -> None:
    assert run("--version") == Output(0, optuna_kd.__version__ + "\n", "")


def test_no_command_shows_the_commands(run: Run) -> None:
    shown = run()
    assert all(name in shown.out + shown.err for name in ("search", "distill", "spaces", "export"))


COMMANDS = {
    "search": (
        "data teacher teacher-checkpoint student trials timeout workers storage study-name seed device space sampler "
        "reward temperatures proxy-epochs subset subset-by epochs seeds confirm max-train batch-size image-size runs "
        "proxy-batch dry-run engine ray-address cpus-per-worker gpus-per-worker"
    ),
    "distill": (
        "recipe out data teacher teacher-checkpoint student seed device epochs seeds max-train batch-size image-size"
    ),
    "export": "onnx",
}
WITHOUT_DEFAULT = {  # switches, what must be given, and limits that are off
    "dry-run", "recipe", "onnx", "teacher-checkpoint", "timeout", "max-train", "image-size",
}  # fmt: skip


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_has_help_and_a_default(run: Run, command: str) -> None:
    shown = run(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    text = re.sub(r"[│╭╰─╮╯]", " ", shown.out)
    listed = re.split(r"\n\s*(?:\*\s*)?--", text)[1:]
    described = {part.split()[0]: " ".join(part.split()[1:]) for part in listed}
    assert set(COMMANDS[command].split()) <= set(described)
    for name in COMMANDS[command].split():
        assert len(described[name].split()) >= 3, name
        if name not in WITHOUT_DEFAULT:
            assert "[default:" in described[name], name


def test_spaces_shows_what_can_be_searched(run: Run, here: Path) -> None:
    shown = run("spaces")
    assert (shown.code, shown.err) == (0, "")
    for text in ("auto-kd", "10,368 recipes", "feature-only", "324 recipes", "naive", "auto-kd-extended"):
        assert text in shown.out
    assert files(here) == []


# Bad input: one clear line, exit code 2, nothing written.


def image_folder(folder: Path, classes: int = 2, side: int = 16, count: int = 6) -> Path:
    generator = np.random.default_rng(0)
    for part in ("train", "val", "test"):
        for label in range(classes):
            place = folder / part / f"class{label}"
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ("--data digit", ["'digit'", "digits"]),
        ("--data imagefolder:missing", ["'missing'", "does not exist"]),
        ("--data imagefolder", ["needs a folder", "imagefolder:DIR"]),
        ("--teacher resnet21", ["'resnet21'", "6n+2"]),
        ("--teacher reznet20", ["'reznet20'", "resnet20"]),
        ("--student resnet8x0.12x", ["'resnet8x0.12x'"]),
        ("--student vgg9", ["'vgg9'", "vgg8"]),
        ("--space autokd", ["'autokd'", "auto-kd"]),
        ("--sampler mtcs", ["'mtcs'", "mcts"]),
        ("--reward boundet", ["'boundet'", "bounded"]),
        ("--device gpu", ["'gpu'"]),
        ("--device cuda:99", ["cuda:99"]),
        ("--timeout soon", ["20m", "'soon'"]),
        ("--timeout 0m", ["budget", "> 0"]),
        ("--subset 0", ["--subset", "0"]),
        ("--subset nan", ["--subset"]),
        ("--subset-by class", ["--subset-by", "'class'"]),
        ("--confirm 5by3", ["5x3", "'5by3'"]),
        ("--confirm 5x0", ["confirm"]),
        ("--temperatures 1,2,2", ["--temperatures", "1,2,2"]),
        ("--temperatures warm", ["--temperatures", "'warm'"]),
        ("--temperatures 1,2 --space naive", ["--temperatures", "naive"]),
        ("--trials 0", ["--trials", "1"]),
        ("--trials many", ["--trials", "integer"]),
        ("--workers 0", ["--workers", "1"]),
        ("--workers 2 --storage sqlite:///:memory:", ["2 workers", "URL"]),
        ("--engine rya", ["'rya'", "Did you mean 'ray'"]),
        ("--gpus-per-worker 0.25", ["--gpus-per-worker", "--engine ray", "--engine local"]),
        ("--ray-address auto", ["--ray-address", "--engine ray"]),
        ("--engine ray --gpus-per-worker 1.5", ["--gpus-per-worker", "1.5"]),
        ("--engine ray --cpus-per-worker 0", ["--cpus-per-worker", "> 0"]),
        ("--storage kd.db", ["'kd.db'", "sqlite:///"]),
        ("--storage sqlite:///missing/folder/kd.db", ["missing/folder"]),
        ("--storage nosuch://host/db", ["nosuch"]),
        ("--teacher-checkpoint missing.pt", ["missing.pt"]),
        ("--image-size 16", ["image"]),
        ("--max-train 5", ["max_train", "5"]),
        ("--trails 5", ["--trails", "--help"]),
    ],
)
def test_wrong_options_get_one_line(run: Run, here: Path, tmp_path: Path, arguments: str, texts: list[str]) -> None:
    assert_refused(run("search", *TINY, *arguments.split()), *texts)
    assert files(here) == []
    assert not list((tmp_path / "cache").rglob("*.pt"))  # no teacher was trained for it


def test_wrong_commands_get_one_line(run: Run, here: Path) -> None:
    assert_refused(run("serach"), "serach")
    assert_refused(run("distill"), "--recipe")
    assert_refused(run("distill", "--recipe", "missing.json"), "missing.json")
    assert_refused(run("distill", "--recipe", "uniads-resnet57"), "Did you mean 'uniads-resnet56'")
    assert_refused(run("export", "missing", "--onnx", "s.onnx"), "missing")
    assert files(here) == []


@pytest.mark.parametrize("command", ["search", "distill"])
def test_wrong_image_folders_get_one_line(run: Run, here: Path, tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.json"
    Recipe.from_string("kl@4*1").save(recipe)
    more = ["--recipe", recipe] if command == "distill" else []
    (tmp_path / "none").mkdir()
    assert_refused(run(command, *more, "--data", f"imagefolder:{tmp_path / 'none'}"), "train")
    one = image_folder(tmp_path / "one", classes=1)
    assert_refused(run(command, *more, "--data", f"imagefolder:{one}"), "at least two classes")
    (one / "train" / "empty").mkdir()
    assert_refused(run(command, *more, "--data", f"imagefolder:{one}"), "empty")
    assert_refused(run(command, *more, "--data", str(one)), f"imagefolder:{one}")
    assert files(here) == []


@pytest.mark.parametrize("role", ["--student", "--teacher"])
def test_images_smaller_than_a_network_get_one_line(run: Run, here: Path, tmp_path: Path, role: str) -> None:
    assert_refused(run("search", *TINY, role, "inception_v3"), "8")
    assert files(here) == []
    assert not list((tmp_path / "cache").rglob("*.pt"))


@pytest.mark.parametrize("command", ["search", "distill"])
def test_a_checkpoint_that_does_not_fit_names_its_keys(run: Run, here: Path, tmp_path: Path, command: str) -> None:
    recipe = tmp_path / "recipe.json"
    Recipe.from_string("kl@4*1").save(recipe)
    more = ["--recipe", recipe] if command == "distill" else []
    other = tmp_path / "other.pt"
    torch.save(create_model("resnet14", num_classes=10, in_channels=1, input_size=8).state_dict(), other)
    output = run(command, *more, "--teacher", "resnet8", "--teacher-checkpoint", other)
    assert_refused(output, "layer", "other.pt")
    other.write_bytes(b"no weights")
    assert_refused(run(command, *more, "--teacher", "resnet8", "--teacher-checkpoint", other), "other.pt")
    assert files(here) == []


def test_a_recipe_of_another_version_gets_one_line(run: Run, here: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    data = Recipe.from_string("kl@4*1").to_dict()
    recipe.write_text(json.dumps({**data, "version": VERSION + 1}))
    assert_refused(run("distill", "--recipe", recipe), "version")
    recipe.write_text("{")
    assert_refused(run("distill", "--recipe", recipe), "recipe.json")
    assert files(here) == []


def test_a_teacher_at_chance_stops_everything(run: Run, here: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "untrained.pt"
    torch.manual_seed(0)
    torch.save(create_model("resnet8", num_classes=10, in_channels=1, input_size=8).state_dict(), checkpoint)
    output = run("search", *TINY, "--teacher-checkpoint", checkpoint)
    assert output.code == 2
    assert "normalisation" in output.err.splitlines()[-1]
    assert files(here) == []
