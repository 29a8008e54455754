"""Plans in and out of range, and durations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from optuna_kd.runner.plan import Plan, parse_duration, parse_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": None}, "a number of trials or a budget"),
        ({"trials": -1}, "trials must be >= 1"),
        ({"budget": 0.0}, "budget must be > 0"),
        ({"budget": math.nan}, "budget must be > 0"),
        ({"confirm": (-1, 2)}, r"got \(-1, 2\)"),
        ({"confirm": (3, 0)}, r"got \(3, 0\)"),
        ({"epochs": 0}, "epochs must be >= 1; got 0"),
        ({"seeds": 0}, "seeds must be >= 1; got 0"),
        ({"workers": 0}, "workers must be >= 1; got 0"),
    ],
)
def test_a_plan_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**changes)


def test_plans_that_are_fine() -> None:
    assert Plan().trials == 60
    assert Plan(trials=None, budget=1.0).trials is None
    assert Plan(confirm=(0, 0)).confirm == (0, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("45s", 45),
        ("20m", 1200),
        ("20min", 1200),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("0.5h", 1800),
        (" 2m ", 120),
        ("1m30", 90),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "h", "-5m", "20 m x", "5d", "m20", "1m1h", "nan", "1e3", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="A duration reads like 20m, 1h30m or 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("64kB", 2**16),
        ("500MB", 500 * 2**20),
        ("1.5 GB", 3 * 2**29),
        ("2G", 2**31),
        ("1TB", 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 gigabytes", "1e9", "nan", "2PB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="A size reads like 500MB or 2GB"):
        parse_size(text)
