"""The rules of thumb of the papers, held against a study: supported, contradicted, open, or not tested.

A rule is supported or contradicted where the trials say so beyond noise, at 5 % for all rules tested together (Holm).
"Open" is a rule whose options the study did search and cannot tell apart: to call that "not tested" would hide that
somebody looked, and to call it "contradicted" would take missing evidence for evidence.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from optuna.study import Study

from optuna_kd.analysis.claims import Tested
from optuna_kd.analysis.evidence import Numbers
from optuna_kd.analysis.figures.fit import FEWEST
from optuna_kd.analysis.figures.wording import count
from optuna_kd.analysis.response import Response, response_of
from optuna_kd.analysis.rule_book import RULES, Rule
from optuna_kd.analysis.statistics import ALPHA, holm
from optuna_kd.analysis.table import Objective, TrialTable, read_table
from optuna_kd.goals import GOALS
from optuna_kd.study.settings import SETTINGS


class Status(enum.StrEnum):
    """What a study says of a rule; it is the word for people."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    OPEN = "open"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class RuleCheck:
    """One rule of thumb held against a study.

    Args:
        rule: What the paper says.
        source: Where.
        status: What the study says of it.
        evidence: What that rests on, in words and numbers; of a rule that is not tested, why, and what would test it.
        reading: As what it was checked.
        numbers: Those behind it.
    """

    rule: str
    source: str
    status: Status
    evidence: str
    reading: str
    numbers: Numbers = field(default_factory=Numbers)

    def __str__(self) -> str:
        return f"{self.status}: {self.rule} ({self.source}) {self.evidence}"


def check_rules(
    source: Study | TrialTable | Response, objective: int | str | None = None, *, seed: int = 0
) -> tuple[RuleCheck, ...]:
    """Hold the rules of thumb of Auto-KD and UniADS against a study.

    They are about how good students are, and about the parameters of our spaces: of another objective, and in other
    studies, none is tested.

    Args:
        source: A study, its table, or the response fitted to it (whose objective it is then about).
        objective: Place or name of the objective; None is the first that is about quality.
        seed: Of the random draws.

    Raises:
        ValueError: For an objective that the study does not have.

    Returns:
        All rules, in the order of the papers.

    Example:
        >>> for check in check_rules(optuna_kd.load_study("auto-kd-digits-...")):
        ...     print(check)
    """
    if isinstance(source, Study):
        source = read_table(source)
    if isinstance(source, TrialTable):
        column = _quality(source.objectives) if objective is None else source.place_of(objective)
        if reason := _reason_against(source, source.objectives[column]):
            return tuple(_untested(rule, reason) for rule in RULES)
        source = response_of(source, column, seed=seed)
    reason = _reason_against(source.table, source.objective)
    if not reason and len(source.values) < FEWEST:
        reason = f"{count(len(source.values), 'trial')} with a finite value: at least {FEWEST} are needed to compare."
    if reason:
        return tuple(_untested(rule, reason) for rule in RULES)
    found = [_test(rule, source) for rule in RULES]
    adjusted = holm({str(place): each.p_value for place, each in enumerate(found) if isinstance(each, Tested)})
    return tuple(
        _decided(rule, each, adjusted[str(place)])
        if isinstance(each, Tested)
        else _untested(rule, each, _aside(rule, source))
        for place, (rule, each) in enumerate(zip(RULES, found, strict=True))
    )


def _quality(objectives: tuple[Objective, ...]) -> int:
    return next((place for place, each in enumerate(objectives) if not _is_cost(each)), 0)


def _is_cost(objective: Objective) -> bool:
    return objective.name in GOALS and GOALS[objective.name].kind == "cost"


def _reason_against(table: TrialTable, objective: Objective) -> str:
    settings = table.attributes.get(SETTINGS)
    if not isinstance(settings, Mapping) or "space" not in settings:
        return "This study does not search a space of optuna_kd, so its parameters may mean something else."
    if _is_cost(objective):
        return f"The rules are about how good students are; {objective.name} is what they cost."
    return "" if len(table) else "No trial tells a value yet."


def _test(rule: Rule, response: Response) -> Tested | str:
    reasons = []
    for claim in rule.claims:
        found = claim.test(response)
        if isinstance(found, Tested):
            return found
        reasons.append(found)
    return reasons[0] if reasons else "No single study can test it."


def _decided(rule: Rule, tested: Tested, adjusted: float) -> RuleCheck:
    status = Status.OPEN
    if adjusted < ALPHA:
        status = Status.SUPPORTED if tested.holds else Status.CONTRADICTED
    return RuleCheck(rule.quote, rule.source, status, tested.text(adjusted), rule.reading, tested.numbers(adjusted))


def _aside(rule: Rule, response: Response) -> Tested | None:
    """Look at what the study says of the options of a rule that it cannot test."""
    found = rule.aside.test(response) if rule.aside is not None else None
    return found if isinstance(found, Tested) else None


def _untested(rule: Rule, reason: str, aside: Tested | None = None) -> RuleCheck:
    text, numbers = f"{reason} It would take {rule.needs}.", Numbers()
    if aside is not None:
        text, numbers = f"{text} Of this study alone: {aside.text(None)}", aside.numbers(None)
    return RuleCheck(rule.quote, rule.source, Status.NOT_TESTED, text, rule.reading, numbers)
