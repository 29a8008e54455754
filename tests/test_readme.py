"""The Python code of the README runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCK = re.compile(r"^(?P<skip><!--\s*skip\s*-->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Give (line number, code) of each ```python block that has no `<!-- skip -->` on the line before it."""
    return [
        (text.count("\n", 0, match.start("code")) + 1, match["code"])
        for match in BLOCK.finditer(text)
        if not match["skip"]
    ]


def test_blocks_are_found_with_their_lines_and_skipped_where_marked() -> None:
    text = "# Title\n```python\na = 1\n```\n<!-- skip -->\n```python\nb\n```\n```bash\nc\n```\n\n```python\nd\n```\n"
    assert python_blocks(text) == [(3, "a = 1\n"), (14, "d\n")]


def test_the_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = python_blocks(README.read_text(encoding="utf-8"))
    if not blocks:
        pytest.skip("README.md has no Python blocks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPTUNA_KD_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, object] = {"__name__": "readme"}
    for line, code in blocks:
        # Empty lines put the code at its place in the README, so that a traceback names the right line.
        exec(compile("\n" * (line - 1) + code, str(README), "exec"), namespace)
