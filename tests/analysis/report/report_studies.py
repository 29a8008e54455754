"""Studies to report on."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import made_up
from made_cards import compared_card
from optuna.study import Study
from plotly.offline import get_plotlyjs

from optuna_kd.analysis import read_closing
from optuna_kd.analysis.figures.seeds import draw_seeds
from optuna_kd.analysis.report import Report, build_report
from optuna_kd.cards import RecipeCard
from optuna_kd.study import CARD, COMMAND, SAMPLER


def searched(card: RecipeCard | None = None, trials: int = 20, **attributes: Any) -> Study:
    """Give a finished search with its card."""
    study = made_up.auto_kd(trials)
    study.set_user_attr(CARD, (card or compared_card()).to_dict())
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    return study


OPTIONS = {
    "data": "digits", "teacher": None, "teacher_checkpoint": "my weights.pt", "student": None, "device": "cpu",
    "epochs": None, "seeds": None, "max_train": 400, "batch_size": None, "image_size": None, "seed": 3,
    "precision": "float32", "deterministic": True, "method": "auto-kd", "trials": 20, "space": None, "objectives": None,
    "max_params": None, "max_flops": None, "max_latency_ms": None, "budget_params": None, "screen": 0.0, "chain": None,
    "sampler": "tpe", "reward": "bounded", "temperatures": "1,4", "proxy_epochs": 2, "subset": 0.5,
    "subset_by": "images", "sparsity": 0.0, "narrow": 1.0, "proxy_batch": None, "knowledge": "auto",
    "knowledge_limit": "2GB", "knowledge_dir": None, "keep_knowledge": False, "confirm": "0", "runs": "elsewhere/runs",
}  # fmt: skip


def report_of(study: Study) -> Report:
    return build_report(study, storage="sqlite:///kd.db")


def judged(report: Report, card: RecipeCard) -> Report:
    """Put another card in the place of a report's; what does not follow from it stays."""
    closing = read_closing(card)
    return dataclasses.replace(report, closing=closing, seeds=draw_seeds(closing))


def with_command(study: Study) -> Study:
    study.set_user_attr(COMMAND, OPTIONS)
    study.set_user_attr(SAMPLER, OPTIONS["sampler"])
    return study


class Page(HTMLParser):
    """What a page says, and what it is made of.

    Args:
        html: The page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._silent = False
        self.feed(html.replace(get_plotlyjs(), ""))  # the parser would take seconds for it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]
