"""What a stranger wrote does nothing where it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_cards import facts, make_card
from markdown_it import MarkdownIt
from markdown_it.token import Token

from optuna_kd.cards import DataFacts, MethodResult, RecipeCard, printable
from optuna_kd.cards.showing import code, prose

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/p.png)",
    "http://evil.example",
    "www.evil.example",
    "me@evil.example",
    "`` ` ```",
    "a | b |",
    "# heading",
    "> quote",
    "- item",
    "1. item",
    "    indented",
    "a ~~struck~~ &#60;b&#62; $x$",
    "---",
    "```",
    "**bold** _it_ ~~no~~ &amp; \\",
    "line\n\n# of two\r<b>",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnp.exe",
    " ",
    "",
)


def tokens(markdown: str) -> list[Token]:
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    found = parser.parse(markdown)
    return found + [child for token in found for child in token.children or ()]


def text_of(markdown: str) -> str:
    return "".join(token.content for token in tokens(markdown) if token.type in ("text", "code_inline", "text_special"))


def hostile(text: str) -> RecipeCard:
    result = MethodResult(text, text, (0.5, 0.6), (0.5, 0.6))
    task = facts(teacher_name=text, student_name=text)
    data = DataFacts(text, 10, (1, 8, 8), 1, 2, 3)
    return make_card(
        study=text, verdict=text, method=text, result=result, controls=(result,), protocol={text: text, "b": [text]},
        versions={text: text}, task=type(task)(data, task.teacher, task.student),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_card_has_the_markup_of_a_harmless_one(text: str) -> None:
    harmless = [token.type for token in tokens(hostile("x" if text.strip() else text).to_markdown())]
    found = tokens(hostile(text).to_markdown())
    inert = ("text", "code_inline", "text_special")
    assert [token.type for token in found if token.type not in inert] == [
        kind for kind in harmless if kind not in inert
    ]
    assert not {"html_inline", "html_block", "link_open", "image"} & {token.type for token in found}


@given(st.text(min_size=1, max_size=60))
def test_prose_and_code_show_what_was_written(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()
    assert text_of("x" + prose(text)).split() == ("x" + shown).split()
    spans = [token.content for token in tokens("x " + code(text)) if token.type == "code_inline"]
    assert [span.strip() for span in spans] == [shown.strip()]


def test_links_are_not_made_of_names() -> None:
    assert prose("see http://evil.example and www.evil.example") == (
        "see http\\://evil\\.example and www\\.evil\\.example"
    )
    assert prose("Mailto:me@evil.example") == "Mailto\\:me\\@evil\\.example"
    assert prose("a+b@0.5") == "a+b\\@0.5"


def test_what_has_no_meaning_there_is_left_alone() -> None:
    text = "+1.32 points (p = 0.02): ~5 % & more! kl@4, a/b, x^2, -3, S&P, see http: nothing"
    assert prose(text) == text
    assert prose("&lt; a~b~ it!") == "\\&lt; a\\~b\\~ it\\!"


def test_white_space_is_a_plain_space() -> None:
    assert printable("of trial\u00a051,\n\tthe\u2028last") == "of trial 51,  the last"


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "-",
        "---",
        "+ a",
        "+",
        "1. a",
        "12)",
        "=",
        "===",
        "--:",
        ":--",
        "~~~",
        "# a",
        "> a",
        "    a",
        "\t- a",
        "  1. a",
    ],
)
def test_no_line_begins_a_block(text: str) -> None:
    found = tokens(f"{prose(text)}\n\nbefore\n{prose(text)}\n")
    assert {token.type for token in found if token.block} == {"paragraph_open", "inline", "paragraph_close"}


def test_texts_are_cut() -> None:
    assert len(printable("x" * 10_000)) == 500


def test_the_card_of_a_search_reads_well() -> None:
    lines = make_card().to_markdown().splitlines()
    assert lines[0] == "# Recipe card `auto-kd-digits-1`"
    assert "| searched recipe | 92.00 | 87.03 to 96.97 | 92.00 | 93.00 | 3 |" in lines
    assert "| tuned KD | 89.67 | 85.87 to 93.46 |  | 90.33 | 3 |" in lines  # of an older version
    assert "- searched recipe: `attention|kl*50 + pearson@8*5`" in lines
    assert "- teacher `resnet20`, 272,186 parameters, compared maps 64 x 4 x 4, 98.30 % on the validation data" in lines
    assert f"## Comparable: `{make_card().comparable}`" in lines
    assert lines[-1] == "Versions: python 3.11.7, optuna-kd 0.1.0"
