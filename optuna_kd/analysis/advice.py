"""What to do now, in sentences, each with its evidence: what to choose, what to avoid, what matters, what is unknown.

Only differences beyond noise become advice. The p-values of a parameter's options are corrected for each other (Holm)
and for the number of parameters (Bonferroni), so that in a study in which nothing matters one guidance in twenty, at
most, has any advice in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from optuna.distributions import CategoricalDistribution
from optuna.study import Study

from optuna_kd.analysis.branches import Condition
from optuna_kd.analysis.endings import Ending, bad_endings, finished_trials, options_tried
from optuna_kd.analysis.evidence import Measure, Numbers, measure_of, numbers_text, option_text, p_text
from optuna_kd.analysis.figures.fit import FEWEST
from optuna_kd.analysis.figures.wording import CHOICE, SENTENCE, count, listed, number, plain, share
from optuna_kd.analysis.importance import Importance, importances
from optuna_kd.analysis.options import Option, OptionComparison, compare_options
from optuna_kd.analysis.response import Response, response_of
from optuna_kd.analysis.statistics import ALPHA
from optuna_kd.analysis.table import TrialTable, read_table
from optuna_kd.analysis.telling import COMPARED, searched, telling

LITTLE = 0.05  # of the differences; a parameter that explains less hardly matters

_ADVICE = 5
_ENDINGS = 2
_NAMED = 3  # options in a sentence
_LISTED = 6  # parameters
_HARDLY = 2  # trials


@dataclass(frozen=True)
class Finding:
    """One thing that a study says.

    Args:
        sentence: In plain words; names are shortened, nothing is escaped.
        evidence: What it rests on, in words and numbers; empty where the sentence says it all.
        parameter: What it is about, as the study names it; empty where it is about several or none.
        numbers: Those behind it.
    """

    sentence: str
    evidence: str = ""
    parameter: str = ""
    numbers: Numbers = field(default_factory=Numbers)

    def __str__(self) -> str:
        return f"{self.sentence} ({self.evidence})" if self.evidence else self.sentence


def guidance(
    source: Study | TrialTable | Response, objective: int | str | None = None, *, seed: int = 0
) -> tuple[Finding, ...]:
    """Say what a study teaches, the most useful first: about ten findings at most, always at least one.

    Args:
        source: A study, its table, or the response fitted to it (whose objective it is then about).
        objective: Place or name of the objective; None is the first.
        seed: Of the random draws.

    Raises:
        ValueError: For an objective that the study does not have.

    Example:
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_categorical("x", [3, 1, 2]), n_trials=20)
        >>> print(guidance(study)[0].sentence)
        Use 1 as x: it lowers value by 1 against 2, the next best, all else being equal.
    """
    if isinstance(source, Study):
        source = read_table(source)
    if isinstance(source, TrialTable) and (obstacle := _without_trials(source)):
        return (Finding(obstacle),)
    response = response_of(source, 0 if objective is None else objective, seed=seed)
    ended = bad_endings(response.table)
    endings = [_ended(ending) for ending in ended[:_ENDINGS]]
    if obstacle := _obstacle(response):
        return (Finding(obstacle), *endings)
    ranked = searched(response.table, importances(response))
    little = [row for row in ranked if _hardly_matters(row, response)]
    rest = [row.parameter for row in ranked if row not in little]
    found = [compare_options(response, name) for name in rest[:COMPARED]]
    measure = measure_of(response.table, response.column)
    advice = [advised for each in found if (advised := _advise(each, measure, len(ranked), ended))]
    level = _level(telling(response, ranked))
    undecided = [each.parameter for each in found if each.parameter not in {finding.parameter for finding in advice}]
    if not level and not advice:  # of noise nobody can tell who has little of it
        undecided, little = [*undecided, *(row.parameter for row in little)], []
    return (
        *_all_pruned(response),
        *advice[:_ADVICE],
        *endings,
        *_most(level, undecided, measure),
        *(
            [Finding("No parameter can be told from noise yet.")]
            if not level and not advice and len(ranked) > 1
            else ()
        ),
        *_least(little),
        *_untried(response.table),
        *_unknown([name for name in undecided if name not in {row.parameter for row in level}], response),
        *_not_compared(rest[COMPARED:]),
    )


def _without_trials(table: TrialTable) -> str:
    if len(table):
        return ""
    if not table.others:
        return "This study has no trials yet: there is nothing to learn from."
    reasons = listed(f"{many:,} {reason}" for reason, many in sorted(table.left_out.items(), key=lambda each: -each[1]))
    return f"None of {count(len(table.others), 'trial')} tells a value ({reasons}): nothing can be said yet."


def _obstacle(response: Response) -> str:
    """Say why nothing can be compared; empty if something can."""
    known, table = len(response.values), response.table
    if known < FEWEST:
        return (
            f"{count(known, 'trial')} with parameters and a finite value: at least {FEWEST} are needed to compare, "
            "so nothing can be said yet."
        )
    if not response.worlds:
        value = number(float(table.values[response.space.rows[0], response.column]))
        name = measure_of(table, response.column).name
        return (
            f"All {known:,} trials are worth the same, a {name} of {value}: what they differ in has made no difference."
        )
    if all(len(groups) < 2 for groups in options_tried(finished_trials(table)).values()):
        return f"All {known:,} trials chose the same: what their values differ by is noise."
    return ""


def _all_pruned(response: Response) -> Iterator[Finding]:
    table = response.table
    if table.pruned.all():
        last = int(table.rungs.max())
        yield Finding(
            f"No trial ran to the end: what follows is about what they reported, up to step {last:,}.",
            f"{count(len(table), 'trial')} stopped before the end.",
        )


def _hardly_matters(row: Importance, response: Response) -> bool:
    """Whether it explains little wherever it exists, and nothing else depends on it: what a gate opens may matter."""
    column = response.space.slots.columns[row.parameter]
    return max(row.high, row.inside_high) < LITTLE and not response.space.gates[column].any()


def _advise(comparison: OptionComparison, measure: Measure, parameters: int, ended: Sequence[Ending]) -> Finding | None:
    """Advise for or against options of a parameter, if anything is beyond noise."""
    sure = [each for each in comparison.differences if parameters * each.adjusted < ALPHA]
    if not sure:
        return None
    best, *rest = comparison.options
    won = [each for each in sure if each.better is best]
    name, where = plain(comparison.parameter), _where(comparison.branch)
    if len(won) == len(rest):
        telling = min(won, key=lambda each: each.gap)
        against = f"{option_text(telling.worse)}{', the next best' if len(rest) > 1 else ''}"
        sentence = (
            f"Use {option_text(best)} as {name}{where}: it {measure.better(telling.gap)} against {against}, "
            f"all else being equal.{_at_the_end(comparison)}"
        )
    else:
        telling = min(sure, key=lambda each: (each.adjusted, -each.gap))
        beaten = [option for option in comparison.options if any(each.worse is option for each in sure)]
        hopeless = [ending.value for ending in ended if ending.parameter == comparison.parameter]
        open_ = [option for option in comparison.options if option not in beaten and option.value not in hopeless]
        undecided = f" Which of {listed(map(option_text, open_))} is best is open." if 1 < len(open_) <= _NAMED else ""
        worst = sorted(beaten, key=lambda option: option is not telling.worse)
        sentence = (
            f"Do not use {_some([option_text(option) for option in worst], 'or')} as {name}{where}: "
            f"{option_text(telling.better)} {measure.better(telling.gap)} against {option_text(telling.worse)}, "
            f"all else being equal.{undecided}"
        )
    numbers = Numbers(
        tuple((option_text(option), option.visits) for option in (telling.better, telling.worse)),
        telling.gap,
        telling.low,
        telling.high,
        min(1.0, parameters * telling.adjusted),
    )
    return Finding(sentence, numbers_text(measure, numbers), comparison.parameter, numbers)


def _at_the_end(comparison: OptionComparison) -> str:
    """Say that the best of several numbers is the lowest or the highest one."""
    numbers = [_ends(option) for option in comparison.options]
    if len(numbers) < 3 or None in numbers:
        return ""
    known = [ends for ends in numbers if ends is not None]
    if known[0][0] == min(low for low, _ in known):
        return " It is the lowest that was searched: lower ones may be better still."
    if known[0][1] == max(high for _, high in known):
        return " It is the highest that was searched: higher ones may be better still."
    return ""


def _ends(option: Option) -> tuple[float, float] | None:
    if option.low is not None and option.high is not None:
        return option.low, option.high
    is_number = isinstance(option.value, int | float) and not isinstance(option.value, bool)
    return (float(option.value), float(option.value)) if is_number else None


def _ended(ending: Ending) -> Finding:
    ways = (
        (ending.rejected, "rejected"),
        (ending.failed, "failed"),
        (ending.stopped, "stopped at a rung"),
        (ending.diverged, "with an infinite value"),
    )
    well = "ends with a finite value" if ending.diverged else "runs to the end"
    fates = listed(f"{many:,} {word}" for many, word in ways if many)
    reason = f", most of those rejected as {plain(ending.reason, SENTENCE)!r}" if ending.reason else ""
    hardly = "No trial" if ending.ended == ending.visits else "Hardly a trial"
    return Finding(
        f"{hardly} with {plain(ending.parameter)} = {plain(ending.value, CHOICE)} {well}: of "
        f"{ending.visits:,}, {fates}{reason}.",
        f"with other options {share(ending.others_ended, ending.others)} of {count(ending.others, 'trial')} did not, "
        f"adjusted p {p_text(ending.adjusted)}.",
        ending.parameter,
        Numbers(((plain(ending.value, CHOICE), ending.visits), ("others", ending.others)), adjusted=ending.adjusted),
    )


def _level(sure: Sequence[Importance]) -> list[Importance]:
    """Give the parameter that matters most, and others that may matter as much."""
    return [*sure[:1], *(row for row in sure[1:_NAMED] if row.high > sure[0].low)]


def _most(level: Sequence[Importance], undecided: Sequence[str], measure: Measure) -> Iterator[Finding]:
    if not level:
        return
    names = listed(plain(row.parameter) for row in level)
    verb = "What matters most is" if len(level) == 1 else "What matters most are"
    open_ = listed(plain(row.parameter) for row in level if row.parameter in undecided)
    best = f" Which option of {open_} is best is open, or depends on the other parameters." if open_ else ""
    yield Finding(
        f"{verb} {names}: tune {'it' if len(level) == 1 else 'these'} first.{best}",
        f"shares of the differences in {measure.name} that they explain: "
        f"{'; '.join(f'{plain(row.parameter)} {_interval(row)}' for row in level)}.",
        level[0].parameter if len(level) == 1 else "",
        Numbers(tuple((plain(row.parameter), row.visits) for row in level)),
    )


def _least(little: Sequence[Importance]) -> Iterator[Finding]:
    if not little:
        return
    yield Finding(
        f"It hardly matters what {_some([plain(row.parameter) for row in little], 'and', _LISTED)} "
        f"{'is' if len(little) == 1 else 'are'}: take what is cheapest.",
        f"at most {math.ceil(100 * max(row.inside_high for row in little))} % of the differences is explained by "
        f"{'it' if len(little) == 1 else 'any of them'}, also among the recipes that have it.",
        little[0].parameter if len(little) == 1 else "",
        Numbers(tuple((plain(row.parameter), row.visits) for row in little)),
    )


def _untried(table: TrialTable) -> Iterator[Finding]:
    """Name the options of categorical parameters that no trial, or hardly one, has tried."""
    tried, told = options_tried(finished_trials(table)), []
    visits: list[tuple[str, int]] = []
    for name, parameter in table.parameters.items():
        distribution = parameter.distributions[-1]
        if not isinstance(distribution, CategoricalDistribution):
            continue
        counted = [(plain(choice, CHOICE), len(tried[name].get(repr(choice), ()))) for choice in distribution.choices]
        few = sorted((each for each in counted if each[1] <= _HARDLY), key=lambda each: each[1])
        if few:
            options = [f"{option} ({('never', 'once', 'twice')[many]})" for option, many in few]
            told.append(f"{plain(name)} = {_some(options, 'and')}")
            visits += [(f"{plain(name)} = {option}", many) for option, many in few]
    if told:
        more = f"; and options of {count(len(told) - _NAMED, 'more parameter')}" if len(told) > _NAMED else ""
        yield Finding(
            f"Hardly tried, so little is known of them: {'; '.join(told[:_NAMED])}{more}.",
            f"at most {_HARDLY} of {count(len(finished_trials(table)), 'trial')} each.",
            numbers=Numbers(tuple(visits)),
        )


def _unknown(names: Sequence[str], response: Response) -> Iterator[Finding]:
    if names:
        yield Finding(
            f"Nothing can be said about the options of {_some([plain(name) for name in names], 'and', _LISTED)} yet: "
            "no difference between them is beyond noise.",
            f"{count(len(response.values), 'trial')}, pruned ones included.",
            names[0] if len(names) == 1 else "",
        )


def _not_compared(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        others = "another parameter, which explains" if len(names) == 1 else f"{len(names):,} others, which explain"
        yield Finding(
            f"The options of {COMPARED} parameters were compared, and not those of {others} less.",
            f"compare_options does so for one by its name: {_some([plain(name) for name in names], 'and')}.",
            names[0] if len(names) == 1 else "",
        )


def _where(branch: Sequence[Condition]) -> str:
    told = listed(_condition(condition) for condition in branch)
    return f" where {told}" if told else ""


def _condition(condition: Condition) -> str:
    if condition.options:
        return f"{plain(condition.parameter)} = {_some([plain(each, CHOICE) for each in condition.options], 'or')}"
    return f"{plain(condition.parameter)} is {condition.low:.4g} to {condition.high:.4g}"


def _some(names: Sequence[str], word: str, most: int = _NAMED) -> str:
    """Join names, the first ones of many: a, b or c; a, b, c and 9 more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]


def _interval(row: Importance) -> str:
    return f"{share(row.share, 1)} ({share(row.low, 1)} to {share(row.high, 1)})"
