"""How well DisWOT's training-free score orders 64 students, beside counting their parameters.

Claim: over the 64 ResNets with 1, 3, 5 or 7 blocks in each stage, Kendall's rank correlation between the score and
the published accuracy (after distillation on CIFAR-100) is higher on average than that of the number of parameters,
and than that of the number of FLOPs.

    python benchmarks/diswot.py --data imagefolder:DIR

The teacher is a ResNet-56. Each seed draws a batch and the initial weights of all networks; spreads are over seeds.
Batches are noise, N(0, 1) with random labels, and with `--data` also real images of 100 classes, 32x32. Beside the
score stand its parts, the semantic part in the form for students of another width (K x K), and all of them with the
weights' variance 1 / fan-in instead of 1, because the paper does not say which. "kendall_given_parameters" is the
partial correlation: what a score knows beyond the number of parameters. "random" orders by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

import numpy as np
import torch
from gauge_report import surroundings
from landscapes import resnet_depths
from scipy import stats
from torch import Tensor, nn

from optuna_kd.data import Normalizer, load_data
from optuna_kd.models import count_flops, count_parameters, create_model
from optuna_kd.training.diswot import Variance, look, relation_distance, semantic_distance

CLASSES, SIDE = 100, 32
TEACHER, LAYER = "resnet56", "layer3"
RESULT = Path(__file__).parent / "results" / "diswot.json"

Batch = tuple[Tensor, Tensor]  # images [N, C, H, W], labels [N]
Correlations = dict[str, float]  # "kendall" and "spearman"


def measure(sources: dict[str, Callable[[int], Batch]], seeds: Sequence[int]) -> dict[str, Any]:
    """Correlate scores and sizes with the published accuracies."""
    students = {depths: create_student(depths) for depths in resnet_depths()}
    example = torch.zeros(1, 3, SIDE, SIDE)
    sizes = {
        "parameters": [count_parameters(student) for student in students.values()],
        "flops": [count_flops(student, example) for student in students.values()],
    }
    accuracies = list(resnet_depths().values())
    trivial: dict[str, Any] = {name: correlate(values, accuracies) for name, values in sizes.items()}
    chance = [np.random.default_rng(seed).normal(size=len(accuracies)) for seed in seeds]
    trivial["random"] = spread(correlate(values, accuracies) for values in chance)
    scores: dict[str, Any] = {}
    for source, draw in sources.items():
        for variance in get_args(Variance):
            found = [score_all(list(students.values()), draw(seed), seed, variance) for seed in seeds]
            scores[f"{source}, variance {variance}"] = {
                name: {
                    **spread(correlate(one[name], accuracies) for one in found),
                    "kendall_given_parameters": mean_and_sd(
                        [partial_kendall(one[name], accuracies, sizes["parameters"]) for one in found]
                    ),
                    "mean_score": round(fmean(fmean(one[name]) for one in found), 6),
                }
                for name in found[0]
            }
    return {"trivial": trivial, "scores": scores, "claims": check_claims(trivial, scores)}


def create_student(depths: Sequence[int]) -> nn.Module:
    return create_model(f"resnet{'-'.join(map(str, depths))}", num_classes=CLASSES, input_size=SIDE)


def score_all(students: Sequence[nn.Module], batch: Batch, seed: int, variance: Variance) -> dict[str, list[float]]:
    """Score every student by DisWOT and by each of its parts; "diswot" is what `diswot_score` gives."""
    started = time.perf_counter()
    teacher = create_model(TEACHER, num_classes=CLASSES, input_size=SIDE)
    taught = look(teacher, *batch, LAYER, role="teacher", seed=seed, variance=variance)
    scores: dict[str, list[float]] = {name: [] for name in ("diswot", "relation", "semantic", "semantic_per_class")}
    for student in students:
        learnt = look(student, *batch, LAYER, role="student", seed=seed, variance=variance)
        relation = float(relation_distance(learnt.maps, taught.maps))
        semantic = float(semantic_distance(learnt.gradient, taught.gradient))
        per_class = float(semantic_distance(learnt.gradient, taught.gradient, per_class=True))
        for name, distance in zip(scores, (relation + semantic, relation, semantic, per_class), strict=True):
            scores[name].append(-distance)
    print(f"seed {seed}, variance {variance}: {time.perf_counter() - started:.0f} s", flush=True)
    return scores


def correlate(values: Sequence[float], accuracies: Sequence[float]) -> Correlations:
    return {
        "kendall": round(float(stats.kendalltau(values, accuracies).statistic), 4),
        "spearman": round(float(stats.spearmanr(values, accuracies).statistic), 4),
    }


def spread(correlations: Iterable[Correlations]) -> dict[str, dict[str, float]]:
    """Give mean and standard deviation over seeds of each kind of correlation."""
    found = list(correlations)
    return {kind: mean_and_sd([one[kind] for one in found]) for kind in ("kendall", "spearman")}


def mean_and_sd(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(fmean(values), 3), "sd": round(stdev(values), 3)}


def partial_kendall(one: Sequence[float], other: Sequence[float], given: Sequence[float]) -> float:
    """Give Kendall's correlation of two with the third held fixed."""
    direct, first, second = (stats.kendalltau(*pair).statistic for pair in ((one, other), (one, given), (other, given)))
    return float((direct - first * second) / math.sqrt((1 - first**2) * (1 - second**2)))


def check_claims(trivial: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the claims against what was measured, with the weights' variance as in the authors' code."""
    return [
        {
            "claim": f"Kendall's correlation on {setting.partition(',')[0]} above that of {size}",
            "mean": found["diswot"]["kendall"]["mean"],
            "to_beat": round(trivial[size]["kendall"], 3),
            "met": found["diswot"]["kendall"]["mean"] > trivial[size]["kendall"],
        }
        for setting, found in scores.items()
        if setting.endswith("one")
        for size in ("parameters", "flops")
    ]


def noise(batch: int) -> Callable[[int], Batch]:
    def draw(seed: int) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, 3, SIDE, SIDE, generator=generator)
        return images, torch.randint(CLASSES, (batch,), generator=generator)

    return draw


def real_images(spec: str, batch: int) -> Callable[[int], Batch]:
    """Draw from the training images of a data set, standardised."""
    train = load_data(spec).train
    if train.shape != (3, SIDE, SIDE) or train.num_classes != CLASSES:
        raise SystemExit(f"The accuracies are of 3x{SIDE}x{SIDE} and {CLASSES} classes; {spec} has {train}.")
    normalizer = Normalizer.fit(train.images)

    def draw(seed: int) -> Batch:
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:batch]
        images, labels = train.batch(chosen)
        return normalizer(images), labels

    return draw


def print_table(content: dict[str, Any]) -> None:
    for name, found in content["trivial"].items():
        print(f"{name:>45}: {found}")
    for setting, scores in content["scores"].items():
        for name, found in scores.items():
            kinds = ", ".join(
                f"{kind} {found[kind]['mean']:.2f} ± {found[kind]['sd']:.2f}" for kind in found if kind != "mean_score"
            )
            print(f"{setting + ', ' + name:>45}: {kinds}")
    for claim in content["claims"]:
        print(f"{'met ' if claim['met'] else 'MISSED'} {claim['claim']}: {claim['mean']} against {claim['to_beat']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="real images too: imagefolder:DIR or cifar100:DIR")
    parser.add_argument("--data-name", default="real images", help="what the result file calls them")
    parser.add_argument("--seeds", type=int, default=8, help="batches and weights, at least 5 (8)")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch (64)")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    arguments = parser.parse_args()
    if arguments.seeds < 5:
        parser.error(f"--seeds is 5 or more; got {arguments.seeds}.")
    torch.set_num_threads(1)
    sources = {"noise": noise(arguments.batch)}
    if arguments.data:
        sources[arguments.data_name] = real_images(arguments.data, arguments.batch)
    started = time.perf_counter()
    seeds = range(arguments.seeds)
    content = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "teacher": TEACHER,
        "students": len(resnet_depths()),
        "batch": arguments.batch,
        "seeds": list(seeds),
        "spread": "standard deviation over seeds",
        **measure(sources, seeds),
        "seconds": round(time.perf_counter() - started),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print_table(content)


if __name__ == "__main__":
    main()
