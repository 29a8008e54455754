"""A report as Markdown, in which names do nothing, whatever they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from optuna_kd.analysis.closing import Closing
from optuna_kd.analysis.figures.wording import plain
from optuna_kd.analysis.report.explained import COMPARABLE, NO_CLOSING, evidence_of, headline, how_to_read
from optuna_kd.analysis.report.found import Found, Snippet
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
from optuna_kd.cards.showing import code, prose

_ROWS = 12  # of the table of a figure; the page has all of them
_VALUE = 300  # characters of a value of the protocol


def markdown_of(report: Report) -> str:
    """Give the text."""
    parts = [
        _opening(report),
        _facts("What was searched", ((fact.name, fact.text) for fact in report.facts)),
        _found(report.found) if report.found is not None else (),
        _real(report),
        _advice(report),
        _figures(report),
        _rules(report),
        _repeating(report),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _opening(report: Report) -> Iterator[str]:
    closing = report.closing
    yield f"# Report of {code(plain(report.name, 120))}"
    yield ""
    yield f"**{headline(closing)}.**"
    yield ""
    for sentence in ((closing.verdict,) if closing else ()) + report.missing:
        yield f"> {prose(sentence)}"
        yield ">"
    for sentence in closing.warnings if closing else ():
        yield f"> **Warning.** {prose(sentence)}"
        yield ">"
    yield ""
    yield f"Written {report.written}. The page `report.html` has the figures."
    yield ""


def _facts(title: str, facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    for name, text in facts:
        yield f"- **{prose(name)}**: {prose(text)}"
    yield ""


def _found(found: Found) -> Iterator[str]:
    yield f"## {'The recipe' if found.line else 'The best trial'}"
    yield ""
    if found.line:
        yield code(found.line)
        yield ""
    yield from (f"- {prose(sentence)}" for sentence in found.words)
    yield from (f"- {prose(name)}: {prose(value)}" for name, value in found.parameters)
    yield ""
    yield prose(found.standing)
    yield ""
    yield from _snippets(found.snippets)


def _real(report: Report) -> Iterator[str]:
    yield "## Is it real?"
    yield ""
    closing = report.closing
    if closing is None:
        yield NO_CLOSING
        yield ""
        return
    yield prose(closing.verdict)
    yield ""
    yield from _table(standings_grid(closing))
    comparisons = comparisons_grid(closing)
    if comparisons is not None:
        yield from _table(comparisons)
    yield from (f"- {sentence}" for sentence in how_to_read(closing))
    yield ""
    yield from (f"- {prose(each.method)}: {code(plain(each.recipe, 400))}" for each in closing.standings)
    yield ""
    yield from _comparable(closing)


def _comparable(closing: Closing) -> Iterator[str]:
    yield f"### Comparable: `{closing.comparable}`"
    yield ""
    yield COMPARABLE
    yield ""
    for name, value in sorted(closing.protocol.items()):
        shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield f"- {prose(plain(name, 60))}: {code(plain(shown, _VALUE))}"
    yield ""


def _advice(report: Report) -> Iterator[str]:
    if report.findings:
        yield "## What to do now"
        yield ""
        for finding in report.findings:
            yield f"- {prose(finding.sentence)} {prose(evidence_of(finding))}".rstrip()
        yield ""


def _figures(report: Report) -> Iterator[str]:
    yield "## Figures"
    yield ""
    for chart in report.charts:
        yield f"### {prose(chart.title)}"
        yield ""
        yield prose(beside_title(chart))
        yield ""
        yield from (f"- {prose(note)}" for note in chart.notes)
        yield ""
        if chart.rows:
            yield from _table(chart_grid(chart, _ROWS))
        if len(chart.rows) > _ROWS:
            yield f"{len(chart.rows) - _ROWS} more rows are in `report.html`."
            yield ""


def _rules(report: Report) -> Iterator[str]:
    rules = rules_grid(report.rules)
    if rules is not None:
        yield "## Rules of thumb, held against this search"
        yield ""
        yield from _table(rules)


def _repeating(report: Report) -> Iterator[str]:
    yield "## Versions, and how to repeat it"
    yield ""
    yield from _snippets(report.repeat)
    yield from _table(versions_grid(report.trained_with, report.written_with))


def _snippets(snippets: Iterable[Snippet]) -> Iterator[str]:
    for snippet in snippets:
        # A fence that is longer than any in the code, so that nothing in it ends the block.
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", snippet.code)), 3)
        yield f"{snippet.title}:"
        yield ""
        yield f"{fence}{snippet.language}"
        yield from snippet.code.splitlines()
        yield fence
        yield ""


def _table(grid: Grid) -> Iterator[str]:
    yield f"{prose(grid.caption)}."
    yield ""
    yield "| " + " | ".join(map(prose, grid.columns)) + " |"
    yield "|" + "|".join("---:" if numeric else "---" for numeric in grid.numeric) + "|"
    for place, row in enumerate(grid.rows):
        cells = [f"**{prose(cell)}**" if place == grid.strong else prose(cell) for cell in row]
        yield "| " + " | ".join(cells) + " |"
    yield ""
