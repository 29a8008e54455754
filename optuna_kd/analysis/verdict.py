"""The verdict on a searched recipe: one sentence, for people who decide by it."""

from __future__ import annotations

from collections.abc import Mapping

from optuna_kd.analysis.statistics import Comparison

LABELS, PLAIN, TUNED, SEARCHED = "labels only", "plain KD", "tuned KD", "searched recipe"


def judge(comparisons: Mapping[str, Comparison], *, same_recipe: bool = False) -> str:
    """Say in one sentence whether the recipe beats tuned KD beyond noise, and what so many seeds can show."""
    if same_recipe:
        return "The search found nothing better than tuned KD: it ends with the same recipe."
    tuned = comparisons[TUNED]
    points = f"{100 * tuned.difference:+.2f} points"
    if tuned.n < 2:
        return f"The searched recipe is {points} from tuned KD, with one seed: nothing can be said about noise."
    found = f"{points}, p = {tuned.adjusted:.2g} in a paired t-test with Holm's correction"
    reach = (
        f"{tuned.n} seeds can show differences from {100 * tuned.detectable:.2f} points on"
        if tuned.detectable < 0.5
        else f"{tuned.n} seeds are too few to show a difference"
    )
    if tuned.significant and tuned.difference > 0:
        equal = [name for name in (PLAIN, LABELS) if not _better(comparisons[name])]
        others = f"but not {' or '.join(equal)}" if equal else f"and {PLAIN} and {LABELS} as well"
        return f"The searched recipe beats tuned KD beyond noise ({found}), {others}; {reach}."
    if tuned.significant:
        return f"The searched recipe is worse than tuned KD ({found}); {reach}. Use tuned KD."
    return f"The searched recipe does not beat tuned KD beyond noise ({found}); {reach}."


def outcome_of(tuned: Comparison, *, same_recipe: bool) -> str:
    """Say in a word what the comparison with tuned KD comes to; one of `optuna_kd.cards.OUTCOMES`."""
    if same_recipe:
        return "level"
    if tuned.n < 2:
        return "one seed"
    if not tuned.significant:
        return "level"
    return "better" if tuned.difference > 0 else "worse"


def _better(comparison: Comparison) -> bool:
    return comparison.significant and comparison.difference > 0
