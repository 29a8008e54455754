"""The report of the ranking benchmark: rank correlations with their spread, and the claims held against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats

from optuna_kd.rewards import REWARDS, Metrics

CLAIMS = {"digits": 0.8, "cifar10": 0.7}
RESAMPLES = 10_000
REWARD = "bounded"  # the default of a search


def summarise(runs: Sequence[dict[str, Any]], recipes: Sequence[str], seeds: int) -> dict[str, Any]:
    """Correlate every arm with the full trainings, over the recipes that both have with all seeds."""
    names = dict.fromkeys(run["arm"] for run in runs)
    found = {arm: metrics_of([run for run in runs if run["arm"] == arm], recipes, seeds) for arm in names}
    full, arms = found.get("full", {}), {}
    for arm, measured in found.items():
        both = [recipe for recipe in recipes if recipe in measured and recipe in full]
        if arm == "full" or len(both) < 3:
            continue
        truth = np.array([[metrics.accuracy for metrics in full[recipe]] for recipe in both])
        rewards = {
            name: np.array([[reward(metrics) for metrics in measured[recipe]] for recipe in both])
            for name, reward in REWARDS.items()
        }
        # Full trainings beside full trainings say how high a correlation can be: both sides are the accuracy.
        name = "accuracy" if arm.startswith("full") else REWARD
        scores, goal = rewards[name], truth.mean(1)
        arms[arm] = {
            "recipes": len(both),
            "reward": name,
            **correlate(scores.mean(1), goal),
            **more_seeds(scores.mean(1), both, full, found.get("full again", {}) if arm != "full again" else {}),
            "one_seed": mean_and_sd([spearman(column, goal) for column in scores.T]),
            "by_reward": {other: round(spearman(values.mean(1), goal), 3) for other, values in rewards.items()},
            "points_lost_by_its_best": round(100 * float(goal.max() - goal[scores.mean(1).argmax()]), 2),
            "cpu_seconds": mean_and_sd([run["cpu_seconds"] for run in runs if run["arm"] == arm], digits=2),
            "rejected": sum("rejected" in run for run in runs if run["arm"] == arm),
        }
    return {"full": describe_full(list(full.values())), "arms": arms}


def more_seeds(
    scores: np.ndarray,
    recipes: Sequence[str],
    full: Mapping[str, Sequence[Metrics]],
    again: Mapping[str, Sequence[Metrics]],
) -> dict[str, float]:
    """Correlate with the mean of twice as many full trainings, where there are so many: less noise to miss."""
    if any(recipe not in again for recipe in recipes):
        return {}
    goal = [fmean(metrics.accuracy for metrics in (*full[recipe], *again[recipe])) for recipe in recipes]
    return {"spearman_with_twice_the_full_seeds": round(spearman(scores, np.array(goal)), 3)}


def metrics_of(runs: Sequence[dict[str, Any]], recipes: Sequence[str], seeds: int) -> dict[str, list[Metrics]]:
    """Give what the students of each recipe scored, seed by seed, where all seeds are there."""
    names = [field.name for field in dataclasses.fields(Metrics)]
    found = {(run["recipe"], run["seed"]): Metrics(**{name: run[name] for name in names}) for run in runs}
    keys = {recipe: [(recipe, seed) for seed in range(seeds)] for recipe in recipes}
    return {recipe: [found[key] for key in own] for recipe, own in keys.items() if all(key in found for key in own)}


def describe_full(measured: Sequence[Sequence[Metrics]]) -> dict[str, Any]:
    """Say how far the recipes are apart in full trainings, and how well one part of the seeds orders the other."""
    if len(measured) < 3:
        return {}
    scores = np.array([[metrics.accuracy for metrics in one] for one in measured])
    seeds = scores.shape[1]
    rest = [np.delete(scores, seed, axis=1).mean(1) for seed in range(seeds)] if seeds > 1 else []
    return {
        "accuracy": {
            f"quantile {share:g}": round(float(np.quantile(scores.mean(1), share)), 4)
            for share in (0, 0.25, 0.5, 0.75, 1)
        },
        "sd_over_seeds": round(float(np.sqrt(scores.var(1, ddof=1).mean())), 4) if seeds > 1 else None,
        "one_seed_with_the_others": mean_and_sd([spearman(scores[:, seed], rest[seed]) for seed in range(len(rest))]),
    }


def correlate(scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Give Spearman's correlation with its standard error and 90 % interval, over resampled recipes."""
    chosen = np.random.default_rng(0).integers(len(scores), size=(RESAMPLES, len(scores)))
    ranks = [stats.rankdata(values[chosen], axis=1) for values in (scores, truth)]
    one, other = (values - values.mean(1, keepdims=True) for values in ranks)
    with np.errstate(invalid="ignore"):  # a sample of one recipe, drawn over and over
        found = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return {
        "spearman": round(spearman(scores, truth), 3),
        "se": round(float(np.nanstd(found)), 3),
        "interval_90": [round(float(end), 3) for end in np.nanpercentile(found, (5, 95))],
    }


def spearman(scores: np.ndarray, truth: np.ndarray) -> float:
    """Give the correlation; 0 where one side is constant and so orders nothing."""
    if np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(stats.spearmanr(scores, truth).statistic)


def mean_and_sd(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    return {
        "mean": round(fmean(values), digits) if values else None,
        "sd": round(stdev(values), digits) if len(values) > 1 else None,
    }


def check_claims(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the claims against what was found."""
    claims = []
    for setting, least in CLAIMS.items():
        if found := summary.get(setting, {}).get("arms", {}).get("proxy"):
            rho = found["spearman"]
            text = f"{setting}: Spearman's correlation of proxies and full trainings >= {least}"
            claims.append({"claim": text, "mean": rho, "se": found["se"], "met": rho >= least})
    return claims


def print_summary(summary: dict[str, Any]) -> None:
    for setting, found in summary.items():
        print(f"\n{setting}, full trainings: {found['full']}")
        row = "{:<20}{:>10}{:>18}{:>16}{:>10}{:>13}  {}"
        heads = "Spearman", "90 % interval", "of one seed", "seconds", "points lost", "by reward"
        print(row.format("", *heads))
        for arm, values in found["arms"].items():
            low, high = values["interval_90"]
            single = values["one_seed"]
            spread = "" if single["sd"] is None else f" ± {single['sd']:.2f}"
            print(
                row.format(
                    arm,
                    f"{values['spearman']:.2f}",
                    f"{low:.2f} to {high:.2f}",
                    f"{single['mean']:.2f}{spread}",
                    f"{values['cpu_seconds']['mean']:.1f}",
                    f"{values['points_lost_by_its_best']:.1f}",
                    ", ".join(f"{name} {rho:.2f}" for name, rho in values["by_reward"].items()),
                )
            )
