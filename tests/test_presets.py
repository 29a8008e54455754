"""Recipes by name: the rows of UniADS's Table 2, which build and teach."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from optuna_kd.distillers import Distiller
from optuna_kd.models import Knowledge, count_parameters, create_student, student_name
from optuna_kd.presets import RECIPES
from optuna_kd.recipe import DistillerConfig, Recipe
from optuna_kd.registry import UnknownNameError
from optuna_kd.search_space import StudentSpace, UniADSSpace

# Teacher: transforms of features, embeddings and logits, distance, τ, blocks, width, network; parameters by hand for
# 100 classes.
TABLE_2 = {
    "uniads-resnet56": (("batchnorm", "scale_r2", "softmax_N"), "kl", 4, (7, 1, 3), 1, "resnet7-1-3", 259_892),
    "uniads-resnet110": (("mask", "mask", "softmax_C"), "mse", 16, (7, 3, 5), 1, "resnet7-3-5", 444_980),
    "uniads-wrn40-2": (("tanh", "scale_r1", "scale"), "correlation", 8, (3, 3, 5), 2, "wrn_3-3-5_2", 1_682_100),
    "uniads-resnet32x4": (("drop", "natt", "bmm"), "kl", 8, (7, 3, 5), 1.5, "resnet7-3-5x1.5", 994_204),
}


def test_the_rows_of_the_paper_are_there() -> None:
    assert list(RECIPES) == list(TABLE_2)


@pytest.mark.parametrize("name", TABLE_2)
def test_a_row_of_table_2(name: str) -> None:
    transforms, distance, temperature, depths, width, network, parameters = TABLE_2[name]
    recipe = RECIPES[name]
    terms = recipe.distiller.terms
    assert [term.knowledge for term in terms] == ["features", "embeddings", "logits"]
    assert [[op.name for op in term.transforms] for term in terms] == [[transform] for transform in transforms]
    assert {(term.distance.name, term.temperature, term.weight) for term in terms} == {(distance, temperature, 1)}
    student = recipe.student
    assert student is not None
    assert tuple(student.options[f"depth_{stage}"] for stage in (1, 2, 3)) == depths
    assert (student.options["width"], student_name(student)) == (width, network)
    assert count_parameters(create_student(student, num_classes=100)) == parameters


@pytest.mark.parametrize("name", TABLE_2)
def test_a_named_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).digest == recipe.digest
    assert json.loads(recipe.to_json())["student"]["name"] in ("resnet", "wrn")


@pytest.mark.parametrize("name", TABLE_2)
def test_a_named_recipe_is_in_the_space_of_its_family(name: str) -> None:
    recipe = RECIPES[name]
    if name == "uniads-wrn40-2":  # the space asks for no τ where none is used: by correlation without a softmax
        terms = tuple(replace(term, temperature=1.0) for term in recipe.distiller.terms)
        recipe = replace(recipe, distiller=DistillerConfig(terms))
    space = UniADSSpace(student=StudentSpace(str(recipe.student).partition("(")[0]))
    assert space.recipe(space.params(recipe)) == recipe


@pytest.mark.parametrize("name", TABLE_2)
def test_the_terms_of_a_named_recipe_teach(name: str) -> None:
    random = torch.Generator().manual_seed(0)

    def knowledge(channels: int) -> Knowledge:
        maps, logits = torch.randn(8, channels, 4, 4, generator=random), torch.randn(8, 10, generator=random)
        return Knowledge((maps.requires_grad_(),), logits.requires_grad_())

    student, teacher = knowledge(6), knowledge(8)
    with torch.random.fork_rng(devices=[]):
        distiller = Distiller(RECIPES[name].distiller, [(6, 4, 4)], [(8, 4, 4)], seed=0)
        losses = distiller(student, teacher, torch.zeros(8, dtype=torch.long))
        torch.stack(list(losses.values())).sum().backward()
    assert len(losses) == 4
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())
    for given in (student.features[0], student.logits):
        assert given.grad is not None
        assert 0 < given.grad.norm() < 1e4
    assert teacher.logits.grad is None


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown recipe 'uniads-resnet65'. Did you mean 'uniads-resnet56'"):
        RECIPES["uniads-resnet65"]
