"""Every figure on every kind of study: it says something, it is valid JSON, and nothing in it is interpreted."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

import made_up
import plotly.graph_objects as go
import pytest
from optuna.study import Study

from optuna_kd.analysis import read_table
from optuna_kd.analysis.figures import CHARTS, Chart, draw_all

LARGEST = 300_000  # characters of JSON
OWN_MARK_UP = re.compile(r'</?b>|<br>|<span style="color:#[0-9A-F]{6}">|</span>|<extra></extra>')


def drawn(name: str, study: Study) -> Chart:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no division by zero, no overflow
        return CHARTS[name](read_table(study))


def texts_of(node: Any) -> Iterator[str]:
    """Give all strings of a figure."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from texts_of(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from texts_of(value)


def refuse(constant: str) -> float:
    raise ValueError(f"not JSON: {constant}")


@pytest.mark.parametrize("name", CHARTS)
def test_every_kind_of_study_has_its_figure(name: str, study: Study) -> None:
    chart = drawn(name, study)
    assert chart.name == name
    assert chart.title
    assert chart.summary.endswith(".")
    assert "\n" not in chart.title + chart.summary
    assert all(len(row) == len(chart.columns) for row in chart.rows)
    stored = chart.figure.to_json()
    json.loads(stored, parse_constant=refuse)
    assert len(stored) < LARGEST
    if chart.is_empty:
        # One line that says what is missing, and no axis around nothing.
        (line,) = chart.figure.layout.annotations
        assert not chart.figure.data
        assert line.text.replace("<br>", " ") == chart.summary
        assert chart.figure.layout.xaxis.visible is False


@pytest.mark.parametrize("name", CHARTS)
def test_nothing_that_a_study_says_is_interpreted(name: str) -> None:
    figure = drawn(name, made_up.nasty_names()).figure.to_dict()
    for text in texts_of(figure):
        assert len(text) < 1500
        assert "<" not in OWN_MARK_UP.sub("", text), text
        assert "<b>p" not in text
        assert "$" not in text  # would be LaTeX
        assert text.replace("\u00a0", " ").isprintable()
    for trace in figure["data"]:
        assert "script" not in str(trace.get("hovertemplate"))  # a name in a template could have fields of its own


def test_figures_of_strange_names_show_them() -> None:
    chart = drawn("front", made_up.nasty_names())
    assert "&lt;script&gt;2&lt;/script&gt;" in chart.figure.layout.xaxis.title.text
    assert "<script>2</script>" in chart.columns  # whoever writes it into HTML escapes it


@pytest.mark.parametrize("kind", ["numbers", "uniads", "nasty_names"])
def test_five_thousand_trials_are_thinned_with_a_note(kind: str) -> None:
    study = {"numbers": made_up.numbers, "uniads": made_up.uniads, "nasty_names": made_up.nasty_names}[kind](5000)
    table = read_table(study)
    started = time.process_time()
    charts = draw_all(table)
    assert time.process_time() - started < 60
    for chart in charts.values():
        assert len(chart.figure.to_json()) < LARGEST
        assert len(chart.rows) <= 100
    assert re.match(r"5\d\d of \d,\d{3} trials are drawn", charts["history"].notes[0])
    assert "others" in str(charts["parallel"].figure.layout.title.subtitle.text)


@pytest.mark.parametrize("name", CHARTS)
def test_figures_fit_a_phone(name: str) -> None:
    """No line above the drawing is longer than 360 pixels have room for; no width is set."""
    for kind in (made_up.auto_kd, made_up.uniads, made_up.numbers):
        figure = drawn(name, kind()).figure
        title, remarks = figure.layout.title.text, figure.layout.title.subtitle.text or ""
        for line, longest in [
            *((each, 38) for each in title.split("<br>")),
            *((each, 56) for each in remarks.split("<br>")),
        ]:
            plain = re.sub(r"<[^>]*>", "", line).replace("&nbsp;", " ").replace("&gt;", ">").replace("&lt;", "<")
            assert len(plain) <= longest, plain
        assert figure.layout.width is None
        assert isinstance(figure, go.Figure)


def test_figures_do_not_touch_the_study() -> None:
    study = made_up.uniads()
    before = [repr(trial) for trial in study.get_trials(deepcopy=False)]
    for name in CHARTS:
        drawn(name, study)
    assert [repr(trial) for trial in study.get_trials(deepcopy=False)] == before


def test_the_same_trials_give_the_same_figures() -> None:
    study = made_up.uniads()
    assert all(drawn(name, study).figure == drawn(name, study).figure for name in CHARTS)
