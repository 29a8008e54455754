"""What the documentation takes from elsewhere while it is built, so that it cannot be out of date.

Pages that are written from the code, files that pages include or link to outside of docs/, examples of docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from optuna_kd.cli import app
from optuna_kd.distillers import DISTANCES, TRANSFORMS
from optuna_kd.distillers.operations import OperationInfo, OptionInfo

STAGES = {
    "global": "Transforms of the whole map (Auto-KD's first stage)",
    "intra": "Transforms within an image (Auto-KD's second stage)",
    "inter": "Transforms that say what is compared with what (Auto-KD's third stage)",
    "logit": "Transforms of logits",
    "any": "Transforms of UniADS, in any order",
}

ROOT = Path(__file__).resolve().parents[1]
INCLUDED = re.compile(r'^--8<-- "(?P<path>[^"]+)"$', re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the written pages, and the examples, to what is in the folder."""
    for name, content in (("formulas.md", write_formulas()), ("command_line.md", write_command_line())):
        files.append(File.generated(config, name, content=content))
    for example in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{example.name}", abs_src_path=str(example)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what a page includes, and let its links, which hold in the repository, hold in the site."""
    whole = INCLUDED.sub(lambda match: (ROOT / match["path"]).read_text(encoding="utf-8"), markdown)
    return whole.replace("](../docs/", "](").replace("](../examples/", "](examples/")


class Examples(griffe.Extension):
    """Reads `Example:` in a docstring as what griffe knows as `Examples:`; else it makes quotations of `>>>`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)


def write_formulas() -> str:
    """Describe every registered operation: formula, deviation from its paper, forms, options, source."""
    parts = [
        "# The formula of every operation",
        "A term of a recipe is a chain of transforms and a distance, `attention>channel|l2*5`: the transforms change "
        "what is compared, the distance compares it, 5 is its weight. Every operation promotes half precision, "
        "detaches the teacher, and averages so that its value does not grow with the batch. What follows is written "
        "from the code; the tests hold every operation to golden values of published implementations. f_S and f_T are "
        "the maps of student and teacher [N, C, H, W], z their logits [N, K], τ the temperature, σ the softmax.",
    ]
    transforms = [TRANSFORMS[name] for name in TRANSFORMS]
    for stage, title in STAGES.items():
        chosen = [info for info in transforms if info.stage == stage]
        if chosen:
            parts += [f"## {title}", *map(_operation, chosen)]
    parts += ["## Distances", *(_operation(DISTANCES[name]) for name in DISTANCES)]
    return "\n\n".join(parts) + "\n"


def _operation(info: OperationInfo) -> str:
    function: Any = getattr(info, "function")  # noqa: B009  (only the two kinds of operations have one)
    text = inspect.cleandoc(inspect.unwrap(function).__doc__ or info.description)
    text = re.split(r"\n(?:Args|Raises|Returns):\n", text)[0].strip()
    lines = [f"### `{info.name}`", text, f"*Takes* {_listed(info.takes)}. *Source:* {info.source}."]
    if info.options:
        lines.append("\n".join(f"- `{name}`: {_option(option)}" for name, option in info.options.items()))
    return "\n\n".join(lines)


def _option(option: OptionInfo) -> str:
    choices = f" One of {_listed(map(str, option.choices))}." if option.choices else ""
    return f"{option.description}; {option.default!r} unless the recipe says otherwise.{choices}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def write_command_line() -> str:
    """Describe all commands and options."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="optuna-kd")
    text: str = get_docs_for_click(obj=command, ctx=context, name="optuna-kd", title="Command line")
    return text
