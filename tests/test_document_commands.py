"""README and docs: every line of every block of commands runs, as it stands there or with what a reader replaces too.

A search is made small by further options, a server gets a free port; both tables say why. `optuna-kd` runs in this
process where it ends by itself.
"""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import optuna
import pytest
from command_line import Run
from documents import BEHIND, ROOT, Block, all_blocks

from optuna_kd.storages import create_storage

STUDY, URL = "auto-kd-digits-...", "sqlite:///optuna_kd.db"  # of finished_search.py
POSTGRES = "postgresql+psycopg://SERVER"  # replaced by the URL of the server of the tests, once it is needed

# What is replaced, as it would be by a reader, and why.
REPLACED = [
    (r"<study>|\bSTUDY\b|\bNAME\b", STUDY, "words that stand for the name of a study; a shell takes <> for files"),
    (r"(?<=HOST:6379 --storage )URL\b", POSTGRES, "Ray of several machines needs a server, as the page on it has one"),
    (r" URL\b", f" {URL}", "a word that stands for a database"),
    (r"\bFOLDER\b", "runs", "a word that stands for a folder of results"),
    (r"postgresql\+psycopg://\S+", POSTGRES, "a server that is there"),
    (r" \.\.\.", "", "stands for further options; there is the table below"),
    (r" /share/", " share/", "a share that is not mounted"),
    (r"\b(HOST|HEAD):6379", "local", "no cluster: a Ray of this machine alone, which the search starts"),
    (r"--workers 16 --gpus-per-worker 0.25", "--workers 1 --gpus-per-worker 0", "no GPU, and few cores"),
    (r"--nproc-per-node 4", "--nproc-per-node 2", "few cores"),
    (r"--host 0\.0\.0\.0", "--host 127.0.0.1", "a test opens nothing to the network"),
    (r"--trials 200", "--trials 2", "minutes"),
]
# What is added where the line does not say it, so that it takes seconds.
SMALL = {
    "search": {
        "--teacher": "resnet8", "--trials": "2", "--workers": "1", "--proxy-epochs": "1", "--epochs": "2",
        "--seeds": "1", "--confirm": "0", "--max-train": "60", "--subset": "32", "--batch-size": "8",
    },
    "distill": {"--teacher": "resnet8", "--epochs": "1", "--seeds": "1", "--max-train": "100"},
}  # fmt: skip
SERVERS = ("dashboard", "serve")  # they do not end by themselves
# What a command says when it did what it is for.
SAYS = {
    "search": r"^Student +runs/.*/student\.pt$",
    "search --dry-run": r"^Total +about ",
    "distill": r"^Student +runs/distill/student\.pt$",
    "worker": r"the study has 3 trials",
    "export": r"^Wrote student\.onnx: images",
    "report": r"^Wrote .*\.html$",
    "spaces": r"^recipes by name",
    "zoo": r"\S",
    "zoo --json": re.escape(f'"study": "{STUDY}"'),
}


def lines_of(block: Block) -> list[str]:
    """Give the commands of a block, one a line, without comments."""
    lines = [re.sub(r"(^|\s+)#.*", "", line) for line in block.code.replace("\\\n", " ").splitlines()]
    return [" ".join(line.split()) for line in lines if line]


def as_a_reader(line: str) -> str:
    """Replace what a reader replaces."""
    for pattern, value, _ in REPLACED:
        line = re.sub(pattern, lambda _, value=value: value, line)  # type: ignore[misc]
    return line


def made_small(words: list[str]) -> list[str]:
    """Add options to the words of a command, from the name of the command on."""
    added = SMALL.get(words[0], {}).items()
    return words + [word for name, value in added if name not in words for word in (name, value)]


def is_repeated(line: str, block: Block) -> bool:
    """Say whether a later block runs the same, of what takes long and needs nothing of the lines before it."""
    later = (other for following in BLOCKS[BLOCKS.index(block) + 1 :] for other in lines_of(following))
    return line.startswith(ALONE) and as_a_reader(line) in map(as_a_reader, later)


ALONE = ("torchrun ", "optuna-kd search --data ", "optuna-kd search --engine ray ")
BLOCKS = [block for block in all_blocks() if block.kind == "sh"]


@pytest.mark.parametrize("pattern", [pattern for pattern, _, _ in REPLACED])
def test_what_is_replaced_is_there(pattern: str) -> None:
    assert any(re.search(pattern, line) for block in BLOCKS for line in lines_of(block))


def test_what_a_block_is_made_of() -> None:
    block = Block(ROOT / "a.md", 1, "sh", "# title\na --b \\\n    c   # d\n\ne <study> ... URL\n")
    assert lines_of(block) == ["a --b c", "e <study> ... URL"]
    assert as_a_reader(lines_of(block)[1]) == f"e {STUDY} {URL}"
    words = made_small(["distill", "--epochs", "7"])
    assert words[:3] == ["distill", "--epochs", "7"]
    assert words.count("--epochs") == 1
    assert "--seeds" in words


class Terminal:
    """Runs the commands of a block in a folder."""

    def __init__(self, run: Run, here: Path, request: pytest.FixtureRequest) -> None:
        self.run, self.here, self.request = run, here, request

    def enter(self, line: str) -> None:
        """Run a line, and see that it did what it is for."""
        words = shlex.split(as_a_reader(line))
        url = self.request.getfixturevalue("postgres") if POSTGRES in words else ""
        if url:
            optuna.create_study(storage=create_storage(url), study_name="somebody's", load_if_exists=True)
        program, *words = [url if word == POSTGRES else word for word in words]
        assert program in PROGRAMS, f"no test knows how to run {program}"
        PROGRAMS[program](self, words)

    def ours(self, words: list[str]) -> None:
        """`optuna-kd`, in this process unless it is a server, or starts a Ray."""
        if words[0] in SERVERS:
            return self.server(words)
        command = made_small(words)
        if "ray" in words:
            pytest.importorskip("ray")
            said = self.process(sys.executable, "-m", "optuna_kd.cli", *command)
        else:
            output = self.run(*command)
            assert output.code == 0, output.err
            said = output.out
        special = f"{words[0]} {words[-1]}"
        expected = SAYS[special if special in SAYS else words[0]]
        assert re.search(expected, said, re.MULTILINE), said

    def torchrun(self, words: list[str]) -> None:
        """One of this machine alone: its port is free."""
        first = words.index("distill")
        command = words[:first] + made_small(words[first:])
        said = self.process(sys.executable, "-m", "torch.distributed.run", *command, PET_STANDALONE="1")
        assert re.search(SAYS["distill"], said, re.MULTILINE), said

    def make(self, words: list[str]) -> None:
        """In a clone, with the packages that are here instead of those that would be fetched."""
        packages = os.pathsep.join([str(BEHIND / "more_options"), sysconfig.get_path("purelib")])
        options = " ".join(made_small(["search"])[1:])
        said = self.process("make", *words, of=self.clone(), PYTHONPATH=packages, MORE_OPTIONS=options)
        assert re.search({"demo": SAYS["search"], "test": r"^1 passed"}[words[0]], said, re.MULTILINE), said

    def pip(self, words: list[str]) -> None:
        """In a clone, into a folder beside it."""
        self.process(sys.executable, "-m", "pip", *words, of=self.clone(), PIP_PREFIX=str(self.here / "prefix"))
        assert list((self.here / "prefix").glob("*/optuna-kd*"))  # bin or Scripts

    def server(self, words: list[str]) -> None:
        """Start a server, ask it something and stop it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "optuna_kd.cli", *words]
        if "--port" not in words:
            command += ["--port", str(port)]  # the usual one may be taken
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                said: list[str] = []
                for line in process.stdout:
                    said.append(line)
                    if line.startswith(("Dashboard", "Serving")):
                        break
                assert process.poll() is None, said
                if words[0] == "dashboard":
                    with urllib.request.urlopen(said[-1].split()[1] + "/api/studies") as answer:
                        assert answer.status == 200
                else:
                    assert STUDY in optuna.get_all_study_names(create_storage(f"grpc://127.0.0.1:{port}"))
            finally:
                process.send_signal(signal.SIGTERM)

    def process(self, *command: str, of: Path | None = None, **variables: str) -> str:
        """Run a process to its end; give what it printed."""
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
        done = subprocess.run(command, cwd=of, env=surroundings, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def clone(self) -> Path:
        """Give what this repository installs, with one test: nothing is built beside what is under test.

        From then on pip installs this package alone, of what is here, and leaves the environment of the tests as it is.
        """
        pytest.importorskip("setuptools", minversion="77", reason="without it nothing is built offline")
        pytest.importorskip("pip", reason="this environment has no pip")
        for name, value in PIP.items():
            self.request.getfixturevalue("monkeypatch").setenv(f"PIP_{name}", value)
        folder = self.here / "clone"
        if not folder.exists():
            shutil.copytree(ROOT / "optuna_kd", folder / "optuna_kd", ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, folder / name)
            (folder / "tests").mkdir()
            (folder / "tests" / "test_one.py").write_text("def test_one() -> None: ...\n")
        return folder


PROGRAMS = {"optuna-kd": Terminal.ours, "torchrun": Terminal.torchrun, "make": Terminal.make, "pip": Terminal.pip}
# A switch that is turned off, because it says NO itself, is what pip wants here.
PIP = {"NO_DEPS": "1", "NO_INDEX": "1", "NO_BUILD_ISOLATION": "0", "IGNORE_INSTALLED": "1"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Path, ...], Path]:
    """Folders in which snippets have run, by these snippets: several blocks begin with the same."""
    return {}


@pytest.mark.usefixtures("quick_teachers", "quiet_optuna")
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_commands_run(
    block: Block,
    run: Run,
    here: Path,
    prepared: dict[tuple[Path, ...], Path],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    for count, snippet in enumerate(block.after, start=1):
        begun = block.after[:count]
        if begun in prepared:
            shutil.copytree(prepared[begun], here, dirs_exist_ok=True)
        else:
            runpy.run_path(str(snippet))
            prepared[begun] = tmp_path_factory.mktemp("prepared") / "here"
            shutil.copytree(here, prepared[begun])
    terminal = Terminal(run, here, request)
    for line in lines_of(block):
        if not is_repeated(line, block):
            terminal.enter(line)


@pytest.fixture
def quick_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train teachers of photographs for four epochs only."""
    from optuna_kd import task_options

    monkeypatch.setattr(task_options, "NATURAL", dataclasses.replace(task_options.NATURAL, teacher_epochs=4))
