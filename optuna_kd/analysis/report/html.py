"""A report as one HTML page: everything in it is text, and it asks no network for anything."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from optuna_kd.analysis.closing import Closing
from optuna_kd.analysis.figures import Chart
from optuna_kd.analysis.figures.wording import plain
from optuna_kd.analysis.report.explained import COMPARABLE, NO_CLOSING, evidence_of, headline, how_to_read
from optuna_kd.analysis.report.grids import (
    Grid,
    beside_title,
    chart_grid,
    comparisons_grid,
    rules_grid,
    standings_grid,
    versions_grid,
)
from optuna_kd.analysis.report.report import Report

_VALUE = 300  # characters of a value of the protocol
_TONES = {"better": ("better", "✓"), "worse": ("worse", "✗"), "level": ("level", "≈")}


@dataclass(frozen=True)
class Drawing:
    """A figure as the page has it: its heading, sentence and notes are the page's own.

    Args:
        json: Data and layout, safe inside of a script element.
        words: What the sentence of the figure says beside its title.
        height: Pixels.
        grid: The numbers.
    """

    json: Markup
    words: str
    height: int
    grid: Grid


def html_of(report: Report) -> str:
    """Give the page."""
    drawn = [chart for chart in report.charts if not chart.is_empty]
    charts = [*drawn, *([report.seeds] if report.seeds is not None else [])]
    closing, script, plotly = report.closing, _file("report.js"), _plotly()
    tone, sign = _TONES.get(closing.outcome if closing else "", ("unsure", "?"))
    return _environment().get_template("report.html.jinja").render(
        report=report,
        policy=_policy(plotly, script),
        style=Markup(_file("report.css")),
        script=Markup(script),
        plotly=Markup(plotly),
        contents=_contents(report),
        headline=headline(closing),
        warnings=closing.warnings if closing else (),
        tone=tone,
        sign=sign,
        tiles=_tiles(report),
        standings=standings_grid(closing) if closing else None,
        comparisons=comparisons_grid(closing) if closing else None,
        reading=how_to_read(closing) if closing else (),
        comparable=COMPARABLE,
        no_closing=NO_CLOSING,
        protocol=_protocol(closing) if closing else (),
        rules=rules_grid(report.rules),
        versions=versions_grid(report.trained_with, report.written_with),
        drawn=drawn,
        blank=[chart for chart in report.charts if chart.is_empty],
        figures={chart.name: _drawing(chart) for chart in charts},
    )  # fmt: skip


def _contents(report: Report) -> list[tuple[str, str]]:
    found = "The recipe" if report.found is not None and report.found.line else "The best trial"
    parts = [
        ("verdict", "The verdict", True),
        ("searched", "What was searched", True),
        ("found", found, report.found is not None),
        ("real", "Is it real?", True),
        ("guidance", "What to do now", bool(report.findings)),
        ("figures", "Figures", True),
        ("rules", "Rules of thumb", bool(report.rules)),
        ("repeat", "Versions, repeating it", True),
    ]
    return [(id_, title) for id_, title, there in parts if there]


def _tiles(report: Report) -> list[tuple[str, str]]:
    """Give the few numbers that one looks for first."""
    tiles = []
    closing = report.closing
    if closing is not None:
        own, seeds = closing.standings[0].last, f"{closing.seeds} seed{'s' * (closing.seeds != 1)}"
        tiles.append((f"{100 * own.mean:.2f} %", f"{closing.part} accuracy of the recipe, mean of {seeds}"))
        if (tuned := closing.tuned) is not None:
            shown = f"{100 * tuned.difference:+.2f}".replace("-", "−")
            reach = f", 95 % {100 * tuned.interval[0]:+.2f} to {100 * tuned.interval[1]:+.2f}" if tuned.n > 1 else ""
            tiles.append((shown, f"points against tuned KD{reach.replace('-', '−')}"))
    tiles.append((f"{sum(many for _, many in report.states):,}", "trials"))
    tiles += [(f"{many:,}", said) for said, many in report.states[:2] if len(report.states) > 1]
    return tiles


def _protocol(closing: Closing) -> list[tuple[str, str]]:
    return [
        (plain(name, 60), plain(value if isinstance(value, str) else json.dumps(value, sort_keys=True), _VALUE))
        for name, value in sorted(closing.protocol.items())
    ]


def _drawing(chart: Chart) -> Drawing:
    figure = chart.bare()
    text = figure.to_json()
    for character in "<>&\u2028\u2029":  # so that no text in it can end the script element
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Drawing(Markup(text), beside_title(chart), figure.layout.height, chart_grid(chart))


def _policy(*scripts: str) -> str:
    """Allow these scripts and nothing else: no other one, no request to anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _plotly() -> str:
    # What a browser reads of a script has line feeds alone, and that is what it hashes.
    text: str = get_plotlyjs()
    return text.replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def _file(name: str) -> str:
    return (resources.files("optuna_kd.analysis.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = plain
    environment.filters["evidence"] = evidence_of
    environment.filters["moment"] = _moment
    return environment


def _moment(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%d %B %Y, %H:%M %Z")
