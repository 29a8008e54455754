"""What a study says, ready to be written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optuna_kd.files import write_whole

if TYPE_CHECKING:
    from optuna_kd.analysis.advice import Finding
    from optuna_kd.analysis.closing import Closing
    from optuna_kd.analysis.figures import Chart
    from optuna_kd.analysis.report.found import Found, Snippet
    from optuna_kd.analysis.report.searched import Fact
    from optuna_kd.analysis.rules import RuleCheck

PAGE = "report.html"


@dataclass(frozen=True, eq=False)
class Report:
    """A study in words, numbers and figures; all texts are plain and not escaped.

    Args:
        name: Of the study.
        written: When, in UTC (ISO 8601).
        missing: What keeps the report from being complete, one sentence each.
        facts: What was searched.
        states: How many trials ended how.
        found: The recipe, or the best trial; None where no trial tells.
        closing: The recipe and its controls over the seeds; None without a recipe card.
        seeds: The same as a figure.
        findings: What to do next, each with its closing.
        rules: Rules of thumb of the papers, held against this study.
        charts: The figures.
        repeat: How to do all this again.
        trained_with: Versions that the full trainings had.
        written_with: Versions that the report has.
    """

    name: str
    written: str
    missing: tuple[str, ...]
    facts: tuple[Fact, ...]
    states: tuple[tuple[str, int], ...]
    found: Found | None
    closing: Closing | None
    seeds: Chart | None
    charts: tuple[Chart, ...]
    repeat: tuple[Snippet, ...]
    trained_with: Mapping[str, str] = field(default_factory=dict)
    written_with: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    rules: tuple[RuleCheck, ...] = ()

    def to_html(self) -> str:
        """Give one page that needs no network: figures, plotly and all."""
        from optuna_kd.analysis.report.html import html_of

        return html_of(self)

    def to_markdown(self) -> str:
        """Give the same without the figures."""
        from optuna_kd.analysis.report.markdown import markdown_of

        return markdown_of(self)

    def save(self, target: str | Path) -> tuple[Path, Path]:
        """Write both.

        Args:
            target: A folder, for `report.html` and `report.md` in it; or a file that ends in .html, and the Markdown is
                written beside it.

        Returns:
            The two files.

        Raises:
            OSError: With the name of the file: the disk is full, read-only ...
        """
        path = Path(target)
        page = path if path.suffix.lower() == ".html" else path / PAGE
        text = page.with_suffix(".md")
        write_whole(page, self.to_html())
        write_whole(text, self.to_markdown())
        return page, text
