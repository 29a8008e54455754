"""The tables of a report as plain text, for HTML and Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna_kd.analysis.closing import Closing, Spread, Standing
from optuna_kd.analysis.figures import Cell, Chart
from optuna_kd.analysis.figures.wording import number, plain
from optuna_kd.analysis.rules import RuleCheck, Status
from optuna_kd.analysis.statistics import LEAST_FOR_BOOTSTRAP, LEAST_FOR_WILCOXON, Comparison

_CELL = 160  # characters
_SIGNS = {Status.SUPPORTED: "✓", Status.CONTRADICTED: "✗", Status.OPEN: "?", Status.NOT_TESTED: "–"}


@dataclass(frozen=True)
class Grid:
    """A table of plain texts.

    Args:
        caption: What it shows.
        columns: Their names; the first one names the rows.
        rows: As many texts each.
        numeric: Which columns hold numbers, and stand at the right.
        strong: The row that it is about, if there is one.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    strong: int | None = None


def standings_grid(closing: Closing) -> Grid:
    """Give what the students of each method score, after the last epoch and at the one chosen on validation data."""
    part = closing.part
    columns = ["method", "seeds", f"{part}, last epoch, %", "95 % interval"]
    selected = any(standing.selected for standing in closing.standings)
    if selected:
        columns += [f"{part}, epoch chosen on validation, %", "95 % interval", "chosen − last"]
    columns += ["validation, last epoch, %"] if part == "test" else []
    return Grid(
        f"{part.capitalize()} accuracy of the students of each method: mean ± standard deviation over the seeds, and "
        "the 95 % t interval of the mean",
        tuple(columns),
        tuple(_standing(standing, part, selected) for standing in closing.standings),
        (False, *[True] * (len(columns) - 1)),
        strong=0,
    )


def comparisons_grid(closing: Closing) -> Grid | None:
    """Give the recipe against each control; None where nothing was compared."""
    if not closing.comparisons:
        return None
    columns = (
        "the recipe against", "points", "95 % interval", "p (paired t, Holm)", "beyond noise", "p (Wilcoxon)",
        "95 % bootstrap interval", "can show from",
    )  # fmt: skip
    return Grid(
        "Paired differences in points, seed by seed. The t-test with Holm's correction decides; Wilcoxon's test and "
        "the bootstrap stand beside it",
        columns,
        tuple(map(_comparison, closing.comparisons)),
        (False, True, True, True, False, True, True, True),
    )


def chart_grid(chart: Chart, most: int | None = None) -> Grid:
    """Give the numbers behind a figure; with `most`, only so many rows of them."""
    rows = chart.rows if most is None or len(chart.rows) <= most else chart.rows[:most]
    numeric = tuple(_is_numeric([row[place] for row in chart.rows]) for place in range(len(chart.columns)))
    return Grid(
        f"The numbers behind “{plain(chart.title, _CELL)}”",
        tuple(plain(column, 60) for column in chart.columns),
        tuple(tuple(map(show_cell, row)) for row in rows),
        (False, *numeric[1:]),
    )


def rules_grid(rules: Sequence[RuleCheck]) -> Grid | None:
    """Give the rules of thumb and what became of them; None where there are none."""
    if not rules:
        return None
    rows = tuple(
        (
            plain(check.rule, 300),
            plain(check.source, 100),
            f"{_SIGNS[check.status]} {check.status}",
            plain(check.evidence, 400),
        )
        for check in rules
    )
    return Grid("Rules of thumb of the papers", ("rule", "from", "here", "evidence"), rows, (False,) * 4)


def versions_grid(trained_with: Mapping[str, str], written_with: Mapping[str, str]) -> Grid:
    """Give the versions of everything that the results depend on."""
    names = list(dict.fromkeys([*trained_with, *written_with]))
    tables = [("of the full trainings", trained_with)] if trained_with else []
    tables.append(("of this report", written_with))
    rows = tuple((plain(name, 60), *(plain(each.get(name, "–"), 60) for _, each in tables)) for name in names)
    return Grid("Versions", ("package", *(name for name, _ in tables)), rows, (False,) * (1 + len(tables)))


def beside_title(chart: Chart) -> str:
    """Give what the sentence of a figure says beside its title."""
    return chart.summary.removeprefix(f"{chart.title}. ")


def show_cell(value: Cell) -> str:
    """Write a cell as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return plain(value, _CELL)
    return f"{value:,}" if isinstance(value, int) else number(value)


def show_p(p: float) -> str:
    """Write a p-value."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _standing(standing: Standing, part: str, selected: bool) -> tuple[str, ...]:
    cells = [plain(standing.method, 60), str(standing.last.n), _mean(standing.last), _interval(standing.last.bounds)]
    if selected:
        chosen = standing.selected
        known = chosen is not None
        cells += [
            _mean(chosen) if chosen else "–",
            _interval(chosen.bounds) if chosen else "–",
            _points(chosen.mean - standing.last.mean) if chosen and known else "–",
        ]
    return tuple([*cells, _mean(standing.validation)] if part == "test" else cells)


def _comparison(found: Comparison) -> tuple[str, ...]:
    spread = found.n > 1 and found.sd > 0
    return (
        plain(found.other, 60),
        _points(found.difference),
        _interval(found.interval if spread else None, signed=True),
        show_p(found.adjusted) if found.n > 1 else "–",
        ("yes, better" if found.difference > 0 else "yes, worse") if found.significant else "no",
        f"from {LEAST_FOR_WILCOXON} seeds on" if found.wilcoxon is None else show_p(found.wilcoxon),
        f"from {LEAST_FOR_BOOTSTRAP} seeds on" if found.bootstrap is None else _interval(found.bootstrap, signed=True),
        f"{100 * found.detectable:.2f}" if math.isfinite(found.detectable) else "–",
    )


def _mean(spread: Spread) -> str:
    sd = "" if spread.sd is None else f" ± {100 * spread.sd:.2f}"
    return f"{100 * spread.mean:.2f}{sd}"


def _interval(bounds: tuple[float, float] | None, *, signed: bool = False) -> str:
    if bounds is None:
        return "–"
    low, high = (_points(end) if signed else f"{100 * end:.2f}" for end in bounds)
    return f"{low} to {high}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}".replace("-", "−")


def _is_numeric(values: Sequence[Cell]) -> bool:
    return any(isinstance(value, int | float) for value in values) and not any(isinstance(v, str) for v in values)
