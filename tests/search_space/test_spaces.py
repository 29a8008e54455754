"""Search spaces: as large as the paper says, every recipe reachable, and one choice list for each name."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest

from optuna_kd.recipe import Recipe
from optuna_kd.registry import UnknownNameError
from optuna_kd.samplers import MCTSSampler
from optuna_kd.search_space import (
    SPACES,
    TEMPERATURES_SUPPLEMENT,
    AutoKDSpace,
    DeadCell,
    ExtendedSpace,
    FeatureOnlySpace,
    NaiveSpace,
    Space,
    create_space,
    space_from_dict,
)

# What a 2x2 map cannot teach (formulas, section 2.3), and a row of which nothing is left.
DEAD_2X2 = (DeadCell("local", "channel", "kl"), DeadCell("local", "channel", "l2"), DeadCell("local", "none", "gl2"))
NO_LOCAL_SAMPLE = tuple(DeadCell("local", "sample", distance) for distance in ("gl2", "kl", "l2"))
ONE_DISTANCE = (DeadCell("none", "none", "gl2"), DeadCell("none", "none", "kl"))
NO_LOCAL = tuple(
    DeadCell("local", inter, distance) for inter in ("sample", "channel", "none") for distance in ("gl2", "kl", "l2")
)


def label(space: Space) -> str:
    return f"{space.name}, {len(space.dead)} dead"


class Script:
    """Stands in for a trial: answers from a list of positions and records what was asked."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = list(positions)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        assert name not in self.params, f"{name} is asked twice in one trial"
        place = len(self.asked)
        self.asked.append((name, tuple(choices)))
        self.params[name] = choices[self.positions[place] if place < len(self.positions) else 0]
        return self.params[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1, step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if log:
            return float(self.suggest_categorical(name, [low, math.sqrt(low * high), high]))
        steps = round((high - low) / (step or (high - low)))
        return float(self.suggest_categorical(name, [low + place * (high - low) / steps for place in range(steps + 1)]))


def walk(space: Space) -> Iterator[tuple[Recipe, Script]]:
    """Visit every leaf of the tree once, in order."""
    positions: list[int] = []
    while True:
        script = Script(positions)
        recipe = space.suggest(script)
        yield recipe, script
        positions += [0] * (len(script.asked) - len(positions))
        while positions and positions[-1] + 1 == len(script.asked[len(positions) - 1][1]):
            positions.pop()
        if not positions:
            return
        positions[-1] += 1


def choice_lists(scripts: Iterator[tuple[Recipe, Script]]) -> dict[str, set[tuple[Any, ...]]]:
    lists: dict[str, set[tuple[Any, ...]]] = {}
    for _, script in scripts:
        for name, choices in script.asked:
            lists.setdefault(name, set()).add(choices)
    return lists


def draw(space: Space, count: int, seed: int = 0) -> Iterator[tuple[Recipe, Script]]:
    """Visit random leaves of a tree too large to walk."""
    rng = random.Random(seed)

    class Dice(Script):
        def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
            self.positions.append(rng.randrange(len(choices)))
            return super().suggest_categorical(name, choices)

    for _ in range(count):
        script = Dice([])
        yield space.suggest(script), script


def test_sizes_of_the_paper() -> None:
    assert create_space("auto-kd").size() == 27 * 3 * 2 * 4 * 4 * 4 == 10_368
    assert create_space("feature-only").size() == 27 * 3 * 4 == 324
    assert create_space("naive").size() == 7**3 * 4 * 4 * 2 * 4 * 4 == 175_616


@pytest.mark.parametrize(
    "space",
    [
        AutoKDSpace(),
        AutoKDSpace(temperatures=TEMPERATURES_SUPPLEMENT),
        AutoKDSpace(dead=DEAD_2X2),
        AutoKDSpace(dead=NO_LOCAL_SAMPLE),
        AutoKDSpace(dead=ONE_DISTANCE),
        AutoKDSpace(dead=NO_LOCAL + DEAD_2X2),
        FeatureOnlySpace(),
        FeatureOnlySpace(dead=DEAD_2X2),
    ],
    ids=label,
)
def test_every_leaf_is_one_recipe_and_comes_back(space: Space) -> None:
    recipes = set()
    lists: dict[str, set[tuple[Any, ...]]] = {}
    for index, (recipe, script) in enumerate(walk(space)):
        recipes.add(recipe)
        for name, choices in script.asked:
            lists.setdefault(name, set()).add(choices)
        if index % 7 == 0:  # both ways
            assert space.params(recipe) == script.params
            assert list(space.params(recipe)) == list(script.params)
            assert space.recipe(script.params) == recipe
    assert len(recipes) == index + 1 == space.size()
    assert {name: len(found) for name, found in lists.items() if len(found) > 1} == {}
    assert all(len(choices) > 1 for (choices,) in lists.values())  # a single choice is not asked


def test_every_point_of_table_1_is_reached() -> None:
    reached = {str(recipe) for recipe, _ in walk(AutoKDSpace())}
    chains = itertools.product(
        ("attention", "mask", ""), ("multiscale", "local", ""), ("sample", "channel", ""), ("gl2", "kl", "l2")
    )
    expected = {
        f"{'>'.join(filter(None, (g, i, r))) or 'none'}|{d}*{w} + {p}@{t}*{v}"
        for (g, i, r, d), w, p, v, t in itertools.product(
            list(chains), (1, 5, 25, 50), ("kl", "pearson"), (0.1, 0.5, 1, 5), (1, 2, 4, 8)
        )
    }
    assert reached == expected


@pytest.mark.parametrize("dead", [(), DEAD_2X2, NO_LOCAL_SAMPLE, ONE_DISTANCE, NO_LOCAL], ids=len)
def test_dead_cells_are_gone_and_nothing_else(dead: tuple[DeadCell, ...]) -> None:
    def cells(space: Space) -> set[tuple[str, str, str, str]]:
        values = [space.values_of(recipe) for recipe, _ in walk(space)]
        return {
            (v["global_transform"], v["intra_transform"], v["inter_transform"], v["feature_distance"]) for v in values
        }

    alive = cells(FeatureOnlySpace(dead=dead))
    gone = {(g, cell.intra, cell.inter, cell.distance) for g in ("attention", "mask", "none") for cell in dead}
    assert alive == cells(FeatureOnlySpace()) - gone
    assert AutoKDSpace(dead=dead).size() == 10_368 * (27 - len(dead)) // 27


def test_without_adds_cells_once() -> None:
    space = AutoKDSpace().without(DEAD_2X2[:2]).without(DEAD_2X2)
    assert space == AutoKDSpace(dead=tuple(sorted(DEAD_2X2)))
    assert str(DEAD_2X2[0]) == "local>channel|kl"


def test_the_size_of_the_extended_space_by_walking_its_parts() -> None:
    """Features, embeddings, logits and schedule do not depend on each other: their leaves multiply."""

    def leaves(first: str, last: str | None) -> int:
        """Walk one part of the tree while the parameters of the others stay at their first choice."""
        count, positions = 0, [0]
        while True:
            script = Gate(first, last, positions)
            space.suggest(script)
            count += 1
            positions = script.used
            while positions and positions[-1] + 1 == script.sizes[len(positions) - 1]:
                positions.pop()
            if not positions:
                return count
            positions[-1] += 1

    class Gate:
        def __init__(self, first: str, last: str | None, positions: list[int]) -> None:
            self.first, self.last, self.wanted = first, last, list(positions)
            self.open = False
            self.used: list[int] = []
            self.sizes: list[int] = []

        def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
            self.open = (self.open or name == self.first) and name != self.last
            if not self.open:
                return choices[0]
            place = len(self.used)
            self.used.append(self.wanted[place] if place < len(self.wanted) else 0)
            self.sizes.append(len(choices))
            return choices[self.used[-1]]

    for dead in ((), DEAD_2X2):
        space = ExtendedSpace(dead=dead)
        parts = ["global_transform", "embedding_distance", "logit_distance", "warmup", None]
        assert parts[0] is not None
        counts = [leaves(str(first), last) for first, last in itertools.pairwise(parts)]
        product = 1
        for count in counts:
            product *= count
        assert counts[1:] == [9, 4 * (5 + 4 + 3 + 5), 3 * 3 * 2 * 2]
        assert space.size() == product


@pytest.mark.parametrize("space", [ExtendedSpace(), ExtendedSpace(dead=DEAD_2X2), NaiveSpace()], ids=label)
def test_large_spaces_at_random_leaves(space: Space) -> None:
    leaves = list(draw(space, 2000))
    for recipe, script in leaves:
        assert space.recipe(script.params) == recipe
        assert Recipe.from_json(recipe.to_json()) == recipe
    # `none` at different places of a flat chain is one recipe: the naive space has many names for it.
    if not isinstance(space, NaiveSpace):
        assert all(space.params(recipe) == script.params for recipe, script in leaves)
    else:
        assert all(space.recipe(space.params(recipe)) == recipe for recipe, _ in leaves)
    lists = choice_lists(iter(leaves))
    assert all(len(found) == 1 for found in lists.values())
    plain = {name.partition("__")[0] for name in lists}
    assert plain == {name.partition("__")[0] for name in space.factors()}


def test_options_are_asked_only_in_their_branch() -> None:
    for _, script in draw(ExtendedSpace(), 2000, seed=1):
        names, value = set(script.params), script.params
        assert ("mask_kind" in names) == ("mask_ratio" in names) == (value["global_transform"] == "mask")
        has_kind = bool(names & {"attention_kind", "attention_kind__channels"})
        assert has_kind == (value["global_transform"] == "attention")
        assert ("channel_mode" in names) == (value["inter_transform"] == "channel")
        assert ("feature_temperature" in names) == (value["feature_distance"] == "kl")
        assert ("embedding_weight" in names) == (value["embedding_distance"] != "none")
        assert ("logit_normalisation" in names) == (value["logit_distance"] == "kl")
        normalisation = value.get("logit_normalisation", "none")
        assert ("temperature" in names) == (normalisation == "none")
        assert ("zscore_scale" in names) == (normalisation == "zscore")
        assert ("l2norm_scale" in names) == (normalisation == "l2norm")


@pytest.mark.parametrize("name", sorted(SPACES))
def test_parameters_are_asked_in_tree_order(name: str) -> None:
    space = create_space(name)
    order = list(dict.fromkeys(factor.partition("__")[0] for factor in space.factors()))
    if name == "auto-kd-extended":
        # The options of a chain follow it in the order of the chain; the list of factors has them at its end.
        order = [n for n in order if n not in ExtendedSpace.GRIDS]
    for _, script in draw(space, 200):
        asked = [n.partition("__")[0] for n in script.params if n.partition("__")[0] in order]
        assert asked == [n for n in order if n in asked]


def test_the_tree_order_of_the_paper() -> None:
    assert list(AutoKDSpace().factors()) == [
        "global_transform", "intra_transform", "inter_transform", "feature_distance", "feature_weight",
        "logit_distance", "logit_weight", "temperature",
    ]  # fmt: skip


def test_temperatures_of_the_supplement() -> None:
    space = create_space("auto-kd", temperatures=TEMPERATURES_SUPPLEMENT)
    assert {recipe.distiller.terms[1].temperature for recipe, _ in draw(space, 200)} == {1, 4, 8, 16}
    with pytest.raises(ValueError, match=r"not in the space 'auto-kd': temperature = 16.0 is not one of \[1, 2, 4, 8"):
        AutoKDSpace().params(Recipe.from_string("none|l2*5 + kl@16*1"))


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ("auto-kd", "none|l2*5"),
        ("auto-kd", "none|l2*5 + kl@4*2"),
        ("auto-kd", "none|l1*5 + kl@4*1"),
        ("auto-kd", "kl@4*1"),
        ("auto-kd", "channel>multiscale|l2*5 + kl@4*1"),
        ("auto-kd", "labels"),
        ("feature-only", "none|l2*5 + kl@4*1"),
        ("naive", "mask>mask>mask>mask|l2*5 + kl@4*1"),
        ("auto-kd", "none|l2*5 + kl@4*1 + kl@4*1"),
    ],
)
def test_recipes_of_other_spaces_are_refused(space: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"is not in the space '{space}'"):
        create_space(space).params(Recipe.from_string(text))


def test_a_dead_recipe_is_refused() -> None:
    recipe = Recipe.from_string("local>channel|kl*5 + kl@4*1")
    assert AutoKDSpace().params(recipe)["intra_transform"] == "local"
    with pytest.raises(ValueError, match="is not in the space"):
        AutoKDSpace(dead=DEAD_2X2).params(recipe)


@pytest.mark.parametrize(
    "space",
    [
        AutoKDSpace(),
        AutoKDSpace(dead=DEAD_2X2, temperatures=TEMPERATURES_SUPPLEMENT),
        FeatureOnlySpace(dead=DEAD_2X2),
        ExtendedSpace(dead=DEAD_2X2),
        NaiveSpace(),
    ],
    ids=label,
)
def test_spaces_travel_as_json(space: Space) -> None:
    import json

    assert space_from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_unknown_spaces() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown search space 'auto_kd'. Did you mean 'auto-kd'"):
        create_space("auto_kd")
    assert set(SPACES) == {"auto-kd", "auto-kd-extended", "feature-only", "naive", "uniads"}
    assert all(SPACES[name].description for name in SPACES)


def test_every_chain_of_the_base_space_builds() -> None:
    from optuna_kd.distillers import Distiller

    chains = {recipe.distiller.terms[0].transforms: recipe for recipe, _ in walk(FeatureOnlySpace())}
    cells = {(r.distiller.terms[0].transforms, r.distiller.terms[0].distance): r for r, _ in walk(FeatureOnlySpace())}
    assert (len(chains), len(cells)) == (27, 81)
    for recipe in cells.values():
        (term,) = Distiller(recipe.distiller, [(6, 4, 4)], [(8, 4, 4)]).terms
        assert term.name == "features"


def test_every_drawn_recipe_of_the_extended_space_builds_and_teaches() -> None:
    import torch

    from optuna_kd.distillers import Distiller
    from optuna_kd.models.knowledge import Knowledge

    generator = torch.Generator().manual_seed(0)
    known, taught = (
        Knowledge((torch.randn(8, 6, 4, 4, generator=generator).relu(),), torch.randn(8, 10, generator=generator))
        for _ in range(2)
    )
    for recipe, _ in draw(ExtendedSpace(), 100, seed=2):
        Distiller(recipe.distiller, [(6, 4, 4)], [(6, 4, 4)]).check_terms(known, taught)


@pytest.mark.parametrize("sampler", ["random", "tpe", "mcts"])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_optuna_takes_the_space(name: str, sampler: str, quiet_optuna: None) -> None:
    space = create_space(name).without(() if name == "naive" else DEAD_2X2)
    samplers = {
        "random": optuna.samplers.RandomSampler(seed=0),
        "tpe": optuna.samplers.TPESampler(seed=0),
        "mcts": MCTSSampler(seed=0),
    }
    study = optuna.create_study(sampler=samplers[sampler], direction="maximize")
    study.optimize(lambda trial: len(str(space.suggest(trial))) % 17, n_trials=200 if sampler != "tpe" else 60)
    distributions: dict[str, Any] = {}
    for trial in study.trials:
        assert space.params(space.recipe(trial.params))
        for parameter, distribution in trial.distributions.items():
            assert distributions.setdefault(parameter, distribution) == distribution
    # Optuna finds what all trials share: the first parameter of the tree is always there.
    assert next(iter(space.factors())) in optuna.search_space.intersection_search_space(study.trials)


def test_recipes_can_be_enqueued(quiet_optuna: None) -> None:
    space = AutoKDSpace(dead=DEAD_2X2)
    recipe = Recipe.from_string("mask>local>sample|gl2*25 + pearson@2*0.5")
    study = optuna.create_study()
    study.enqueue_trial(space.params(recipe))
    assert space.suggest(study.ask()) == recipe
