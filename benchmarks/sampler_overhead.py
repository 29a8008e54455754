"""What a trial's `ask` costs with MCTSSampler, by turns with TPE.

Claims: with 12 parameters and one thread the median is at most 15 ms at 100 finished trials, at most 40 ms at
2,000, and at most TPE's at 10,000; what the sampler holds in memory grows at most linearly from 2,000 to 10,000.

    python benchmarks/sampler_overhead.py

The claims are about time by the clock; the median of the thread's CPU time beside it leaves out what else the
machine did. The result is `results/sampler_overhead.json`.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna
from gauge_report import print_claims, surroundings
from loky import ProcessPoolExecutor
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial
from sampler_gauge import ONE_THREAD, be_quiet

from optuna_kd.samplers import MCTSSampler

SPACE: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(range(3)),
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "decay": FloatDistribution(1e-6, 1e-2, log=True),
    "momentum": FloatDistribution(0.0, 0.99),
    "transform": CategoricalDistribution(range(4)),
    "distance": CategoricalDistribution(range(3)),
    "width": IntDistribution(8, 512, log=True),
    "depth": IntDistribution(1, 12),
    "dropout": FloatDistribution(0.0, 0.5, step=0.05),
    "schedule": CategoricalDistribution(range(3)),
    "warmup": IntDistribution(0, 20),
    "batch": CategoricalDistribution(range(5)),
}
SIDES: dict[str, Callable[[], BaseSampler]] = {"tpe": lambda: TPESampler(seed=0), "ours": lambda: MCTSSampler(0)}
SIZES = (100, 2_000, 10_000)  # finished trials
ASK_LIMITS = {100: 15.0, 2_000: 40.0}  # ms
BLOCKS, BLOCK, WARM_UP = 4, 10, 30  # asks
RESULT = Path(__file__).parent / "results" / "sampler_overhead.json"


def measure(sizes: Sequence[int] = SIZES) -> dict[str, Any]:
    """Time the asks of both samplers in studies of the given sizes; count the bytes that ours holds in all but one."""
    trials = random_trials(max(sizes))
    cost = {size: time_asks(trials, size) for size in sizes}
    held = {size: held_bytes(trials[:size]) for size in sizes[1:]}
    return {
        "parameters": len(SPACE),
        "asks": {"warm_up": WARM_UP, "timed": BLOCKS * BLOCK},
        "ask_ms_by_finished_trials": cost,
        "held_bytes_by_finished_trials": held,
        "claims": check_claims(cost, held),
    }


def random_trials(count: int) -> list[FrozenTrial]:
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(0))
    for _ in range(count):
        tell_value(study, study.ask(SPACE))
    return study.get_trials(deepcopy=False)


def tell_value(study: optuna.Study, trial: optuna.Trial) -> None:
    """Tell a bowl in every number, an effect of every choice, and noise."""
    total = 0.3 * np.random.default_rng([0, trial.number]).normal()
    for index, (name, distribution) in enumerate(SPACE.items()):
        value = trial.params[name]
        if isinstance(distribution, CategoricalDistribution):
            total += math.cos(3 * value + index)
        else:
            low, high = distribution.low, distribution.high
            log = distribution.log
            place = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
            total -= (2 * (place - 0.6)) ** 2
    study.tell(trial, total)


def time_asks(trials: list[FrozenTrial], size: int) -> dict[str, dict[str, float]]:
    """Time asks of both samplers, each in a study of its own that has `size` finished trials after the warm-up."""
    studies = {name: study_with(sampler(), trials[: size - WARM_UP]) for name, sampler in SIDES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for study in studies.values():
        for _ in range(WARM_UP):
            timed_ask(study)
    for _ in range(BLOCKS):
        for name, study in studies.items():
            times[name] += [timed_ask(study) for _ in range(BLOCK)]
    return {
        name: {
            "median": round(median(wall for wall, _ in found), 3),
            "mean": round(fmean(wall for wall, _ in found), 3),
            "median_of_cpu_time": round(median(cpu for _, cpu in found), 3),
        }
        for name, found in times.items()
    }


def study_with(sampler: BaseSampler, trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    return study


def timed_ask(study: optuna.Study) -> tuple[float, float]:
    """Ask and tell once; give the milliseconds of the ask by the clock, and those that this thread was at work."""
    wall, cpu = time.perf_counter(), time.thread_time()
    trial = study.ask(SPACE)
    elapsed = 1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)
    tell_value(study, trial)
    return elapsed


def held_bytes(trials: list[FrozenTrial]) -> int:
    """Count what is freed when our sampler goes, after it has read the trials."""
    study = study_with(SIDES["ours"](), trials)
    tracemalloc.start()
    timed_ask(study)
    gc.collect()
    with_sampler, _ = tracemalloc.get_traced_memory()
    study.sampler = RandomSampler()
    gc.collect()
    without, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return with_sampler - without


def check_claims(cost: dict[int, dict[str, dict[str, float]]], held: dict[int, int]) -> list[dict[str, Any]]:
    """Hold the claims against what was measured."""
    claims = []

    def claim(text: str, measured: float, most: float) -> None:
        claims.append({"claim": text, "mean": measured, "se": None, "met": measured <= most})

    for size, limit in ASK_LIMITS.items():
        if size in cost:
            claim(f"median ms of an ask at {size:,} trials <= {limit:g}", cost[size]["ours"]["median"], limit)
    small, large = min(held), max(held)
    ours, tpe = (cost[large][name]["median"] for name in ("ours", "tpe"))
    claim(f"median ms of an ask at {large:,} trials <= tpe's {tpe:.1f}", ours, tpe)
    # A tenth more, because lists and dictionaries grow in steps.
    growth, most = held[large] / held[small], 1.1 * large / small
    claim(f"growth of the bytes held from {small:,} to {large:,} trials <= {most:.2g}", round(growth, 2), most)
    return claims


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with ProcessPoolExecutor(1, env=ONE_THREAD, initializer=be_quiet) as pool:
        found = pool.submit(measure).result()
    content = {"claim": __doc__.splitlines()[0], **surroundings(), **found}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for size, sides in found["ask_ms_by_finished_trials"].items():
        print(f"ms at {size:,} trials: {sides}")
    print_claims(found["claims"])


if __name__ == "__main__":
    import sampler_overhead  # by its name, as in sampler_gauge.py

    sampler_overhead.main()
