"""README and docs: all code blocks run or agree with the results, links lead somewhere.

Python runs here, commands in `test_document_commands.py`. A block that takes something for granted, data or a finished
search, has a comment `<!-- after: NAME -->` on the line before it: `behind_documents/NAME.py` runs first.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from documents import DOCUMENTS, PAGES, ROOT, Block, all_blocks, blocks_in, without_comments

LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#\s]+)(?:#[^)]*)?\)")
WRITTEN = ("formulas.md", "command_line.md")  # while the documentation is built


def test_blocks_are_found_with_their_lines_and_what_they_need() -> None:
    text = "# Title\n```python\na = 1\n```\n<!-- after: data, net -->\n~~~sh\nb\n~~~\n- c\n\n  ```text\n  d\n  ```\n"
    first, second, third = blocks_in(text, ROOT / "a.md")
    assert (first.line, first.kind, first.code, first.after) == (3, "python", "a = 1\n", ())
    assert (second.line, second.kind, second.code) == (7, "sh", "b\n")
    assert [path.name for path in second.after] == ["data.py", "net.py"]
    assert (third.line, third.kind, third.code) == (12, "text", "  d\n")


@pytest.mark.parametrize("text", ["```python\na\n", "```python title\na\n```\n", "<!-- after: -->\n```py thon\n```\n"])
def test_a_fence_that_nobody_understands_is_an_error(text: str) -> None:
    with pytest.raises(AssertionError, match=r"a\.md has a fence that no test understands"):
        blocks_in(text, ROOT / "a.md")


def test_every_block_is_of_a_kind_that_a_test_takes() -> None:
    others = [str(block) for block in all_blocks() if block.kind not in ("python", "sh", "text")]
    assert not others, f"no test runs or compares {others}"


def test_a_block_on_several_pages_is_taken_once() -> None:
    taken = {(block.kind, without_comments(block)) for block in all_blocks()}
    there = {
        (block.kind, without_comments(block))
        for page in PAGES
        for block in blocks_in(page.read_text(encoding="utf-8"), page)
    }
    assert taken == there
    assert len(all_blocks()) == len(there)


def test_what_stands_behind_the_pages_is_needed() -> None:
    written = {path for page in PAGES for block in blocks_in(page.read_text("utf-8"), page) for path in block.after}
    assert {path.name for path in written} == {path.name for path in (ROOT / "tests/behind_documents").glob("*.py")}


def pages_with(kind: str) -> list[list[Block]]:
    by_page: dict[Path, list[Block]] = {}
    for block in all_blocks():
        if block.kind == kind:
            by_page.setdefault(block.page, []).append(block)
    return list(by_page.values())


@pytest.mark.parametrize("blocks", pages_with("python"), ids=lambda blocks: blocks[0].page.name)
def test_the_python_blocks_run_in_order(blocks: list[Block], tmp_path: Path) -> None:
    # Empty lines put the code at its place on the page, so that a traceback names the right line. What comes before a
    # block stands in the line of its fence.
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 2 - len(lines))
        lines += [
            "; ".join(f"exec(compile(open({str(path)!r}).read(), {str(path)!r}, 'exec'))" for path in block.after)
        ]
        lines += block.code.splitlines()
    script = tmp_path / blocks[0].page.with_suffix(".py").name
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # In a process of its own: a page may register operations, which no other test should meet.
    surroundings = {**os.environ, "OPTUNA_KD_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def result_of(name: str) -> str:
    """Print a stored result as the program prints it."""
    import torch

    from optuna_kd.recipe import Recipe
    from optuna_kd.runner.result import FrontRow, OptionRow, Row, SearchResult

    stored = json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))
    rows = tuple(Row(**{**row, "accuracies": tuple(row["accuracies"])}) for row in stored["table"])
    front = tuple(
        FrontRow(
            row["trial"],
            Recipe.from_dict(row["recipe"]),
            row["values"],
            row["costs"],
            test_accuracy=row["test_accuracy"],
        )
        for row in stored.get("front", ())
    )
    named = re.search(r"\(trial (\d+)\)", stored.get("knee", ""))
    recipe = next((row.recipe for row in front if named and row.trial == int(named[1])), Recipe())
    options = tuple(OptionRow(**row) for row in stored.get("options", ()))
    return str(
        SearchResult(
            optuna.create_study(), recipe, torch.nn.Identity(), rows, {}, stored["verdict"], "test", Path(),
            front, stored.get("knee", ""), options,
        )
    )  # fmt: skip


def agrees_with_the_demo(text: str) -> None:
    assert without_layout(text) == without_layout(result_of("demo.json"))


def agrees_with_the_joint_demo(text: str) -> None:
    table, _, sentence = text.partition("\n\n")
    printed = without_layout(result_of("joint_demo.json"))
    assert without_layout(table) in printed
    assert without_layout(sentence) in printed


def without_layout(text: str) -> str:
    """Take out what depends on the width of the window."""
    return " ".join(re.sub("─+", "─", text).split())


def is_a_line_of_a_search(text: str) -> None:
    from optuna_kd.training.profile import Profile

    shares = re.findall(r"(\w+) (\d+) %", text)
    milliseconds, batch, rate = re.search(r"([\d.]+) ms for (\d+) images, ([\d,]+) a second", text).groups()  # type: ignore[union-attr]
    seconds = {name: float(share) * float(milliseconds) / 1e5 for name, share in shares}
    printed = f"A step     {Profile(seconds, int(batch), stored='(stored)' in text)}\n"
    # The printed shares are rounded, so another run of the same would say other digits.
    assert re.sub(r"[\d.,]*\d", "0", text) == re.sub(r"[\d.,]*\d", "0", printed)
    assert int(rate.replace(",", "")) == pytest.approx(1000 * int(batch) / float(milliseconds), rel=0.001)
    assert sum(int(share) for _, share in shares) == pytest.approx(100, abs=2)


# What is shown as printed text, by how it begins, and what it is held against.
SHOWN: dict[str, Callable[[str], None]] = {
    "Test accuracy after the last epoch": agrees_with_the_demo,
    "  student               cross_entropy": agrees_with_the_joint_demo,
    "A step ": is_a_line_of_a_search,
}


@pytest.mark.parametrize("block", [block for block in all_blocks() if block.kind == "text"], ids=str)
def test_what_is_shown_is_what_is_printed(block: Block) -> None:
    (compare,) = (compare for start, compare in SHOWN.items() if block.code.startswith(start))
    compare(block.code)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_lead_somewhere(path: Path) -> None:
    for match in LINK.finditer(path.read_text(encoding="utf-8")):
        target = path.parent / match["path"]
        assert target.exists() or target.name in WRITTEN, f"{path.name} links to {match['path']}"


def test_every_benchmark_that_is_quoted_has_its_result() -> None:
    for path in DOCUMENTS:
        for name in re.findall(r"benchmarks/results/[\w.-]+", path.read_text(encoding="utf-8")):
            assert (ROOT / name.rstrip(".")).exists(), f"{path.name} quotes {name}"
