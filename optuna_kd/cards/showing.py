"""Showing what a stranger wrote: in a terminal and in Markdown it is text, and does nothing."""

from __future__ import annotations

import re

LONGEST = 500  # characters that are shown of one text

# What is markup anywhere, the dollar of formulas among it; and what is only in some company: an entity, a striking
# through that ends, an image, links that readers make by themselves (http://, mailto:, www.x.y, a@b.c).
_SPECIAL = re.compile(
    r"([\\`*_{}\[\]<>#|$]|&(?=#?\w*(?:;|$))|(?<=\S)~|!$|:(?=//)|(?<=mailto):|(?<=xmpp):|\.(?=[A-Za-z])"
    r"|(?<=[\w.+-])@(?=[\w-]+\.))",
    re.IGNORECASE,
)
# What is markup where a line begins: lists, rules, headings by underlining, rows of tables, fences.
_BLOCK = re.compile(r"^( ?)([-+](?=[\s:-]|$)|[=~]|:(?=-))")
_NUMBERED = re.compile(r"^( ?\d{1,9})([.)])(?=\s|$)")


def printable(text: str) -> str:
    """Give a text as one line without characters that move a cursor or turn the direction of writing.

    All white space, line breaks among it, becomes a plain space.
    """
    shown = "".join(" " if each.isspace() else each if each.isprintable() else "�" for each in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def code(text: str) -> str:
    """Give a text as a code span of Markdown, in which nothing has a meaning.

    Not for tables, where a bar in it would end the cell.
    """
    shown = printable(text)
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if not shown or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{padding}{shown or ' '}{padding}{fence}"


def prose(text: str) -> str:
    """Give a text for a line of Markdown, with everything escaped that would be markup, HTML or a link."""
    shown = re.sub("^ +", " ", printable(text))  # four would begin a block of code
    return _NUMBERED.sub(r"\1\\\2", _BLOCK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", shown)))
