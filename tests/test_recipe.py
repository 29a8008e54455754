"""Recipes: they travel unchanged, and whatever is no recipe is refused with a reason."""

from __future__ import annotations

import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optuna_kd.recipe import (
    DistillerConfig,
    OpConfig,
    Options,
    ProxyConfig,
    Recipe,
    RecipeError,
    StudentConfig,
    TermConfig,
    canonical,
)
from optuna_kd.search_space import create_space
from optuna_kd.search_space.auto_kd import AutoKDSpace

LINE = "attention>multiscale>channel|kl*5 + pearson@4*1"
FACTORS = AutoKDSpace().factors()

base_recipes = st.fixed_dictionaries({name: st.sampled_from(list(options)) for name, options in FACTORS.items()}).map(
    AutoKDSpace().recipe
)


def full_recipe() -> Recipe:
    """A recipe that uses every field."""
    return Recipe(
        DistillerConfig(
            (
                TermConfig("features", OpConfig("gl2", {"norm": "fro"}), 5, (OpConfig("mask", {"ratio": 0.3}),), 2, 0),
                TermConfig("embeddings", "renyi", 0.1),
                TermConfig("logits", "kl", 1, ("zscore",), 0.5),
            ),
            warmup=0.1,
            stop=0.5,
            teacher_batchnorm="train",
            normalise="initial",
        ),
        StudentConfig("resnet20", {"width": 0.5}),
    )


@settings(max_examples=200, deadline=None)
@given(base_recipes)
def test_base_recipes_survive_json_one_line_and_pickle(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json(indent=None)).digest == recipe.digest
    assert Recipe.from_string(recipe.to_string()) == recipe
    assert str(recipe) == recipe.to_string()
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert hash(Recipe.from_json(recipe.to_json())) == hash(recipe)


def test_a_recipe_with_every_field_survives_a_file(tmp_path: Path) -> None:
    recipe = full_recipe()
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert json.loads((tmp_path / "recipe.json").read_text())["version"] == 1


def test_what_one_line_cannot_say_is_still_shown_in_one() -> None:
    assert str(full_recipe()) == (
        "mask(ratio=0.3)|gl2(norm=fro)@2*5 + embeddings renyi*0.1 + zscore|kl@0.5*1 "
        "[warmup=0.1, stop=0.5, teacher_batchnorm=train, normalise=initial] -> resnet20(width=0.5)"
    )
    with pytest.raises(RecipeError, match="one-line form; use to_json"):
        full_recipe().to_string()


@pytest.mark.parametrize(
    "term",
    [
        TermConfig("features", "l2", layer=0),
        TermConfig("features", "kl", temperature=2),
        TermConfig("features", "l2", transforms=(OpConfig("mask", {"ratio": 0.5}),)),
        TermConfig("embeddings", "gl2"),
        TermConfig("logits", "kl", transforms=("zscore",)),
        TermConfig("logits", OpConfig("pearson", {"intra": False})),
    ],
)
def test_the_one_line_form_never_drops_a_field(term: TermConfig) -> None:
    with pytest.raises(RecipeError):
        Recipe(DistillerConfig((term,))).to_string()


def test_the_one_line_form_reads_as_documented() -> None:
    recipe = Recipe.from_string(LINE)
    features, logits = recipe.distiller.terms
    assert [op.name for op in features.transforms] == ["attention", "multiscale", "channel"]
    assert (features.knowledge, features.distance.name, features.weight) == ("features", "kl", 5.0)
    assert (logits.knowledge, logits.distance.name, logits.temperature, logits.weight) == ("logits", "pearson", 4.0, 1)
    assert Recipe.from_string("labels") == Recipe()
    assert str(Recipe()) == "labels"
    assert Recipe.from_string("none|l2*25").distiller.terms[0].transforms == ()
    assert str(Recipe.from_string("kl@4*0.1")) == "kl@4*0.1"
    assert Recipe.from_string("none>mask>none|l2*1") == Recipe.from_string("mask|l2*1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "attention",
        "attention|kl",
        "attention|kl*",
        "attention|kl*five",
        "attention|kl*-1",
        "attention|kl*nan",
        "kl@0*1",
        "kl@inf*1",
        "kl@4",
        "kl*4",
        "labels + kl@4*1",
        "none|l2*5 + ",
        "none|l2*5 kl@4*1",
        "|l2*5",
    ],
)
def test_a_line_that_is_no_recipe_is_refused_and_shown(text: str) -> None:
    with pytest.raises(RecipeError, match="Cannot read") as caught:
        Recipe.from_string(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("maps", "kl"), "Unknown knowledge 'maps'. Known: features, embeddings, logits"),
        (("logits", "kl", -1), "weight of a logits term must be a finite number >= 0; got -1"),
        (("logits", "kl", float("nan")), "weight of a logits term"),
        (("logits", "kl", float("inf")), "weight of a logits term"),
        (("logits", "kl", True), "weight of a logits term"),
        (("logits", "kl", "5"), "weight of a logits term must be a finite number >= 0; got '5'"),
        (("features", "kl", 1, (), 0), "temperature of a features term must be a finite number > 0; got 0"),
        (("features", "kl", 1, (), None), "temperature of a features term"),
        (("features", "kl", 1, (), 1, "last"), "layer of a features term is a whole number; got 'last'"),
    ],
)
def test_terms_out_of_range(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        TermConfig(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": 1}, r"warmup is a share of the training in \[0, 1\); got 1"),
        ({"warmup": -0.1}, "warmup"),
        ({"warmup": "long"}, "warmup"),
        ({"stop": 0}, r"stop is a share of the training in \(0, 1\]; got 0"),
        ({"stop": float("nan")}, "stop"),
        ({"stop": None}, "stop"),
        ({"teacher_batchnorm": "on"}, "teacher_batchnorm is 'eval' or 'train'; got 'on'"),
        ({"normalise": True}, "normalise is 'none' or 'initial'; got True"),
    ],
)
def test_schedules_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        DistillerConfig(**changes)


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """Give the JSON form of a recipe with one place changed."""
    data = json.loads(full_recipe().to_json())
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], 'needs "format": "optuna_kd.recipe"'),
        ({}, "This is not a recipe"),
        (changed("format", value="other"), "This is not a recipe"),
        (changed("version", value=2), "version 2; this optuna_kd reads version 1"),
        (changed("extra", value=1), r"got unknown \['extra'\]"),
        ({"format": "optuna_kd.recipe", "version": 1}, "needs the key 'distiller'"),
        (changed("distiller", value=None), "A DistillerConfig is a JSON object; got None"),
        (changed("distiller", "speed", value=1), r"unknown keys \['speed'\]; known: normalise, stop"),
        (changed("distiller", value={}), r"missing keys \['terms'\]"),
        (changed("distiller", "terms", value="all"), "terms of a recipe are a list; got 'all'"),
        (changed("distiller", "terms", value=3), "terms of a recipe are a list; got 3"),
        (changed("distiller", "terms", 0, value="kl"), "A TermConfig is a JSON object; got 'kl'"),
        (changed("distiller", "terms", 0, "tau", value=2), r"A TermConfig has unknown keys \['tau'\]"),
        (changed("distiller", "terms", 0, value={"knowledge": "logits"}), r"missing keys \['distance'\]"),
        (changed("distiller", "terms", 0, "distance", value=5), "An operation is a name or"),
        (changed("distiller", "terms", 0, "transforms", value="mask"), "transforms of a recipe are a list"),
        (changed("distiller", "terms", 0, "transforms", value=[{"ratio": 1}]), "An operation is a name or"),
        (changed("distiller", "terms", 0, "transforms", 0, "ratio", value=[1]), "Options are an object"),
        (changed("distiller", "terms", 0, "weight", value="5"), "weight of a features term"),
        (changed("student", value={"options": {}}), r"A StudentConfig has missing keys \['name'\]"),
        (changed("student", "name", value=20), "name of a student is a string; got 20"),
        (changed("student", "options", value=[1]), r"Options are an object of strings and numbers; got \[1\]"),
    ],
)
def test_json_that_is_no_recipe_is_refused(data: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(json.dumps(data))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"Cannot read the recipe .*missing.json"):
        Recipe.load(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(RecipeError, match=r"broken.json: This is not JSON"):
        Recipe.load(tmp_path / "broken.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="Cannot read the recipe"):
        Recipe.load(tmp_path / "binary.json")


def test_canonical_leaves_9600_of_10368_recipes() -> None:
    space = create_space("auto-kd")
    names, options = zip(*space.factors().items(), strict=True)
    recipes = {space.recipe(dict(zip(names, point, strict=True))) for point in itertools.product(*options)}
    assert len(recipes) == 10_368
    distinct = {canonical(recipe) for recipe in recipes}
    assert len(distinct) == 9_600
    assert all(canonical(recipe) == recipe for recipe in distinct)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local|l2*5 + kl@4*1", "none|l2*5 + kl@4*1"),
        ("mask>local|kl*5", "mask|kl*5"),
        ("local|gl2*5", "local|gl2*5"),  # a patch has its own Gram matrix
        ("local>sample|l2*5", "local>sample|l2*5"),
        ("local>channel|kl*5", "local>channel|kl*5"),
        ("multiscale|l2*5", "multiscale|l2*5"),
    ],
)
def test_canonical_by_hand(text: str, expected: str) -> None:
    assert str(canonical(Recipe.from_string(text))) == expected


def test_equivalent_recipes_have_equal_losses() -> None:
    torch = pytest.importorskip("torch")
    from optuna_kd.distillers import build_term

    student, teacher = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for text in ("local|l2*1", "local|kl*1", "attention>local|kl*1"):
        (term,) = Recipe.from_string(text).distiller.terms
        (same,) = canonical(Recipe.from_string(text)).distiller.terms
        torch.testing.assert_close(build_term(term)(student, teacher), build_term(same)(student, teacher))
        assert term != same


def test_digests_are_those_of_earlier_versions() -> None:
    # Digests name files and caches: they may change only together with the version of the format.
    assert Recipe().digest == "ae6f9f15c4ac"
    assert Recipe.from_string(LINE).digest == "970e5911565d"
    assert full_recipe().digest == "8f36b64e289f"


def test_options_are_frozen_hashable_and_unordered() -> None:
    options = Options({"b": 1}, a=2)
    assert options == {"a": 2, "b": 1}
    assert hash(options) == hash(Options(a=2, b=1))
    assert repr(options) == "Options(a=2, b=1)"
    with pytest.raises(TypeError):
        options["a"] = 3  # type: ignore[index]


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [(12, (3, 6, 12)), (1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (3, (1, 2, 3)), (240, (60, 120, 240))],
)
def test_default_rungs_double(epochs: int, rungs: tuple[int, ...]) -> None:
    assert ProxyConfig(epochs=epochs).rungs == rungs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "at least 1; got 0"),
        ({"epochs": 2.5}, "whole number of epochs, at least 1; got 2.5"),
        ({"epochs": 4, "rungs": (2, 3)}, r"rungs rise from >= 1 to the number of epochs \(4\); got \(2, 3\)"),
        ({"epochs": 4, "rungs": (2, 1, 4)}, "rungs rise"),
        ({"epochs": 4, "rungs": (2, 2, 4)}, "rungs rise"),
        ({"epochs": 4, "rungs": (0, 4)}, "rungs rise"),
        ({"subset": 0}, r"subset is a share in \(0, 1\]; got 0"),
        ({"subset": 1.5}, "subset"),
        ({"subset_by": "labels"}, "subset_by is 'images' or 'classes'; got 'labels'"),
        ({"batch_size": 0}, "batch_size of a proxy is a whole number >= 1, or None; got 0"),
        ({"batch_size": 8.0}, "batch_size of a proxy is a whole number >= 1, or None; got 8.0"),
        ({"batch_size": True}, "batch_size of a proxy is a whole number >= 1, or None; got True"),
    ],
)
def test_proxies_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProxyConfig(**arguments)
