"""Pages in a real browser: `visit` opens them. Without a browser, or Playwright, these tests are skipped.

The browser is the one that the environment variable CHROMIUM names, one on the PATH (chromium, google-chrome, ...), or
Playwright's own (`playwright install chromium`). Screenshots are kept in the folder that OPTUNA_KD_SCREENSHOTS names,
else in the test's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from real_browser import ARGUMENTS, Visit, find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[..., Visit]


@pytest.fixture(scope="module")  # not longer: it leaves an event loop in this thread
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with api.sync_playwright() as playwright:
        program = find_browser(playwright.chromium.executable_path)
        if program is None:
            pytest.skip("There is no Chromium: install one, or name it in CHROMIUM.")
        running = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a page: `visit(url or file, width=1280, height=900)` gives a `Visit`, which wrote down what it did."""
    kept = Path(os.environ.get("OPTUNA_KD_SCREENSHOTS") or tmp_path / "screenshots")
    kept.mkdir(parents=True, exist_ok=True)
    contexts = []

    def open_page(address: str | Path, *, width: int = 1280, height: int = 900) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        visited = Visit(context.new_page(), kept).watch()
        visited.page.goto(address.resolve().as_uri() if isinstance(address, Path) else address, wait_until="load")
        return visited

    yield open_page
    for context in contexts:
        context.close()
