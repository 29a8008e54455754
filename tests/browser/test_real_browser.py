"""What the other tests here look at a page with: it has to find what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from real_browser import Visit, find_browser

BAD = """<!doctype html><html lang="en"><title>t</title><main><h1>Bad</h1>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><p style="color:#ccc">pale</p>
<div style="width:900px">wide</div><div style="overflow:auto"><p style="width:900px">held</p></div>
<button style="outline:none">a</button><a href="#x">b</a></main>
<script>console.error("oh"); fetch("http://127.0.0.1:9/away").catch(() => 0); throw new Error("no")</script></html>"""


def test_a_bad_page_is_seen_through(visit: Callable[..., Visit], tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text(BAD, encoding="utf-8")
    visited = visit(file, width=360)
    visited.page.wait_for_timeout(200)
    assert visited.foreign_requests() == ["http://127.0.0.1:9/away"]
    for complaint in ("error: oh", "exception: no", "failed: http://127.0.0.1:9/away"):
        assert complaint in visited.complaints
    assert {found.partition(" ")[0] for found in visited.barriers()} == {"image-alt", "color-contrast"}
    overflowing = visited.overflowing()
    assert overflowing[0].startswith("the page: 9")
    assert len(overflowing) == 2  # what a box holds that scrolls is in nobody's way
    stops = visited.walk_by_keyboard()
    assert [(stop["tag"], stop["ring"]) for stop in stops] == [("div", True), ("button", False), ("a", True)]
    assert visited.picture("bad").stat().st_size > 1000


def test_a_browser_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser(str(own)) is None
    own.touch()
    assert find_browser(str(own)) == str(own)
    (tmp_path / "chromium").touch(mode=0o755)
    assert find_browser(str(own)) == str(tmp_path / "chromium")
    monkeypatch.setenv("CHROMIUM", "mine")
    assert find_browser(str(own)) == "mine"
