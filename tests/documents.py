"""The code blocks of README and docs, and what stands behind them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "benchmarks" / "README.md"]  # the last one is included by docs/benchmarks.md
BEHIND = Path(__file__).with_name("behind_documents")

FENCE = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)
BLOCK = re.compile(
    r"^(?:<!-- after: (?P<after>[\w, ]+) -->\n)?(?P<indent> *)(?P<fence>```|~~~)(?P<kind>\w*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Args:
        page: The file that it stands in.
        line: Of its first line of code, counted from 1.
        kind: The word behind the fence.
        code: Its text.
        after: The snippets in `behind_documents/` that prepare what it takes for granted.
    """

    page: Path
    line: int
    kind: str
    code: str
    after: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_in(text: str, page: Path) -> list[Block]:
    """Give all code blocks of a text; a fence that belongs to none of them is an error."""
    found = [
        Block(
            page,
            text.count("\n", 0, match.start("code")) + 1,
            match["kind"],
            match["code"],
            tuple(BEHIND / f"{name.strip()}.py" for name in (match["after"] or "").split(",") if name),
        )
        for match in BLOCK.finditer(text)
    ]
    assert len(FENCE.findall(text)) == 2 * len(found), f"{page.name} has a fence that no test understands"
    return found


def all_blocks() -> list[Block]:
    """Give the blocks of all pages, in their order; of those that stand on several pages, the last one."""
    found = [block for page in PAGES for block in blocks_in(page.read_text(encoding="utf-8"), page)]
    last = {(block.kind, without_comments(block)): block for block in found}
    return [block for block in found if last[block.kind, without_comments(block)] is block]


def without_comments(block: Block) -> str:
    """Give the code as a shell or Python takes it, but for comments inside of strings."""
    return re.sub(r" *#.*", "", block.code)
