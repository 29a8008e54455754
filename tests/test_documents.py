"""README and docs: their Python code runs as it stands there, their commands and files exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!--\s*skip\s*-->\n)?```(?P<kind>python|sh)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#\s]+)(?:#[^)]*)?\)")
WRITTEN = ("formulas.md", "command_line.md")  # while the documentation is built


def blocks(text: str, kind: str) -> list[tuple[int, str]]:
    """Give (line number, code) of each block of a kind that has no `<!-- skip -->` on the line before it."""
    return [
        (text.count("\n", 0, match.start("code")) + 1, match["code"])
        for match in BLOCK.finditer(text)
        if match["kind"] == kind and not match["skip"]
    ]


def test_blocks_are_found_with_their_lines_and_skipped_where_marked() -> None:
    text = "# Title\n```python\na = 1\n```\n<!-- skip -->\n```python\nb\n```\n```sh\nc\n```\n\n```python\nd\n```\n"
    assert blocks(text, "python") == [(3, "a = 1\n"), (14, "d\n")]
    assert blocks(text, "sh") == [(10, "c\n")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_python_blocks_run_in_order(path: Path, tmp_path: Path) -> None:
    found = blocks(path.read_text(encoding="utf-8"), "python")
    if not found:
        return  # a page without code
    # Empty lines put the code at its place on the page, so that a traceback names the right line.
    lines: list[str] = []
    for line, code in found:
        lines += [""] * (line - 1 - len(lines)) + code.splitlines()
    script = tmp_path / path.with_suffix(".py").name
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # In a process of its own: a page may register operations, which no other test should meet.
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def commands_in(path: Path) -> list[str]:
    found = blocks(path.read_text(encoding="utf-8"), "sh")
    lines = [line for _, code in found for line in code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("optuna-kd ")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_can_be_read(path: Path) -> None:
    from optuna_kd.cli import app

    group = typer.main.get_command(app)
    for line in commands_in(path):
        words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
        name, *arguments = words
        command = group.commands[name]  # type: ignore[attr-defined]
        required = {
            parameter.opts[0]: "x"
            for parameter in command.params
            if parameter.required and parameter.param_type_name == "option" and parameter.opts[0] not in arguments
        }
        command.make_context(name, [*arguments, *(word for pair in required.items() for word in pair)])


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"], ids=lambda path: path.name
)
def test_the_links_lead_somewhere(path: Path) -> None:
    for match in LINK.finditer(path.read_text(encoding="utf-8")):
        target = path.parent / match["path"]
        assert target.exists() or target.name in WRITTEN, f"{path.name} links to {match['path']}"


def test_every_benchmark_that_is_quoted_has_its_result() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"benchmarks/results/[\w.-]+", path.read_text(encoding="utf-8")):
            assert (ROOT / name.rstrip(".")).exists(), f"{path.name} quotes {name}"
