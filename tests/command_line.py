"""What the tests of the command line share: what a command left behind, and how it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def files(folder: Path) -> list[str]:
    """List all that lies in a folder, also in those below."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_refused(output: Output, *texts: str) -> None:
    """Assert that a command ended with one line, and that the line says all of this."""
    assert output.code == 2
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("Error: ")
    for text in texts:
        assert text in line
