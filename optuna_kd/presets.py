"""Recipes by name: those that papers found."""

from __future__ import annotations

from optuna_kd.recipe import DistillerConfig, OpConfig, Options, Recipe, StudentConfig, TermConfig
from optuna_kd.registry import Registry

RECIPES: Registry[Recipe] = Registry("recipe")


def _uniads(
    transforms: tuple[str, str, str], distance: str, temperature: float, depths: tuple[int, int, int], width: float,
    family: str = "resnet",
) -> Recipe:  # fmt: skip
    knowledge = ("features", "embeddings", "logits")
    # Paper: the weights of these rows are not printed. Here: 1 each.
    terms = tuple(
        TermConfig(kind, OpConfig(distance), 1.0, (OpConfig(name),), temperature)  # type: ignore[arg-type]
        for kind, name in zip(knowledge, transforms, strict=True)
    )
    blocks = {f"depth_{stage}": depth for stage, depth in enumerate(depths, start=1)}
    return Recipe(DistillerConfig(terms), StudentConfig(family, Options({**blocks, "width": width})))


# UniADS, Table 2: what it found for each teacher. That the students of a wide teacher are wide is our reading.
RECIPES.add("uniads-resnet56", _uniads(("batchnorm", "scale_r2", "softmax_N"), "kl", 4, (7, 1, 3), 1.0))
RECIPES.add("uniads-resnet110", _uniads(("mask", "mask", "softmax_C"), "mse", 16, (7, 3, 5), 1.0))
RECIPES.add("uniads-wrn40-2", _uniads(("tanh", "scale_r1", "scale"), "correlation", 8, (3, 3, 5), 2.0, "wrn"))
RECIPES.add("uniads-resnet32x4", _uniads(("drop", "natt", "bmm"), "kl", 8, (7, 3, 5), 1.5))
