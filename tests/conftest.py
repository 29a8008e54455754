"""What tests share: one torch thread, a small task on real digits, the command line, and empty databases."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command_line import Output, Run

if TYPE_CHECKING:
    from server import Server

Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Bit-identical results need a fixed number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> dict[str, Arrays]:
    """200 digits to train and 100 to test: images uint8 [N, 1, 8, 8], labels [N]."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.round(bundled.images * 255 / 16).astype(np.uint8)[:, None]
    labels = bundled.target.astype(np.int64)
    return {"train": (images[:200], labels[:200]), "test": (images[200:300], labels[200:300])}


def tiny_resnet(width: float) -> Any:
    """A ResNet-8 for digits; 0.25 has 4, 8 and 16 channels."""
    from optuna_kd.models import create_model

    return create_model(f"resnet8x{width:g}", num_classes=10, in_channels=1, input_size=8)


@pytest.fixture(scope="session")
def make_teacher() -> Callable[[int], Any]:
    """A teacher whose weights depend on a seed alone; nobody needs it trained here."""
    import torch

    def make(seed: int = 0) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return tiny_resnet(0.5)

    return make


@pytest.fixture(scope="session")
def make_task(digits: dict[str, Arrays], make_teacher: Callable[[int], Any], one_thread: None) -> Callable[..., Any]:
    """Give `ImageClassification` on the small digits; keywords replace its arguments."""
    from optuna_kd import ImageClassification

    def make(**changes: Any) -> Any:
        arguments: dict[str, Any] = {
            "teacher": changes.pop("teacher", None) or make_teacher(0),
            "student": lambda: tiny_resnet(0.25),
            "train": digits["train"],
            "test": digits["test"],
            "batch_size": 32,
            "views": 2,
            "device": "cpu",
        }
        return ImageClassification(**{**arguments, **changes})

    return make


@pytest.fixture(scope="session")
def task(make_task: Callable[..., Any]) -> Any:
    """The small task with all defaults; tests do not change it."""
    return make_task()


@pytest.fixture(scope="session")
def knowing_teacher(make_task: Callable[..., Any], make_teacher: Callable[[int], Any]) -> Any:
    """A teacher that knows its digits."""
    from optuna_kd.recipe import ProxyConfig, Recipe
    from optuna_kd.training.trainer import StudentTraining

    apprentice = make_task(student=lambda: make_teacher(0))
    training = StudentTraining(apprentice, Recipe(), ProxyConfig(epochs=12, rungs=(12,)), seed=0)
    for _ in training.run():
        pass
    training.observer.close()
    return training.student


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
    from optuna_kd import cli

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


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as a program hears it: a shell starts what runs in the background, tests perhaps, with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def quiet_optuna() -> Iterator[None]:
    """No line for every trial."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server that runs."""
    sys.path.insert(0, str(Path(__file__).parent))
    from server import Server

    running = Server()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture
def postgres(server: Server) -> str:
    """The URL of an empty PostgreSQL database."""
    return server.create_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kd.db'}"
    url: str = request.getfixturevalue("postgres")
    return url
