"""The report in a real browser: drawn, silent, reachable by keyboard, readable on a phone and on paper."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from made_cards import compared_card
from real_browser import Visit

from optuna_kd.analysis.report import build_report
from optuna_kd.study import CARD

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "analysis" / "figures"), str(TESTS / "analysis" / "report")]
import made_up  # noqa: E402
from report_studies import with_command  # noqa: E402
from test_report_bad_inputs import nasty_study  # noqa: E402

Open = Callable[..., Visit]


def _finished() -> optuna.Study:
    study = with_command(made_up.auto_kd(12))
    study.set_user_attr(CARD, compared_card().to_dict())
    return study


STUDIES = {"finished": _finished, "joint": lambda: made_up.uniads(12), "empty": made_up.empty, "nasty": nasty_study}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a few studies."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tmp_path_factory.mktemp("reports")
    return {name: build_report(make()).save(folder / f"{name}.html")[0] for name, make in STUDIES.items()}


def opened(visit: Open, page: Path, **size: int) -> Visit:
    """Open a report and wait until all of its figures are drawn."""
    visited = visit(page, **size)
    visited.page.wait_for_selector("html[data-drawn]", state="attached")
    return visited


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_is_drawn_and_asks_nobody(visit: Open, reports: dict[str, Path], name: str) -> None:
    visited = opened(visit, reports[name])
    page = visited.page
    plots = page.locator(".plot")
    assert page.locator("html").get_attribute("data-drawn") == str(plots.count())
    assert page.locator(".plot .main-svg:first-child").count() == plots.count()
    assert plots.count() > 4 or name == "empty"
    for place in range(plots.count()):
        box = plots.nth(place).bounding_box()
        assert box is not None
        assert box["height"] > 60
        assert box["width"] > 500
    visited.picture(f"report-{name}")
    assert visited.complaints == []
    assert visited.foreign_requests() == []


@pytest.mark.parametrize("name", STUDIES)
def test_nobody_is_shut_out(visit: Open, reports: dict[str, Path], name: str) -> None:
    visited = opened(visit, reports[name])
    visited.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert visited.barriers() == []


@pytest.mark.parametrize("name", STUDIES)
def test_on_a_phone_nothing_sticks_out(visit: Open, reports: dict[str, Path], name: str) -> None:
    visited = opened(visit, reports[name], width=360, height=740)
    visited.picture(f"report-{name}-phone")
    assert visited.overflowing() == []
    visited.page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert visited.overflowing() == []
    assert visited.complaints == []


def test_a_keyboard_reaches_everything(visit: Open, reports: dict[str, Path]) -> None:
    visited = opened(visit, reports["finished"])
    stops = visited.walk_by_keyboard()
    assert stops[0]["text"] == "Skip to the report"
    assert all(stop["ring"] for stop in stops), [stop for stop in stops if not stop["ring"]]
    # Every link, button, fold and box that scrolls was reached.
    missed = visited.page.evaluate(
        "() => [...document.querySelectorAll('a[href], button, summary, [tabindex=\"0\"]')]"
        ".filter((each) => each.checkVisibility() && !each.dataset.reached).map((each) => each.outerHTML)"
    )
    assert missed == []


def test_folds_open_and_the_skip_link_skips_by_keyboard(visit: Open, reports: dict[str, Path]) -> None:
    page = opened(visit, reports["finished"]).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "report"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_code_is_copied(visit: Open, reports: dict[str, Path]) -> None:
    visited = opened(visit, reports["finished"])
    visited.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = visited.page.locator(".copy").first
    button.click()
    button.and_(visited.page.get_by_text("Copied", exact=True)).wait_for()  # the page allows no wait_for_function
    copied = visited.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("optuna-kd distill --recipe elsewhere/runs/")


def test_on_paper_everything_is_open_and_the_figures_fit(visit: Open, reports: dict[str, Path], tmp_path: Path) -> None:
    visited = opened(visit, reports["finished"])
    page = visited.page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    widths = page.evaluate("[...document.querySelectorAll('.plot .main-svg')].map((each) => each.clientWidth)")
    assert widths
    assert max(widths) <= 673  # A4 without its margins
    page.set_viewport_size({"width": 673, "height": 952})
    visited.picture("report-print")
    assert visited.overflowing() == []
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert len(page.pdf(format="A4")) > 50_000
    assert visited.complaints == []


def test_without_scripts_the_words_and_numbers_are_there(browser: object, reports: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(reports["finished"].as_uri())
    assert page.get_by_text("The figures need JavaScript, which is off here").is_visible()
    assert page.locator("table").count() > 5
    assert page.get_by_text("Better than tuned KD, beyond noise").is_visible()
    context.close()
