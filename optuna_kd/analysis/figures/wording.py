"""Words and numbers as people read them, and safe inside plotly, which takes a subset of HTML for mark-up.

What comes from a study (names, choices, reasons) may be anything: HTML, LaTeX, thousands of characters, line breaks.
`plain` shortens it to one line of text; `shown` makes that safe to draw. Everything drawn goes through `shown`.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable
from typing import Any

from optuna_kd.durations import format_seconds

NAME = 28  # characters of a parameter or an objective
CHOICE = 18  # characters of an option
SENTENCE = 90  # characters of a recipe, a reason


def plain(text: Any, limit: int = NAME) -> str:
    """Give anything as one line of printable text of `limit` characters at most; not escaped."""
    if isinstance(text, float):
        text = number(text)
    known = str(text)
    if len(known) > 8 * limit:  # cut first: this leaves enough where most of it is white space
        known = known[: 4 * limit] + known[-4 * limit :]
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in known).split())
    if len(line) <= limit:
        return line
    end = limit // 3  # is kept: names that begin alike often differ there
    return f"{line[: limit - 1 - end].rstrip()}…{line[-end:].lstrip()}"


def shown(text: Any, limit: int = NAME) -> str:
    """Give anything as one line that plotly draws as it is: no mark-up, no LaTeX."""
    return escape(plain(text, limit))


def escape(text: str) -> str:
    """Replace what plotly would interpret: tags, entities, and the dollar signs of LaTeX."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def lines(text: str, width: int) -> list[str]:
    """Break a text into lines of `width` characters at most."""
    return textwrap.wrap(text, width) or [""]


def number(value: float, digits: int = 4) -> str:
    """Write a number: 11,002, 0.4123, 1.2e-7, ∞."""
    if math.isnan(value):
        return "not a number"
    sign = "−" if value < 0 else ""
    size = abs(float(value))
    if math.isinf(size):
        return f"{sign}∞"
    if size >= 1e9 or 0 < size < 1e-4:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        shortest = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{sign}{shortest}e{int(exponent)}"
    if size == round(size) or size >= 10**digits:
        return f"{sign}{size:,.0f}"
    return f"{sign}{size:,.{digits}g}"


def change(value: float, digits: int = 2) -> str:
    """Write a difference, with its sign."""
    return ("+" if value > 0 else "") + number(value, digits)


def share(part: float, whole: float) -> str:
    """Write a part of a whole in per cent."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 1:
        return "under 1 %"
    return f"{percent:.0f} %" if percent <= 99 or part == whole else "over 99 %"


def count(amount: int, noun: str, plural: str | None = None) -> str:
    """Write how many there are: 1 trial, 5,000 trials."""
    return f"1 {noun}" if amount == 1 else f"{amount:,} {plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Write a duration: 0.4 s, 3 min 20 s."""
    return f"{max(0.0, seconds):.2g} s" if seconds < 9.95 else format_seconds(seconds)


def listed(words: Iterable[str]) -> str:
    """Join words: a, b and c."""
    known = list(words)
    return known[0] if len(known) == 1 else f"{', '.join(known[:-1])} and {known[-1]}" if known else ""
