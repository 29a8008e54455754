"""A real browser: where it is on this machine, and what happens on a page while it is open."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chromium-headless-shell")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic"]  # root in a container has no sandbox
SERIOUS = ("serious", "critical")

_OVERFLOWING = """() => {
  const room = document.documentElement.clientWidth;
  const scrolls = (element) => ["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX);
  const isHeld = (element) => {
    for (let at = element.parentElement; at && at !== document.body; at = at.parentElement) {
      if (scrolls(at)) return true;
    }
    return false;
  };
  const found = [...document.body.querySelectorAll("*")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && (box.right > room + 1 || box.left < -1) && !isHeld(element)
      && getComputedStyle(element).position !== "absolute";
  });
  const wide = document.documentElement.scrollWidth > room ? [`the page: ${document.documentElement.scrollWidth}`] : [];
  return [...wide, ...found.map((element) => `${element.tagName}.${element.getAttribute("class")}`)];
}"""

_FOCUSED = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at);
  const ring = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  const text = (at.getAttribute("aria-label") || at.textContent || "").trim().slice(0, 60);
  at.dataset.reached = "yes";
  return {tag: at.tagName.toLowerCase(), text, ring};
}"""


def find_browser(own: str = "") -> str | None:
    """Look for a Chromium: `CHROMIUM`, those on the PATH, and Playwright's own; None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return named
    on_path = (shutil.which(name) for name in NAMES)
    return next((path for path in on_path if path), own if own and Path(own).exists() else None)


@dataclass
class Visit:
    """A page that is open, and what it has done since.

    Args:
        page: Of Playwright.
        pictures: Folder for screenshots.
        requests: Every address that was asked for, the page's own first.
        complaints: Errors and warnings of its console, exceptions, and requests that failed.
    """

    page: Page
    pictures: Path
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> Visit:
        """Begin to write down what the page does."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("console", self._hear)
        return self

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def foreign_requests(self) -> list[str]:
        """Give the addresses beside the page itself and what is written in it."""
        return [url for url in self.requests[1:] if not url.startswith(("data:", "blob:"))]

    def barriers(self) -> list[str]:
        """Let axe-core look for what shuts people out; give its serious and critical findings, one line each."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            f"{each['id']} ({each['impact']}): {each['help']}: {node['html'][:160]}"
            for each in found
            if each["impact"] in SERIOUS
            for node in each["nodes"]
        ]

    def overflowing(self) -> list[str]:
        """Name what is wider than the window and in no box that scrolls."""
        found: list[str] = self.page.evaluate(_OVERFLOWING)
        return found

    def walk_by_keyboard(self, most: int = 300) -> list[dict[str, Any]]:
        """Press Tab until the focus leaves the page; give what had it: tag, text, and whether one can see that."""
        stops: list[dict[str, Any]] = []
        for _ in range(most):
            self.page.keyboard.press("Tab")
            reached = self.page.evaluate(_FOCUSED)
            if reached is None:
                break
            stops.append(reached)
        return stops

    def picture(self, name: str, *, whole: bool = True) -> Path:
        """Take a screenshot."""
        file = self.pictures / f"{name}.png"
        self.page.screenshot(path=file, full_page=whole)
        return file
