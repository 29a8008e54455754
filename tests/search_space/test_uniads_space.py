"""The joint space of UniADS: 256 students, the operations that the distillers know, and every recipe comes back."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import pytest
import torch

from optuna_kd.distillers import UNIADS_DISTANCES, UNIADS_TRANSFORMS, Distiller, build_term
from optuna_kd.recipe import (
    DistillerConfig,
    OpConfig,
    Options,
    Recipe,
    StudentConfig,
    TermConfig,
    TrainingConfig,
    canonical,
)
from optuna_kd.search_space import DeadCell, StudentSpace, UniADSSpace, create_space, space_from_dict, uniads

KINDS = ("features", "embeddings", "logits")
TWO_WIDTHS = StudentSpace("wrn", {"depth_1": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "depth_3": 1})
SPACES = [
    UniADSSpace(),
    UniADSSpace(chain=2),
    UniADSSpace(chain=3, weights="grid"),
    UniADSSpace(student=TWO_WIDTHS, training=True),
    UniADSSpace(
        student=StudentSpace("mine", {"head": ("linear", "cosine"), "bias": (False, True)}), temperatures=(2, 3)
    ),
    UniADSSpace(student=None),
    UniADSSpace(distiller=False),
    UniADSSpace(dead=(DeadCell("features", "mask", "kl"), DeadCell("logits", "none", "row_pearson"))),
]


def student(name: str = "resnet", **options: Any) -> StudentConfig:
    return StudentConfig(name, Options({"depth_1": 1, "depth_2": 1, "depth_3": 1, "width": 1.0, **options}))


class Dice:
    """Stands in for the trials of one study: answers at random, and refuses a second range under one name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.params: dict[str, Any] = {}
        self.ranges: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._tell(name, list(choices), self.random.choice(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self._tell(name, (low, high, step), self.random.randrange(low, high + 1, step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            value = math.exp(self.random.uniform(math.log(low), math.log(high)))
        else:
            value = low + self.random.randrange(round((high - low) / step) + 1) * step
        return float(self._tell(name, (low, high, step, log), value))

    def _tell(self, name: str, values: Any, value: Any) -> Any:
        assert name not in self.params, f"{name} is asked twice in one trial"
        assert self.ranges.setdefault(name, values) == values, f"{name} has two ranges"
        self.params[name] = value
        return value


def draw(space: UniADSSpace, count: int, seed: int = 0) -> Iterator[tuple[Recipe, dict[str, Any]]]:
    """Draw recipes and their parameters at random."""
    dice = Dice(seed)
    for _ in range(count):
        dice.params = {}
        yield space.suggest(dice), dice.params


def ask(space: UniADSSpace, count: int, seed: int = 0) -> Iterator[tuple[Recipe, dict[str, Any]]]:
    """Draw as Optuna does."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(count):
        trial = study.ask()
        yield space.suggest(trial), trial.params


class Script:
    """Stands in for a trial of a space of choices and stepped numbers: answers from a list of positions."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions, self.sizes = list(positions), list[int]()

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        place = len(self.sizes)
        self.sizes.append(len(choices))
        return choices[self.positions[place] if place < len(self.positions) else 0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return int(self.suggest_categorical(name, range(low, high + 1, step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert step is not None, f"{name} cannot be enumerated"
        return float(self.suggest_categorical(name, [low + i * step for i in range(round((high - low) / step) + 1)]))


def walk(space: UniADSSpace) -> Iterator[Recipe]:
    """Visit every leaf of the tree once."""
    positions: list[int] = []
    while True:
        script = Script(positions)
        yield space.suggest(script)
        positions += [0] * (len(script.sizes) - len(positions))
        while positions and positions[-1] + 1 == script.sizes[len(positions) - 1]:
            positions.pop()
        if not positions:
            return
        positions[-1] += 1


@pytest.fixture(autouse=True)
def few_lines() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def test_there_are_256_students() -> None:
    space = StudentSpace()
    students = space.all()
    assert space.size() == len(students) == len(set(students)) == len(set(map(str, students))) == 256
    for depth in ("depth_1", "depth_2", "depth_3"):
        assert {student.options[depth] for student in students} == {1, 3, 5, 7}
    assert {student.options["width"] for student in students} == {0.5, 1, 1.5, 2}
    assert {student.name for student in students} == {"resnet"}
    assert [StudentConfig.from_dict(json.loads(json.dumps(s.to_dict()))) for s in students] == students


def test_the_operations_are_those_of_the_distillers() -> None:
    assert {kind: set(names) for kind, names in uniads.TRANSFORMS.items()} == {
        kind: set(names) for kind, names in UNIADS_TRANSFORMS.items()
    }
    assert all(len(set(names)) == len(names) for names in uniads.TRANSFORMS.values())
    assert uniads.DISTANCES == UNIADS_DISTANCES


def test_the_tree_order() -> None:
    assert list(UniADSSpace(chain=2, training=True).factors()) == [
        "depth_1", "depth_2", "depth_3", "width", "distance",
        "features_transform", "features_transform_2", "features_weight",
        "embeddings_transform", "embeddings_transform_2", "embeddings_weight",
        "logits_transform", "logits_transform_2", "logits_weight",
        "temperature", "batch_size", "lr",
    ]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_parameters_are_asked_in_tree_order_and_all_of_them_are_met(space: UniADSSpace) -> None:
    order, met = list(space.factors()), set()
    for _, params in draw(space, 150):
        asked = [name.partition("__")[0] for name in params]
        assert asked == [name for name in order if name in asked]
        met |= set(asked)
    assert met == set(order)


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_every_recipe_survives_json_and_its_parameters(space: UniADSSpace) -> None:
    recipes = set()
    for recipe, params in draw(space, 150, seed=1):
        recipes.add(recipe)
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert space.recipe(params) == recipe
        found = space.params(recipe)
        assert list(found) == list(params)  # the same questions, in the same order
        assert space.recipe(json.loads(json.dumps(found))) == recipe
        assert {name: value for name, value in found.items() if not isinstance(value, float)} == {
            name: params[name] for name, value in found.items() if not isinstance(value, float)
        }
    assert len(recipes) == 150 or not space.distiller


@pytest.mark.parametrize("space", SPACES, ids=range(len(SPACES)))
def test_a_space_comes_back_from_json(space: UniADSSpace) -> None:
    again = space_from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.size() == space.size()
    assert again.to_dict() == space.to_dict()


def test_spaces_that_are_equal_have_equal_hashes() -> None:
    first = StudentSpace("mine", {"a": (1, 2), "b": ("x", "y")})
    second = StudentSpace("mine", {"b": ("x", "y"), "a": (1, 2)})
    assert first != second or hash(first) == hash(second)


def reduce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few enough operations and weights to count what is left."""
    few = {
        "features": ("none", "relu", "softmax_C", "sample", "satt"),
        "embeddings": ("none", "softmax_N"),
        "logits": ("none", "bmm"),
    }
    for name, values in (("TRANSFORMS", few), ("DISTANCES", ("kl", "mse")), ("WEIGHTS", (1, 5))):
        monkeypatch.setattr(uniads, name, values)


def test_the_size_of_one_transform_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    reduce(monkeypatch)
    # Chains: 5 x 2 x 2, of which 4 x 1 x 2 have no softmax; weights 2³; kl always has a temperature.
    by_hand = 20 * 8 * 3 + (8 + 12 * 3) * 8
    assert UniADSSpace(student=None, temperatures=(1, 2, 4)).size() == by_hand
    assert UniADSSpace(student=TWO_WIDTHS, temperatures=(1, 2, 4)).size() == 4 * by_hand


@pytest.mark.parametrize(
    "options",
    [
        {"chain": 1},
        {"chain": 2},
        {"chain": 1, "student": TWO_WIDTHS},
        {"chain": 2, "dead": (DeadCell("features", "relu", "mse"), DeadCell("features", "none", "kl"))},
        {"chain": 1, "dead": tuple(DeadCell("logits", "bmm", distance) for distance in ("kl", "mse"))},
    ],
    ids=str,
)
def test_sizes_by_visiting_every_leaf(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    reduce(monkeypatch)
    space = UniADSSpace(**{"student": None, "weights": "grid", "temperatures": (1, 4), **options})
    recipes = list(walk(space))
    assert len(recipes) == len(set(recipes)) == space.size()


def test_sizes_of_the_parts() -> None:
    assert UniADSSpace(distiller=False).size() == 256
    assert len(set(walk(UniADSSpace(distiller=False)))) == 256
    assert UniADSSpace().size() == 256 * UniADSSpace(student=None).size()
    assert create_space("uniads") == UniADSSpace()


def test_dead_cells_are_gone_and_nothing_else() -> None:
    dead = (DeadCell("features", "mask", "kl"), DeadCell("logits", "none", "mse"))

    def cells(space: UniADSSpace) -> set[tuple[str, str, str]]:
        return {
            (term.knowledge, term.transforms[0].name if term.transforms else "none", term.distance.name)
            for recipe, _ in draw(space, 4000, seed=2)
            for term in recipe.distiller.terms
        }

    everything = {(kind, name, d) for kind in KINDS for name in uniads.TRANSFORMS[kind] for d in uniads.DISTANCES}
    assert cells(UniADSSpace(student=None)) == everything
    assert cells(UniADSSpace(student=None, dead=dead)) == everything - {
        ("features", "mask", "kl"),
        ("logits", "none", "mse"),
    }


def test_what_a_recipe_has() -> None:
    for recipe, params in draw(UniADSSpace(chain=3), 300, seed=3):
        terms = recipe.distiller.terms
        assert [term.knowledge for term in terms] == list(KINDS)
        assert {term.distance.name for term in terms} == {params["distance"]}
        assert len({term.temperature for term in terms}) == 1
        assert all(0.01 <= term.weight <= 100 and term.weight == float(f"{term.weight:.3g}") for term in terms)
        softens = any(op.name.startswith("softmax") for term in terms for op in term.transforms)
        assert ("temperature" in params) == (softens or params["distance"] == "kl")
        assert terms[0].temperature == params.get("temperature", 1)
        assert max(len(term.transforms) for term in terms) <= 3
        assert recipe.training is None


@pytest.mark.parametrize("knowledge", KINDS)
def test_every_chain_fits_its_knowledge(knowledge: Any) -> None:
    """Each step takes what the one before it gives; whether a map is large enough is another question."""
    space = UniADSSpace(student=None, chain=2)
    for distance in uniads.DISTANCES:
        chains = list(space._chains(knowledge, distance))
        assert len(set(chains)) == len(chains) > 200
        for chain in chains:
            build_term(TermConfig(knowledge, OpConfig(distance), 1.0, tuple(map(OpConfig, chain)), 4.0))


def test_recipes_of_long_chains_can_be_built() -> None:
    lengths = set()
    for recipe, _ in draw(UniADSSpace(student=None, chain=3), 80, seed=4):
        Distiller(recipe.distiller, [(6, 16, 16)], [(8, 16, 16)])  # raises InvalidChainError otherwise
        lengths |= {len(term.transforms) for term in recipe.distiller.terms}
    assert lengths == {0, 1, 2, 3}


def test_without_a_distiller_every_student_learns_by_plain_kd() -> None:
    recipes = [recipe for recipe, _ in draw(UniADSSpace(distiller=False), 20)]
    plain = Recipe.from_string("kl@4*1").distiller
    assert {recipe.distiller for recipe in recipes} == {plain}
    assert len({recipe.student for recipe in recipes}) > 10


def test_batch_size_and_learning_rate_are_searched_on_request() -> None:
    found = [recipe.training for recipe, _ in draw(UniADSSpace(training=True), 200)]
    assert {training.batch_size for training in found if training} == {32, 64, 128, 256}
    rates = [training.lr for training in found if training]
    assert len(rates) == 200
    assert 0.01 <= min(rates) < 0.015
    assert 0.2 < max(rates) <= 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": student(depth_1=2)}, "depth_1 = 2"),
        ({"student": student("wrn")}, "resnet"),
        ({"student": None}, "depth_1 = None"),
        ({"training": TrainingConfig(64, 0.1)}, "nearest there is"),
        ({"distiller": DistillerConfig()}, "distance = None"),
        (
            {"distiller": DistillerConfig(tuple(TermConfig(kind, "kl", 200, (), 4) for kind in KINDS))},  # type: ignore[arg-type]
            "features_weight = 200",
        ),
        (
            {"distiller": DistillerConfig(tuple(TermConfig(kind, "kl", 1, (), 5) for kind in KINDS))},  # type: ignore[arg-type]
            r"temperature = 5.0 is not one of \[1, 4, 8, 16\]",
        ),
        (
            {"distiller": DistillerConfig(tuple(TermConfig(kind, "kl", 1, ("exp", "exp"), 4) for kind in KINDS))},  # type: ignore[arg-type]
            "nearest there is",
        ),
    ],
)
def test_a_recipe_of_another_space_is_refused_with_the_value(change: dict[str, Any], message: str) -> None:
    recipe, _ = next(draw(UniADSSpace(), 1))
    parts = {"distiller": recipe.distiller, "student": recipe.student, **change}
    with pytest.raises(ValueError, match=rf"not in the space 'uniads'.*{message}"):
        UniADSSpace().params(Recipe(**parts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chain": 0}, "chain is the longest chain of transforms, 1 to 3; got 0"),
        ({"chain": 4}, "1 to 3; got 4"),
        ({"weights": "log"}, "weights is 'continuous' or 'grid'; got 'log'"),
        ({"student": None, "distiller": False}, "nothing is left"),
    ],
)
def test_wrong_spaces(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniADSSpace(**options)


@pytest.mark.parametrize(
    ("options", "fixed", "message"),
    [
        ({"depth": ()}, {}, r"'depth' needs different values, at least one; got \(\)"),
        ({"depth": (1, 2, 1)}, {}, "'depth' needs different values"),
        ({"depth": (1, 2)}, {"depth": 1, "width": 2}, r"\['depth'\] are both searched and fixed"),
    ],
)
def test_wrong_students(options: dict[str, Any], fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudentSpace("mine", options, fixed)


@pytest.mark.parametrize("name", ["distance", "features_transform", "temperature", "logits_weight"])
def test_an_option_with_the_name_of_a_distillers_parameter_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        UniADSSpace(student=StudentSpace("mine", {name: (1, 2)}))


@pytest.mark.parametrize(
    "values",
    [
        (1, 3, 5, 7), (8, 16, 24), (8, 16, 32), (5, 3, 1), (0.5, 1.0, 1.5, 2.0), (0.1, 0.2, 0.3, 0.4), (0.7, 0.8, 0.9),
        (1, 1.5, 2), (0.25, 1.0), ("a", "b"), (False, True), (None, 2), (3,),
    ],
    ids=str,
)  # fmt: skip
def test_every_value_of_an_option_is_reached_as_it_was_given(values: tuple[Any, ...]) -> None:
    students = StudentSpace("mine", {"option": values, "other": (1, 2)})
    space = UniADSSpace(student=students, distiller=False)
    found = {recipe.student for recipe, _ in ask(space, 60, seed=5)}
    assert found == set(students.all())
    assert {student.options["option"] for student in found if student} == set(values)
    for student in students.all():
        recipe = Recipe(Recipe.from_string("kl@4*1").distiller, student)
        assert space.recipe(space.params(recipe)) == recipe


def test_equal_students_of_a_space_have_one_name() -> None:
    space = UniADSSpace(student=StudentSpace("mine", {"width": (1, 1.5, 2)}), distiller=False)
    assert space.student is not None
    listed = {student: str(student) for student in space.student.all()}
    for recipe, _ in ask(space, 30):
        assert recipe.student is not None
        assert str(recipe.student) == listed[recipe.student]


def test_numbers_at_equal_distances_are_suggested_as_numbers() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    options: dict[str, tuple[Any, ...]] = {
        "depth": (1, 3, 5), "width": (0.5, 1.0, 1.5), "channels": (8, 16, 32), "head": ("a", "b"), "one": (7,),
    }  # fmt: skip
    trial = study.ask()
    found = StudentSpace("mine", options, {"bias": True}).suggest(trial)
    kinds = {name: type(distribution).__name__ for name, distribution in trial.distributions.items()}
    assert kinds == {
        "depth": "IntDistribution",
        "width": "FloatDistribution",
        "channels": "CategoricalDistribution",
        "head": "CategoricalDistribution",
    }
    assert (found.options["one"], found.options["bias"]) == (7, True)


def test_the_name_of_an_option_is_free() -> None:
    # Two underscores stand in the names of parameters at places of the tree; an option may have them, too.
    space = UniADSSpace(student=StudentSpace("mine", {"block__kind": ("basic", "wide")}), distiller=False)
    for recipe, params in ask(space, 5):
        assert space.params(recipe) == params


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        (("local",), (), "kl"),
        (("local",), (), "mse"),
        (("sample",), (), "l1"),
        (("norm_H", "local"), ("norm_H",), "kl"),
        (("local", "bmm"), ("bmm",), "kl"),
        (("local", "norm_H"), ("norm_H",), "kl"),
        (("local", "satt"), ("satt",), "kl"),
        (("local", "softmax_HW"), ("softmax_HW",), "kl"),
        (("local", "scale_r2"), ("scale_r2",), "kl"),
    ],
    ids=str,
)
def test_recipes_count_as_equal_only_if_they_train_alike(
    first: tuple[str, ...], second: tuple[str, ...], distance: str
) -> None:
    def term(chain: tuple[str, ...]) -> TermConfig:
        return TermConfig("features", OpConfig(distance), 1.0, tuple(map(OpConfig, chain)))

    generator = torch.Generator().manual_seed(0)
    learner, teacher = torch.randn(2, 8, 8, 4, 4, generator=generator)
    losses = [float(build_term(term(chain))(learner, teacher, generator)) for chain in (first, second)]
    one, other = (canonical(Recipe(DistillerConfig((term(chain),)))) for chain in (first, second))
    assert (one == other) == (losses[0] == pytest.approx(losses[1], rel=1e-5))
