"""Progress: plain lines, a live view, or nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from optuna_kd.runner import progress
from optuna_kd.runner.progress import (
    LiveReporter,
    PlainReporter,
    Reporter,
    SilentReporter,
    create_reporter,
    format_seconds,
)


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=60)


def live_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None, legacy_windows=False)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def play(reporter: Reporter) -> None:
    reporter.note("Study      [a] name")
    reporter.phase("Controls", 3, 1)
    reporter.advance("kl@4*1  reward 0.5", left=75)
    reporter.advance("kl@4*5  reward 0.6", left=None)
    reporter.close()
    reporter.close()


def test_plain_lines_begin_and_end_a_phase() -> None:
    console = plain_console()
    play(PlainReporter(console))
    assert output(console).splitlines() == [
        "Study      [a] name",
        "Controls: 1 of 3 are there already",
        "Controls 3/3  kl@4*5  reward 0.6",
    ]


def test_plain_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console = plain_console()
    reporter = PlainReporter(console)
    reporter.phase("Search", 5)
    for second in (4, 11, 15, 22):
        now[0] = second
        reporter.advance(f"after {second} s", left=200)
    assert output(console).splitlines() == [
        "Search 2/5  after 11 s  about 3 min 20 s left",
        "Search 4/5  after 22 s  about 3 min 20 s left",
    ]


def test_plain_lines_are_never_broken() -> None:
    console = plain_console()
    PlainReporter(console).note("word " * 40)
    assert len(output(console).splitlines()) == 1


def test_the_live_view_shows_a_bar_for_every_phase() -> None:
    console = live_console()
    reporter = create_reporter(True, console)
    assert isinstance(reporter, LiveReporter)
    reporter.advance("before any phase")
    play(reporter)
    reporter = create_reporter(True, console)
    reporter.phase("Search", 60)
    reporter.close()
    shown = output(console)
    assert "Study      [a] name" in shown
    assert "Controls" in shown
    assert "3/3" in shown
    assert "kl@4*5  reward 0.6" in shown
    assert "0/60" in shown


def test_the_live_view_says_what_is_left() -> None:
    console = live_console()
    reporter = LiveReporter(console)
    reporter.phase("Search", 2)
    reporter.advance("best 0.5", left=75)
    reporter.close()
    assert "best 0.5  about 1 min 15 s left" in output(console)


def test_how_to_report_is_chosen_by_the_console() -> None:
    assert isinstance(create_reporter(True, plain_console()), PlainReporter)
    assert isinstance(create_reporter(False, live_console()), SilentReporter)
    own = SilentReporter()
    assert create_reporter(own) is own


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    play(SilentReporter())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (7.6, "8 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
