"""Numbers and names as people read them."""

from __future__ import annotations

import math

import pytest

from optuna_kd.analysis.figures.wording import change, count, duration, escape, listed, number, plain, share, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (5.0, "5"), (11002, "11,002"), (1234567, "1,234,567"), (0.41234, "0.4123"), (12345.6, "12,346"),
        (-0.5, "−0.5"), (1.2e-7, "1.2e-7"), (1e308, "1e308"), (5e-324, "4.941e-324"), (math.inf, "∞"),
        (-math.inf, "−∞"), (math.nan, "not a number"), (0.0001, "0.0001"), (2e9, "2e9"),
    ],
)  # fmt: skip
def test_numbers_read_well(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_do_not_round_to_all_or_nothing() -> None:
    assert [share(part, 1000) for part in (0, 1, 10, 500, 999, 1000)] == [
        "0 %", "under 1 %", "1 %", "50 %", "over 99 %", "100 %",
    ]  # fmt: skip
    assert share(0, 0) == "0 %"


def test_words_fit_their_numbers() -> None:
    assert (count(1, "trial"), count(5000, "trial"), count(2, "branch", "branches")) == (
        "1 trial", "5,000 trials", "2 branches",
    )  # fmt: skip
    assert (listed("a"), listed("ab"), listed("abc"), listed("")) == ("a", "a and b", "a, b and c", "")
    assert (duration(0.42), duration(9.8), duration(9.97), duration(200)) == ("0.42 s", "9.8 s", "10 s", "3 min 20 s")
    assert (change(0.1234), change(-2.0), change(0.0)) == ("+0.12", "−2", "0")


def test_names_become_one_safe_line() -> None:
    assert plain("a\n\tb\u0000 \u202ec") == "a b c"
    assert plain("x" * 5000, 10) == "x" * 6 + "…" + "x" * 3
    assert plain("\n" * 200 + "late", 10) == "late"
    assert (plain(None), plain(5.0), plain(True)) == ("None", "5", "True")
    assert shown("<b>&$</b>") == "&lt;b&gt;&amp;&#36;&lt;/b&gt;"
    assert escape("a < b & c > d") == "a &lt; b &amp; c &gt; d"
