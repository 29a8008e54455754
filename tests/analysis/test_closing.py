"""Is it real? The verdict follows from the numbers of a card, and so do the warnings."""

from __future__ import annotations

import dataclasses

import pytest
from made_cards import compared_card, make_card

from optuna_kd.analysis import read_closing
from optuna_kd.cards import OUTCOMES, MethodResult, RecipeCard


def with_selected(card: RecipeCard, gain: float) -> RecipeCard:
    """Give each student an epoch that was chosen on validation data, the recipe's `gain` above the last one."""

    def chosen(result: MethodResult, gain: float) -> MethodResult:
        return dataclasses.replace(result, selected=tuple(value + gain for value in result.accuracies))

    controls = tuple(chosen(control, 0.001) for control in card.controls)
    return dataclasses.replace(card, result=chosen(card.result, gain), controls=controls)


def test_means_and_spreads_are_those_of_the_seeds() -> None:
    closing = read_closing(make_card())
    own, tuned = closing.standings
    assert (own.method, tuned.method) == ("searched recipe", "tuned KD")
    assert own.last.mean == pytest.approx(0.92)
    assert own.last.sd == pytest.approx(0.02)
    assert own.last.bounds == pytest.approx((0.92 - 4.3027 * 0.02 / 3**0.5, 0.92 + 4.3027 * 0.02 / 3**0.5), abs=1e-5)
    assert own.validation.mean == pytest.approx(0.93)
    assert own.selected is not None
    assert (own.selected.mean, own.selected.sd) == pytest.approx((0.92, 0.01))
    assert tuned.selected is None  # its card does not have them
    assert closing.seeds == 3


@pytest.mark.parametrize(
    ("gain", "seeds", "outcome", "said"),
    [
        (0.013, 10, "better", "beats tuned KD beyond noise"),
        (-0.013, 10, "worse", "is worse than tuned KD"),
        (0.0005, 10, "level", "does not beat tuned KD beyond noise"),
        (0.013, 1, "one seed", "with one seed: nothing can be said"),
    ],
)
def test_the_verdict_follows_from_the_numbers(gain: float, seeds: int, outcome: str, said: str) -> None:
    card = compared_card(gain, seeds, verdict="It is the best of all.", outcome="better")
    closing = read_closing(card)
    assert closing.outcome == outcome
    assert said in closing.verdict
    assert closing.outcome in OUTCOMES
    assert [found.other for found in closing.comparisons] == ["labels only", "plain KD", "tuned KD"]
    assert closing.tuned is not None
    assert closing.tuned.difference == pytest.approx(gain, abs=3e-3)


def test_the_same_recipe_as_tuned_kd_is_level() -> None:
    card = compared_card()
    same = MethodResult("searched recipe", card.controls[2].recipe, card.result.accuracies, card.result.validation)
    closing = read_closing(make_card(result=same, controls=card.controls))
    assert (closing.outcome, "the same recipe" in closing.verdict) == ("level", True)


def test_without_controls_nothing_is_compared() -> None:
    closing = read_closing(make_card(controls=(), outcome="better"))
    assert (closing.outcome, closing.comparisons, closing.tuned) == ("not compared", (), None)
    assert "was not compared" in closing.verdict
    assert not any("paired" in warning for warning in closing.warnings)


def test_other_numbers_of_seeds_do_not_pair() -> None:
    control = MethodResult("tuned KD", "kl@8*1", (0.9, 0.9), (0.9, 0.9))
    closing = read_closing(make_card(controls=(control,)))
    assert closing.comparisons == ()
    assert any("no paired test" in warning for warning in closing.warnings)


@pytest.mark.parametrize(("seeds", "warned"), [(1, "One seed is too few"), (4, "4 seeds are too few"), (5, None)])
def test_few_seeds_are_warned_of(seeds: int, warned: str | None) -> None:
    warnings = read_closing(compared_card(seeds=seeds)).warnings
    assert (warned is None and not warnings) or (warned is not None and warned in warnings[0])


def test_validation_accuracies_are_warned_of() -> None:
    (warning,) = read_closing(compared_card(part="validation")).warnings
    assert warning.startswith("There are no test data.")
    assert "optimistic" in warning


def test_the_epoch_chosen_on_validation_data_stands_beside_the_last_one() -> None:
    closing = read_closing(with_selected(compared_card(), 0.002))
    own = closing.standings[0]
    assert own.selected is not None
    assert own.selected.mean == pytest.approx(own.last.mean + 0.002)
    assert closing.by_selected[2].difference == pytest.approx(closing.comparisons[2].difference + 0.001)
    assert closing.warnings == ()


def test_a_verdict_that_depends_on_the_epoch_is_warned_of() -> None:
    (warning,) = read_closing(with_selected(compared_card(), -0.012)).warnings
    assert warning.startswith("The verdict depends on the epoch: after the last one the recipe is +1.3")
