"""Whether the verdict cries wolf: simulated comparisons without a difference, and with the differences of the papers.

Claims: where the recipe is no better than its controls, at most 5 % (plus two binomial standard errors of 5,000
simulations) of the verdicts call any of the three differences real, for 3, 5 and 10 seeds, on clean and on unpleasant
noise; and the 95 % intervals of a difference hold the true one in at least 93 % of the simulations, the t interval from
3 seeds, the bootstrap from 10.

    python benchmarks/verdict.py

A simulated comparison has four methods (the recipe, tuned KD, plain KD, labels only) of as many seeds, as in a search.
Every seed moves all methods alike (initial weights and batches are shared), every method by itself, and accuracies are
counted on a test set of 600 or 10,000 images. The noise of the methods: normal; with heavy tails (Student's t, three
degrees of freedom); or skewed (a gamma distribution: most trainings near the best, few far below). Its standard
deviation is that of published CIFAR-100 trainings, 0.25 points.

Power: how often the verdict finds that the recipe beats tuned KD when it truly does, by what is usual in the papers:
0.2 points (what Auto-KD gains on the best method before it, over its Table 2), 0.32 (what quoting the best epoch of a
training on the test data brings), 0.5, 1.0 and 1.8 points (plain KD over labels on CIFAR-100). The percentile bootstrap
and Wilcoxon's test stand beside it, to show why neither decides.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from gauge_report import print_claims, surroundings
from pieces import write

from optuna_kd.analysis import compare
from optuna_kd.analysis.statistics import ALPHA
from optuna_kd.analysis.verdict import LABELS, PLAIN, TUNED

SEEDS = (3, 5, 10)
NOISES = ("normal", "heavy tails", "skewed")
EFFECTS = (0.2, 0.32, 0.5, 1.0, 1.8)  # percentage points
SD = 0.25  # of a method's own noise, in points
SHARED_SD = 0.25  # of what a seed does to all methods
IMAGES = (600, 10_000)
LEVEL = 76.0  # accuracy about which all happens, in percent
LEAST_COVERAGE = 0.93
RESULT = Path(__file__).parent / "results" / "verdict.json"


def draw_noise(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw noise with mean 0 and standard deviation 1."""
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "heavy tails":
        return rng.standard_t(3, size=shape) / math.sqrt(3)
    return (2 - rng.gamma(2.0, size=shape)) / math.sqrt(2)


def draw_accuracies(
    kind: str, seeds: int, images: int, effect: float, rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw the test accuracies of the recipe and of its controls, in percent; [seeds] each.

    All methods see the same test images, so what an image adds to one it adds to all; what is left of it is that
    accuracies are whole numbers of images.
    """
    noise = SD * draw_noise(kind, (4, seeds), rng) + SHARED_SD * rng.normal(size=seeds)
    levels = LEVEL + noise
    levels[0] += effect
    counted = np.round(levels / 100 * images) / images * 100
    return counted[0], list(counted[1:])


def simulate(kind: str, seeds: int, images: int, effect: float, times: int, resampled: int) -> dict[str, Any]:
    """Simulate comparisons, and count what the verdict and the intervals say; of the first ones also what resamples."""
    rng = np.random.default_rng([seeds, images, NOISES.index(kind), round(100 * effect)])
    alarms = found = wilcoxon = 0
    covered = {"t": 0, "bootstrap-t": 0, "percentile bootstrap": 0}
    for number in range(times):
        recipe, controls = draw_accuracies(kind, seeds, images, effect, rng)
        comparisons = compare(list(recipe), dict(zip((TUNED, PLAIN, LABELS), map(list, controls), strict=True)))
        tuned = comparisons[TUNED]
        alarms += any(comparison.significant for comparison in comparisons.values())
        found += tuned.significant and tuned.difference > 0
        covered["t"] += tuned.interval[0] <= effect <= tuned.interval[1]
        if number >= resampled:
            continue
        if tuned.bootstrap is not None:
            covered["bootstrap-t"] += tuned.bootstrap[0] <= effect <= tuned.bootstrap[1]
        low, high = percentile_interval(recipe - controls[0], rng)
        covered["percentile bootstrap"] += low <= effect <= high
        wilcoxon += tuned.wilcoxon is not None and tuned.wilcoxon < ALPHA
    resampled = min(resampled, times)
    shares = {name: round(count / (times if name == "t" else resampled), 4) for name, count in covered.items()}
    if seeds < 10:
        del shares["bootstrap-t"]
    return {
        "noise": kind,
        "seeds": seeds,
        "images": images,
        "effect": effect,
        "any_called_real": round(alarms / times, 4),
        "called_better_than_tuned": round(found / times, 4),
        "wilcoxon_below_0.05": round(wilcoxon / resampled, 4) if seeds >= 6 else None,
        "coverage": shares,
    }


def percentile_interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Give what most programs call a bootstrap interval; for comparison only."""
    means = differences[rng.integers(len(differences), size=(500, len(differences)))].mean(axis=1)
    low, high = np.quantile(means, (ALPHA / 2, 1 - ALPHA / 2))
    return float(low), float(high)


def check_claims(rows: list[dict[str, Any]], times: int, resampled: int) -> list[dict[str, Any]]:
    """Hold the claims against what was found; every one by its worst case."""
    claims = []
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / times)
    for seeds in SEEDS:
        nothing = [row for row in rows if row["effect"] == 0 and row["seeds"] == seeds]
        worst = max(row["any_called_real"] for row in nothing)
        text = f"{seeds} seeds, no difference: called real in at most {100 * limit:.1f} %"
        claims.append({"claim": text, "mean": worst, "se": _error(worst, times), "met": worst <= limit})
        least = min(row["coverage"]["t"] for row in nothing)
        text = f"{seeds} seeds: t intervals hold the truth in at least {100 * LEAST_COVERAGE:.0f} %"
        claims.append({"claim": text, "mean": least, "se": _error(least, times), "met": least >= LEAST_COVERAGE})
    least = min(row["coverage"]["bootstrap-t"] for row in rows if row["effect"] == 0 and row["seeds"] == 10)
    text = f"10 seeds: bootstrap intervals hold the truth in at least {100 * LEAST_COVERAGE:.0f} %"
    claims.append({"claim": text, "mean": least, "se": _error(least, resampled), "met": least >= LEAST_COVERAGE})
    return claims


def _error(share: float, times: int) -> float:
    return round(math.sqrt(share * (1 - share) / times), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5_000, help="simulated comparisons of each kind (5,000)")
    parser.add_argument("--resampled", type=int, default=1_000, help="those of them with tests that resample (1,000)")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = []
    print(f"{'noise':<12}{'seeds':>6}{'images':>8}{'effect':>8}{'any real':>10}{'beats tuned':>13}  coverage")
    for kind in NOISES:
        for seeds in SEEDS:
            for images, effect in [(count, 0.0) for count in IMAGES] + [(IMAGES[-1], effect) for effect in EFFECTS]:
                times = (
                    arguments.times if effect == 0 else max(1, arguments.times // 5)
                )  # power needs no such precision
                row = simulate(kind, seeds, images, effect, times, arguments.resampled)
                rows.append(row)
                print(
                    f"{kind:<12}{seeds:>6}{images:>8}{effect:>8}{row['any_called_real']:>10.3f}"
                    f"{row['called_better_than_tuned']:>13.3f}  {row['coverage']}",
                    flush=True,
                )
    claims = check_claims(rows, arguments.times, min(arguments.times, arguments.resampled))
    write(
        arguments.out,
        {
            "claim": (__doc__ or "").splitlines()[0],
            **surroundings(),
            "times": arguments.times,
            "resampled": arguments.resampled,
            "seconds": round(time.perf_counter() - started, 1),
            "noise_sd_points": SD,
            "claims": claims,
            "rows": rows,
        },
    )
    print_claims(claims)


if __name__ == "__main__":
    main()
