"""Is it real? What a recipe card brings for and against its recipe, computed again from its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from optuna_kd.analysis.statistics import Comparison, compare
from optuna_kd.analysis.verdict import LABELS, PLAIN, TUNED, judge, outcome_of
from optuna_kd.cards import MethodResult, RecipeCard, interval

FEW = 5  # seeds: with less, only differences far above those of published methods can show


@dataclass(frozen=True)
class Spread:
    """Accuracies of one method over its seeds.

    Args:
        values: One for each seed, in [0, 1].
    """

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Their standard deviation; None for one seed."""
        return stdev(self.values) if self.n > 1 else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Ends of the 95 % t interval of the mean; see `optuna_kd.cards.interval`."""
        return interval(self.values)


@dataclass(frozen=True)
class Standing:
    """One method in the closing comparison.

    Args:
        method: Its name.
        recipe: What it trained with, in one line.
        last: Accuracies after the last epoch; these decide.
        selected: Of the same students, those of the epoch with the best validation accuracy; None where the card does
            not have them, as without test data.
        validation: After the last epoch, on the data that chose.
    """

    method: str
    recipe: str
    last: Spread
    selected: Spread | None
    validation: Spread


@dataclass(frozen=True)
class Closing:
    """What there is for and against a recipe.

    Args:
        standings: The recipe first, then its controls.
        comparisons: The recipe against each control, over the same seeds; empty where they do not pair.
        by_selected: The same with the validation-selected accuracies; empty where they are not known.
        outcome: One of `optuna_kd.cards.OUTCOMES`.
        verdict: One sentence.
        warnings: What keeps it from being more than it is, one sentence each.
        part: Which data the accuracies are of, "test" or "validation".
        comparable: Twelve digits that say which results may be compared.
        protocol: What they stand for.
        date: When the card was written.
    """

    standings: tuple[Standing, ...]
    comparisons: tuple[Comparison, ...]
    by_selected: tuple[Comparison, ...]
    outcome: str
    verdict: str
    warnings: tuple[str, ...]
    part: str
    comparable: str
    protocol: Mapping[str, Any]
    date: str

    @property
    def seeds(self) -> int:
        """How many students of the recipe were trained."""
        return self.standings[0].last.n

    @property
    def tuned(self) -> Comparison | None:
        """The comparison that the verdict is about."""
        return next((found for found in self.comparisons if found.other == TUNED), None)


def read_closing(card: RecipeCard) -> Closing:
    """Weigh what a card says. Its sentences are not taken over: verdict and outcome follow from its numbers."""
    results = (card.result, *card.controls)
    last = _compare([result.accuracies for result in results], results)
    selected = _compare([result.selected for result in results], results)
    outcome, verdict = _verdict(card, last)
    return Closing(
        standings=tuple(map(_standing, results)),
        comparisons=tuple(last.values()),
        by_selected=tuple(selected.values()),
        outcome=outcome,
        verdict=verdict,
        warnings=tuple(_warnings(card, last, selected)),
        part=card.part,
        comparable=card.comparable,
        protocol=card.protocol,
        date=card.date,
    )


def _standing(result: MethodResult) -> Standing:
    selected = Spread(result.selected) if result.selected else None
    return Standing(result.method, result.recipe, Spread(result.accuracies), selected, Spread(result.validation))


def _compare(values: Sequence[Sequence[float]], results: Sequence[MethodResult]) -> dict[str, Comparison]:
    own, *others = values
    if not own or not others or any(len(other) != len(own) for other in others):
        return {}
    return compare(own, {result.method: other for result, other in zip(results[1:], others, strict=True)})


def _verdict(card: RecipeCard, comparisons: Mapping[str, Comparison]) -> tuple[str, str]:
    if not {LABELS, PLAIN, TUNED} <= set(comparisons):
        return (
            "not compared",
            "The recipe was not compared with tuned KD, plain KD and labels only, all over the same seeds.",
        )
    tuned = next(control for control in card.controls if control.method == TUNED)
    same = tuned.recipe == card.result.recipe
    return outcome_of(comparisons[TUNED], same_recipe=same), judge(comparisons, same_recipe=same)


def _warnings(card: RecipeCard, last: Mapping[str, Comparison], selected: Mapping[str, Comparison]) -> list[str]:
    said = []
    n = len(card.result.accuracies)
    if n < FEW:
        number = "One seed is" if n == 1 else f"{n} seeds are"
        said.append(
            f"{number} too few to trust a difference of the size that published methods bring. "
            f"Run the search again with --seeds {FEW} or more; what is trained already is kept."
        )
    if card.part == "validation":
        said.append(
            "There are no test data. All accuracies are of the validation data, which chose the recipe, the controls "
            "and the student as well: all of them are optimistic, and that of the searched recipe most."
        )
    if not last and card.controls:
        said.append("Recipe and controls were trained with different numbers of seeds, so no paired test is possible.")
    if TUNED in last and TUNED in selected:
        said += _disagreement(last[TUNED], selected[TUNED])
    return said


def _disagreement(last: Comparison, selected: Comparison) -> list[str]:
    """Say where the verdict hangs on which epoch is read."""
    ends = [outcome_of(found, same_recipe=False) for found in (last, selected)]
    if ends[0] == ends[1]:
        return []
    return [
        f"The verdict depends on the epoch: after the last one the recipe is {100 * last.difference:+.2f} points from "
        f"tuned KD (p = {last.adjusted:.2g}), at the one chosen on validation data {100 * selected.difference:+.2f} "
        f"(p = {selected.adjusted:.2g})."
    ]
