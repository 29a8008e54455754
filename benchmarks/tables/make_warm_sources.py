"""Search for recipes on tasks beside that of the table of digits: what `benchmarks/warm_start.py` begins with there.

Two tasks that differ from the table's (digits, teacher resnet20, student resnet8x0.125): a student of twice the width,
resnet8x0.25, and half of the classes, the digits 0 to 4. On each some searches of 25 trials by MCTSSampler over the
grid of the table, each trial trained once, unpruned, as the table's are.

    python benchmarks/tables/make_warm_sources.py

takes about 20 minutes of one core. Finished searches are kept beside the result (`.partial.jsonl`), so the command can
be stopped and run again. The result is `warm-sources.json`: for each search the five recipes with the highest expected
reward, and for each task its distance (`optuna_kd.cards.distance`) to the table's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from make_digits_recipes import GRID, digits_task

from optuna_kd.cards import distance
from optuna_kd.commands import DIGITS, TaskOptions, create_task, load_splits
from optuna_kd.data import DataSplits
from optuna_kd.recipe import ProxyConfig
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.samplers import MCTSSampler
from optuna_kd.search_space import create_space
from optuna_kd.seeds import derive_seed
from optuna_kd.training.offline import store_knowledge
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

SEARCHES, TRIALS, HANDED_ON = 8, 25, 5
RESULT = Path(__file__).with_name("warm-sources.json")
PARTIAL = Path(__file__).with_name("warm-sources.partial.jsonl")


def larger_student() -> ImageClassification:
    """The same data and teacher, a student of twice the width."""
    options = _options(student="resnet8x0.25")
    return create_task(options, load_splits(options), say=SilentReporter())


def half_of_the_classes() -> ImageClassification:
    """The same networks, the digits 0 to 4, and a teacher of their own."""
    options = _options(student=None)
    return create_task(options, _first_five(load_splits(options)), say=SilentReporter())


TASKS: dict[str, Callable[[], ImageClassification]] = {
    "student resnet8x0.25": larger_student,
    "digits 0 to 4": half_of_the_classes,
}


def search(name: str, task: ImageClassification, number: int) -> dict[str, Any]:
    """Run one search; give the recipes that it would hand on."""
    knowledge, space = store_knowledge(task), create_space("auto-kd")
    started = time.perf_counter()

    def objective(trial: optuna.Trial) -> float:
        params = {factor: trial.suggest_categorical(factor, options) for factor, options in GRID.items()}
        seed = derive_seed(number, "warm source", name, trial.number)
        proxy = ProxyConfig(epochs=DIGITS.proxy_epochs)
        try:
            training = StudentTraining(task, space.recipe(params), proxy, seed=seed, knowledge=knowledge)
            return REWARDS["bounded"](list(training.run())[-1].metrics)
        except LossRejected:
            return REWARDS["bounded"](Metrics.useless(task.num_classes))

    sampler = MCTSSampler(number)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=TRIALS)
    worth = sampler.expect(study)
    best: list[dict[str, Any]] = []
    for trial in sorted(study.trials, key=lambda trial: -worth[trial.number]):
        if trial.params not in best:
            best.append(trial.params)
    seconds = time.perf_counter() - started
    return {"task": name, "number": number, "best": best[:HANDED_ON], "best_reward": study.best_value, "s": seconds}


def read_partial() -> dict[tuple[str, int], dict[str, Any]]:
    found = {}
    for line in PARTIAL.read_text(encoding="utf-8").splitlines() if PARTIAL.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # the line that was being written when the command was stopped
            continue
        found[row["task"], row["number"]] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=SEARCHES, help=f"of each task ({SEARCHES})")
    searches = parser.parse_args().searches
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    target, done = digits_task().facts(), read_partial()
    sources = {}
    for name, make_task in TASKS.items():
        task = make_task()
        for number in range(searches):
            if (name, number) not in done:
                done[name, number] = search(name, task, number)
                with PARTIAL.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[name, number]) + "\n")
            print(f"{name} {number}: {done[name, number]['best_reward']:.4f}", flush=True)
        rows = [done[name, number] for number in range(searches)]
        sources[name] = {
            "distance": round(distance(task.facts(), target), 3),
            "searches": [{"best": row["best"], "best_reward": round(row["best_reward"], 4)} for row in rows],
        }
    content = {
        "made_by": "python benchmarks/tables/make_warm_sources.py",
        "what": f"the recipes that searches of {TRIALS} trials hand on; proxies of {DIGITS.proxy_epochs} epochs",
        "seconds_of_one_core": round(sum(row["s"] for row in done.values())),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("optuna-kd", "torch", "optuna", "numpy")},
        "sources": sources,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RESULT.name}")


def _options(student: str | None) -> TaskOptions:
    return TaskOptions(
        data="digits", teacher=None, teacher_checkpoint=None, student=student, device="cpu", epochs=None,
        seeds=None, max_train=None, batch_size=None, image_size=None, seed=0,
    )  # fmt: skip


def _first_five(splits: DataSplits) -> DataSplits:
    def cut(images: Any) -> Any:
        return None if images is None else images.subset(np.flatnonzero(np.asarray(images.labels) < 5))

    names = splits.class_names[:5]
    parts = {name: cut(getattr(splits, name)) for name in ("train", "val", "test")}
    return dataclasses.replace(splits, class_names=names, **parts)


if __name__ == "__main__":
    main()
