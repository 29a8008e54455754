"""The command line: in this process where possible, in one of its own where signals are sent."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from PIL import Image

import optuna_kd
from optuna_kd import cli, commands
from optuna_kd.models import create_model
from optuna_kd.recipe import VERSION, Recipe
from optuna_kd.storages import create_storage

Run = Callable[..., "Output"]

# A whole search, small enough for a test.
TINY: list[Any] = ["--teacher", "resnet8", "--trials", 2, "--workers", 1, "--proxy-epochs", 1, "--subset", 0.1]
TINY += ["--epochs", 1, "--seeds", 1, "--confirm", 0, "--max-train", 400]


@dataclasses.dataclass
class Output:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a cache beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> Iterator[Run]:
    """Run a command in this process, and undo what a program may do to its process."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli.console, "_width", 200)
    handler = signal.getsignal(signal.SIGTERM)
    handlers = list(logging.getLogger().handlers)

    def call(*arguments: object) -> Output:
        monkeypatch.setattr(sys, "argv", ["optuna-kd", *map(str, arguments)])
        capsys.readouterr()
        with warnings.catch_warnings(), pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return Output(int(exit_.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger().handlers[:] = handlers


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_version(run: Run) -> None:
    assert run("--version") == Output(0, optuna_kd.__version__ + "\n", "")


def test_no_command_shows_the_commands(run: Run) -> None:
    shown = run()
    assert all(name in shown.out + shown.err for name in ("search", "distill", "spaces", "export"))


COMMANDS = {
    "search": (
        "data teacher teacher-checkpoint student trials timeout workers storage study-name seed device space sampler "
        "reward temperatures proxy-epochs subset subset-by epochs seeds confirm max-train batch-size image-size runs "
        "dry-run"
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


def assert_refused(output: Output, *texts: str) -> None:
    assert output.code == 2
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("Error: ")
    for text in texts:
        assert text in line


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


# Whole searches, small ones.


@pytest.fixture
def quick_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "DIGITS", dataclasses.replace(commands.DIGITS, teacher_epochs=4))


@pytest.mark.usefixtures("quick_teacher")
def test_a_dry_run_writes_nothing(run: Run, here: Path, tmp_path: Path) -> None:
    output = run("search", *TINY, "--dry-run")
    assert (output.code, output.err) == (0, "")
    lines = {line.split()[0]: line for line in output.out.splitlines()}
    assert list(lines) == [
        "Data", "Layers", "Space", "Proxy", "Teacher", "Controls", "Trials", "Confirm", "Full", "Total", "Disk",
    ]  # fmt: skip
    assert "10 classes" in lines["Data"]
    assert "recipes" in lines["Space"]
    assert "trained first, 4 epochs" in lines["Teacher"]
    assert re.search(r"about .* with 1 workers", lines["Total"])
    assert "MB" in lines["Disk"]
    assert files(here) == []
    assert not (tmp_path / "cache" / "teachers").exists()


@pytest.mark.usefixtures("quick_teacher")
def test_search_then_distill_then_export(run: Run, here: Path) -> None:
    searched = run("search", *TINY)
    assert (searched.code, searched.err) == (0, "")
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("auto-kd-digits-resnet8x0.125-")
    assert {"student.pt", "recipe.json", "summary.json"} <= {file.name for file in folder.iterdir()}
    for text in ("Estimate", "Study", "Layers", "Teacher", "labels only", "plain KD", "tuned KD", "searched recipe"):
        assert text in searched.out
    assert f"Student    runs/{folder.name}/student.pt".replace("/", os.sep) in searched.out
    assert "Dashboard  optuna-dashboard sqlite:///optuna_kd.db" in searched.out

    again = run("search", *TINY)
    assert again.code == 0
    assert "Teacher resnet8 from" in again.out
    assert "Search: 2 of 2 are there already" in again.out

    distilled = run(
        "distill", "--recipe", folder / "recipe.json", "--teacher", "resnet8", "--epochs", 1, "--seeds", 2,
        "--max-train", 400,
    )  # fmt: skip
    assert (distilled.code, distilled.err) == (0, "")
    assert files(here / "runs" / "distill") == ["recipe.json", "student.pt", "summary.json"]
    assert "over 2 seeds" in distilled.out
    student = optuna_kd.load_student(here / "runs" / "distill")
    assert student(torch.zeros(3, 1, 8, 8)).shape == (3, 10)

    if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxscript"):
        exported = run("export", folder, "--onnx", here / "deep" / "student.onnx")
        assert exported.code == 0
        assert "images [N, C, H, W] in [0, 1] -> logits [N, K]" in exported.out
        assert (here / "deep" / "student.onnx").stat().st_size > 1000


def test_an_interrupt_is_said_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run_search", interrupt)
    output = run("search")
    assert (output.code, output.out) == (130, "")
    assert output.err == "Stopped. What is finished is kept; the same command goes on from there.\n"


# Killed in the middle, then run again.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A teacher that knows its digits."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = torch.tensor(bundled.images, dtype=torch.float32)[:, None] / 16
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model("resnet8", num_classes=10, in_channels=1, input_size=8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        mean, std = images.mean(), images.std()
        for step in range(60):
            part = slice(step * 64 % 1200, step * 64 % 1200 + 64)
            loss = torch.nn.functional.cross_entropy(
                model((images[part] - mean) / std), torch.tensor(bundled.target[part])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(model.state_dict(), path)
    return path


def children_of(pid: int) -> list[int]:
    """Processes that a process started, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
        except OSError:
            continue
    return found


def trials_of(database: Path) -> list[optuna.trial.FrozenTrial]:
    if not database.exists():
        return []
    try:
        return optuna.load_study(study_name="killed", storage=f"sqlite:///{database}").trials
    except Exception:  # not there yet, or being written
        return []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_search_goes_on_after_it_was_ended(
    how: signal.Signals, here: Path, tmp_path: Path, checkpoint: Path, run: Run
) -> None:
    database = tmp_path / "kd.db"
    command: list[Any] = [
        "search",
        "--teacher",
        "resnet8",
        "--teacher-checkpoint",
        checkpoint,
        "--study-name",
        "killed",
    ]
    command += ["--storage", f"sqlite:///{database}", "--proxy-epochs", 2, "--subset", 0.15, "--epochs", 1]
    command += ["--seeds", 1, "--confirm", 0, "--max-train", 400, "--trials", 300]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "optuna_kd.cli", *map(str, command), "--workers", "2"],
        cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 90
        while len([trial for trial in trials_of(database) if trial.state.is_finished()]) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "no trial was finished"
            time.sleep(0.2)
        children = children_of(process.pid)
        assert len(children) >= 2
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.kill()
        out, err = process.communicate(timeout=120)
        end = time.monotonic() + 5
        while alive(children) and time.monotonic() < end:
            time.sleep(0.1)
        assert alive(children) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err == "Stopped. What is finished is kept; the same command goes on from there.\n"
        assert optuna.trial.TrialState.RUNNING not in [trial.state for trial in trials_of(database)]
    assert "Traceback" not in out + err

    before = [trial for trial in trials_of(database) if trial.state.is_finished() and trial.values]
    total = len([trial for trial in trials_of(database) if trial.state.name in ("COMPLETE", "PRUNED")]) + 3
    command[-1] = total
    output = run(*command, "--workers", 1)
    assert (output.code, output.err) == (0, "")
    after = optuna.load_study(study_name="killed", storage=create_storage(f"sqlite:///{database}")).trials
    assert len([trial for trial in after if trial.state.name in ("COMPLETE", "PRUNED")]) == total
    assert [(after[trial.number].params, after[trial.number].value) for trial in before] == [
        (trial.params, trial.value) for trial in before
    ]
    assert (here / "runs" / "killed" / "student.pt").exists()
