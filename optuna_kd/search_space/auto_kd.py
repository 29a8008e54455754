"""The spaces of Auto-KD: Table 1, its features alone, its extension, and the naive one of Table 8."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from optuna_kd.recipe import DistillerConfig, OpConfig, Options, Recipe, TermConfig
from optuna_kd.search_space.base import SPACES, DeadCell, Space, Suggests, choose

GLOBAL = ("attention", "mask", "none")
INTRA = ("multiscale", "local", "none")
INTER = ("sample", "channel", "none")
FEATURE_DISTANCES = ("gl2", "kl", "l2")
LOGIT_DISTANCES = ("kl", "pearson")
FEATURE_WEIGHTS = (1, 5, 25, 50)
LOGIT_WEIGHTS = (0.1, 0.5, 1, 5)
TEMPERATURES_PAPER = (1, 2, 4, 8)
TEMPERATURES_SUPPLEMENT = (1, 4, 8, 16)
TWO_CLASSES = DeadCell("logits", "zscore", "kl")  # two standardised logits are always the same two numbers


@dataclass(frozen=True)
class AutoKDSpace(Space):
    """Table 1 of Auto-KD: 27 transforms, 3 + 2 distances, weights and temperature, in tree order.

    10,368 recipes, of which 9,600 train differently (`optuna_kd.recipe.canonical`).

    Args:
        dead: Cells that are left out, because they cannot teach on the maps of the task.
        temperatures: τ of the logit distance. The paper's Table 1 says 1, 2, 4, 8, its supplement
            1, 4, 8, 16 (`TEMPERATURES_SUPPLEMENT`).
    """

    name: ClassVar[str] = "auto-kd"
    description: ClassVar[str] = "the paper's Table 1: feature transforms, distances, weights and logits"

    temperatures: tuple[int, ...] = TEMPERATURES_PAPER

    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give the eight factors in tree order."""
        return {
            **_feature_factors(),
            "logit_distance": LOGIT_DISTANCES,
            "logit_weight": LOGIT_WEIGHTS,
            "temperature": self.temperatures,
        }

    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest features first, then logits."""
        features = _suggest_features(trial, self)
        distance = choose(trial, "logit_distance", LOGIT_DISTANCES)
        weight = choose(trial, "logit_weight", LOGIT_WEIGHTS)
        temperature = choose(trial, "temperature", self.temperatures)
        logits = TermConfig("logits", OpConfig(distance), weight, temperature=temperature)
        return Recipe(DistillerConfig((features, logits)))

    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Read the factors off the terms."""
        values = _feature_values(recipe)
        for term in recipe.distiller.terms:
            if term.knowledge == "logits":
                values |= {
                    "logit_distance": term.distance.name,
                    "logit_weight": term.weight,
                    "temperature": term.temperature,
                }
        return values

    def size(self) -> int:
        """Count the recipes: feature recipes times logit recipes."""
        return _count_features(self) * math.prod(map(len, (LOGIT_DISTANCES, LOGIT_WEIGHTS, self.temperatures)))

    def to_dict(self) -> dict[str, Any]:
        """JSON form, stored with the study."""
        return {**super().to_dict(), "temperatures": list(self.temperatures)}


@dataclass(frozen=True)
class FeatureOnlySpace(Space):
    """The paper's Auto-KD_f: feature terms alone, 324 recipes."""

    name: ClassVar[str] = "feature-only"
    description: ClassVar[str] = "the paper's Auto-KD_f: feature maps alone, no logits"

    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give the five factors in tree order."""
        return _feature_factors()

    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest one feature term."""
        return Recipe(DistillerConfig((_suggest_features(trial, self),)))

    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Read the factors off the feature term."""
        return _feature_values(recipe)

    def size(self) -> int:
        """Count the recipes."""
        return _count_features(self)


@dataclass(frozen=True)
class ExtendedSpace(Space):
    """Table 1 with the paper's extensions, each a branch of its own.

    Adds: the kind and ratio of masks, the kind of attention, channel rows over the batch, a feature
    temperature, G-L2 or Rényi entropy on embeddings, normalised logits with a scale, warm-up and early
    stop of the weights, batch statistics in the teacher, and scaling to a unit gradient at the first step.
    The paper names the extensions without their values: the grids are those of the methods they come from.
    """

    name: ClassVar[str] = "auto-kd-extended"
    description: ClassVar[str] = "Table 1 plus embeddings, normalised logits, schedules, ratios, temperatures"

    GRIDS: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "attention_kind": ("spatial", "channel", "map"),
        "attention_kind__channels": ("spatial", "channel"),
        "mask_kind": ("spatial", "channel"),
        "mask_ratio": (0.15, 0.3, 0.5, 0.75),
        "channel_mode": ("instance", "batch"),
        "feature_temperature": (1, 2, 4),
        "embedding_distance": ("none", "gl2", "renyi"),
        "embedding_weight": (0.1, 0.5, 1, 5),
        "logit_normalisation": ("none", "zscore", "l2norm"),
        "temperature": (1, 2, 4, 8, 16),
        "zscore_scale": (0.25, 0.5, 1, 2),
        "l2norm_scale": (4, 8, 16),
        "warmup": (0.0, 0.05, 0.1),
        "stop": (0.5, 0.75, 1.0),
        "teacher_batchnorm": ("eval", "train"),
        "normalise": ("none", "initial"),
    }

    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give all factors; those of the extension are asked only in their branch."""
        return {
            **_feature_factors(),
            "logit_distance": LOGIT_DISTANCES,
            "logit_weight": LOGIT_WEIGHTS,
            **self.GRIDS,
        }

    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest features, embeddings, logits, then the schedule."""

        def pick(name: str) -> Any:
            return trial.suggest_categorical(name, list(self.GRIDS[name]))

        terms = [_extend_features(_suggest_features(trial, self), pick)]
        embedding = pick("embedding_distance")
        if embedding != "none":
            terms.append(TermConfig("embeddings", OpConfig(embedding), pick("embedding_weight")))
        distance = choose(trial, "logit_distance", LOGIT_DISTANCES)
        weight = choose(trial, "logit_weight", LOGIT_WEIGHTS)
        normalisation = "none"
        if distance == "kl":
            allowed = [n for n in self.GRIDS["logit_normalisation"] if n != "zscore" or TWO_CLASSES not in self.dead]
            normalisation = choose(
                trial, "logit_normalisation", self.GRIDS["logit_normalisation"], allowed=allowed, where="two_classes"
            )
        # A scale s on normalised logits is a temperature 1/s.
        temperature = pick("temperature") if normalisation == "none" else 1 / pick(f"{normalisation}_scale")
        terms.append(TermConfig("logits", OpConfig(distance), weight, (OpConfig(normalisation),), temperature))
        return Recipe(
            DistillerConfig(
                tuple(terms),
                warmup=pick("warmup"),
                stop=pick("stop"),
                teacher_batchnorm=pick("teacher_batchnorm"),
                normalise=pick("normalise"),
            )
        )

    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Read the factors off the terms and the schedule."""
        config = recipe.distiller
        values = _feature_values(recipe) | {
            "embedding_distance": "none",
            "warmup": config.warmup,
            "stop": config.stop,
            "teacher_batchnorm": config.teacher_batchnorm,
            "normalise": config.normalise,
        }
        for term in config.terms:
            if term.knowledge == "features":
                values |= _extended_feature_values(term)
            elif term.knowledge == "embeddings":
                values |= {"embedding_distance": term.distance.name, "embedding_weight": term.weight}
            else:
                normalisation = term.transforms[0].name if term.transforms else "none"
                values |= {
                    "logit_distance": term.distance.name,
                    "logit_weight": term.weight,
                    "logit_normalisation": normalisation,
                    "temperature": term.temperature,
                    f"{normalisation}_scale": 1 / term.temperature,
                }
        return values

    def size(self) -> int:
        """Count the leaves of the tree, branch by branch."""
        sizes = {name: len(options) for name, options in self.GRIDS.items()}
        features = 0
        for intra in INTRA:
            for inter, distances in _live(self, intra).items():
                for distance in distances:
                    term = TermConfig("features", OpConfig(distance), transforms=(OpConfig(inter),))
                    kinds = sizes["attention_kind" if _takes_map(term) else "attention_kind__channels"]
                    heads = kinds + sizes["mask_kind"] * sizes["mask_ratio"] + 1
                    modes = sizes["channel_mode"] if inter == "channel" else 1
                    features += heads * modes * (sizes["feature_temperature"] if distance == "kl" else 1)
        embeddings = 1 + (sizes["embedding_distance"] - 1) * sizes["embedding_weight"]
        logits = len(LOGIT_WEIGHTS) * (  # KL with each normalisation, and Pearson
            sizes["temperature"]
            + (0 if TWO_CLASSES in self.dead else sizes["zscore_scale"])
            + sizes["l2norm_scale"]
            + sizes["temperature"]
        )
        schedules = math.prod(sizes[name] for name in ("warmup", "stop", "teacher_batchnorm", "normalise"))
        return features * len(FEATURE_WEIGHTS) * embeddings * logits * schedules


@dataclass(frozen=True)
class NaiveSpace(Space):
    """The counterpart without the tree (Table 8): three positions, each any operation, in any order.

    The paper does not say how its naive space was organised. Here: the same operations without the order
    global, intra, inter, and with the L1 distance that the paper's design left out. Chains that cannot be
    built (`sample>multiscale`: rows have no space left to pool) stay in it, as nothing in a flat space
    forbids them; such a trial is rejected before any training.
    """

    name: ClassVar[str] = "naive"
    description: ClassVar[str] = "the same operations as a flat list, in any order (Table 8's counterpart)"

    OPERATIONS: ClassVar[tuple[str, ...]] = (
        "attention",
        "mask",
        "multiscale",
        "local",
        "sample",
        "channel",
        "none",
    )
    DISTANCES: ClassVar[tuple[str, ...]] = (*FEATURE_DISTANCES, "l1")

    def factors(self) -> Mapping[str, Sequence[Any]]:
        """Give the eight flat factors."""
        return {
            "transform_1": self.OPERATIONS,
            "transform_2": self.OPERATIONS,
            "transform_3": self.OPERATIONS,
            "feature_distance": self.DISTANCES,
            "feature_weight": FEATURE_WEIGHTS,
            "logit_distance": LOGIT_DISTANCES,
            "logit_weight": LOGIT_WEIGHTS,
            "temperature": TEMPERATURES_PAPER,
        }

    def suggest(self, trial: Suggests) -> Recipe:
        """Suggest every factor, whatever the others are."""
        value = {name: trial.suggest_categorical(name, list(options)) for name, options in self.factors().items()}
        chain = tuple(OpConfig(value[f"transform_{position}"]) for position in (1, 2, 3))
        features = TermConfig("features", OpConfig(value["feature_distance"]), value["feature_weight"], chain)
        logits = TermConfig(
            "logits",
            OpConfig(value["logit_distance"]),
            value["logit_weight"],
            temperature=value["temperature"],
        )
        return Recipe(DistillerConfig((features, logits)))

    def values_of(self, recipe: Recipe) -> Mapping[str, Any]:
        """Read the factors off the terms; missing positions are `none`."""
        values: dict[str, Any] = {}
        for term in recipe.distiller.terms:
            if term.knowledge == "features":
                names = [op.name for op in term.transforms] + ["none"] * 3
                values |= {f"transform_{position}": names[position - 1] for position in (1, 2, 3)}
                values |= {"feature_distance": term.distance.name, "feature_weight": term.weight}
            else:
                values |= {"logit_distance": term.distance.name, "logit_weight": term.weight}
                values |= {"temperature": term.temperature}
        return values

    def size(self) -> int:
        """Count the points of the grid, those that cannot be built included."""
        return math.prod(len(options) for options in self.factors().values())


for _space in (AutoKDSpace, ExtendedSpace, FeatureOnlySpace, NaiveSpace):
    SPACES.add(_space.name, _space)


def _feature_factors() -> dict[str, Sequence[Any]]:
    return {
        "global_transform": GLOBAL,
        "intra_transform": INTRA,
        "inter_transform": INTER,
        "feature_distance": FEATURE_DISTANCES,
        "feature_weight": FEATURE_WEIGHTS,
    }


def _suggest_features(trial: Suggests, space: Space) -> TermConfig:
    glob = choose(trial, "global_transform", GLOBAL)
    intra = choose(trial, "intra_transform", INTRA, allowed=[i for i in INTRA if _live(space, i)], where="live")
    inter = choose(trial, "inter_transform", INTER, allowed=list(_live(space, intra)), where=intra)
    distance = choose(
        trial,
        "feature_distance",
        FEATURE_DISTANCES,
        allowed=_live(space, intra)[inter],
        where=f"{intra}_{inter}",
    )
    weight = choose(trial, "feature_weight", FEATURE_WEIGHTS)
    chain = (OpConfig(glob), OpConfig(intra), OpConfig(inter))
    return TermConfig("features", OpConfig(distance), weight, chain)


def _live(space: Space, intra: str) -> dict[str, list[str]]:
    """Give, for one intra-spatial transform, the inter-spatial ones and distances that can teach."""
    dead = {(cell.intra, cell.inter, cell.distance) for cell in space.dead}
    live = {inter: [d for d in FEATURE_DISTANCES if (intra, inter, d) not in dead] for inter in INTER}
    return {inter: distances for inter, distances in live.items() if distances}


def _count_features(space: Space) -> int:
    cells = sum(len(distances) for intra in INTRA for distances in _live(space, intra).values())
    return len(GLOBAL) * cells * len(FEATURE_WEIGHTS)


def _feature_values(recipe: Recipe) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for term in recipe.distiller.terms:
        if term.knowledge == "features":
            names = {"attention" if op.name == "attention_map" else op.name for op in term.transforms}
            for factor, options in (("global", GLOBAL), ("intra", INTRA), ("inter", INTER)):
                values[f"{factor}_transform"] = next((name for name in options if name in names), "none")
            values |= {"feature_distance": term.distance.name, "feature_weight": term.weight}
    return values


def _extend_features(term: TermConfig, pick: Any) -> TermConfig:
    chain = []
    for op in term.transforms:
        if op.name == "attention":
            kind = pick("attention_kind" if _takes_map(term) else "attention_kind__channels")
            op = OpConfig("attention_map") if kind == "map" else OpConfig("attention", Options(kind=kind))
        elif op.name == "mask":
            op = OpConfig("mask", Options(kind=pick("mask_kind"), ratio=pick("mask_ratio")))
        elif op.name == "channel":
            op = OpConfig("channel", Options(mode=pick("channel_mode")))
        chain.append(op)
    temperature = pick("feature_temperature") if term.distance.name == "kl" else 1.0
    return dataclasses.replace(term, transforms=tuple(chain), temperature=temperature)


def _takes_map(term: TermConfig) -> bool:
    """Whether an attention map, which has one channel, can teach here: its channels have no relations."""
    rows = next((op.name for op in term.transforms if op.name in ("sample", "channel")), "none")
    return (rows, term.distance.name) not in {("channel", "gl2"), ("none", "kl")}


def _extended_feature_values(term: TermConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"feature_temperature": term.temperature}
    for op in term.transforms:
        if op.name == "attention_map":
            values["attention_kind"] = "map"
        values |= {f"{op.name}_{option}": value for option, value in op.options.items()}
    return values
