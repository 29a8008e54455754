"""The rows of the ladder, and what a worker process does to measure them: train candidates, or a final student."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
import torch
from pieces import gather, open_pool
from small_cifar import Sizes, create_task, load_parts, load_teacher, peak_memory, store_answers

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.seeds import derive_seed
from optuna_kd.task_options import suitable_batch
from optuna_kd.training import LossRejected, StudentTraining, TeacherKnowledge, train_student
from optuna_kd.training.narrow import HALF_COST
from optuna_kd.training.together import learn_together, next_rung

reward = REWARDS["bounded"]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: Of the row.
        precision: As in `optuna_kd.ImageClassification`.
        is_offline: Whether the teacher's answers are stored before.
        sparsity: Share of the student's weights that are zero.
        narrow: Share of the student's channels that stay.
        subset: Share of the images.
        stop: Share of the epochs.
        at_once: Whether every core trains candidates of its own, and each several side by side where asked for.
    """

    name: str
    precision: str = "auto"
    is_offline: bool = False
    sparsity: float = 0.0
    narrow: float = 1.0
    subset: float = 1.0
    stop: float = 1.0
    at_once: bool = False

    def proxy(self, sizes: Sizes) -> ProxyConfig:
        """Give the training that scores a candidate, scored once, at its end; in batches that a search would choose."""
        length = max(1, round(self.stop * sizes.epochs))
        return ProxyConfig(
            epochs=length,
            rungs=(length,),
            subset=self.subset,
            sparsity=self.sparsity,
            narrow=self.narrow,
            batch_size=suitable_batch(length, round(self.subset * sizes.images), sizes.batch_size),
        )


BASELINE, REDUCED = Row("baseline", precision="float32"), Row("+ bfloat16, where it gains")
OFFLINE = replace(REDUCED, name="+ offline", is_offline=True)
# The structured variant of the paper's sparse training. Of its own half of the weights are zeros that are multiplied
# like others; half of the operations are gone in a narrow student.
NARROW = replace(OFFLINE, name="+ narrow (half of the operations)", narrow=HALF_COST)
SPARSE = replace(OFFLINE, name="sparse instead of narrow (half of the weights)", sparsity=0.5)
SUBSET = replace(NARROW, name="+ subset (a fifth of the images)", subset=0.2)
STOPPED = replace(SUBSET, name="+ early stop (a fifth of the epochs)", stop=0.2)
LAST = replace(STOPPED, name="+ several at once", at_once=True)
FIXED = replace(LAST, name="the last row on all images in all epochs", subset=1.0, stop=1.0)
ROWS = (BASELINE, REDUCED, OFFLINE, NARROW, SUBSET, STOPPED, LAST, FIXED, SPARSE)


@dataclass(frozen=True)
class Setting:
    """What a run of the ladder is about.

    Args:
        sizes: Networks and images, and the epochs of a full training.
        teacher: File of the trained teacher.
        data: Folder of CIFAR-10; None for images that are made up.
        device: As in `optuna_kd.ImageClassification`.
        cores: Processes where several train at once; elsewhere threads of the one process, or one thread, whichever is
            faster. 0: all in this process.
        stacked: Candidates that each process trains side by side, as one network, where several train at once.
        timed_epochs: Candidates that take more epochs are cut there, and their time in epochs is scaled up.
    """

    sizes: Sizes
    teacher: Path
    data: Path | None
    device: str
    cores: int
    stacked: int
    timed_epochs: int

    def workers(self, row: Row) -> int:
        """Count the processes of a row."""
        return max(1, self.cores) if row.at_once else 1


def measure(setting: Setting, row: Row, round_: int, recipes: Sequence[str]) -> dict[str, Any]:
    """Time candidates of one row in fresh processes, from their warm start to the end of the last.

    Args:
        setting: What is trained.
        row: How.
        round_: Its number; the first candidate is that of this number in every row.
        recipes: Of all candidates.
    """
    workers = setting.workers(row)
    chosen = [recipes[(round_ + place) % len(recipes)] for place in range(count_candidates(setting, row))]
    size = setting.stacked if row.at_once else 1
    pieces = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    pool = open_pool(workers, max(1, setting.cores // workers), is_here=setting.cores == 0)
    try:
        with tempfile.TemporaryDirectory() as meeting:
            ready = gather([pool.submit(get_ready, setting, row, chosen[0], meeting, workers) for _ in range(workers)])
        started = time.perf_counter()
        arguments = (setting, row, derive_seed("timing", round_), setting.timed_epochs)
        found = gather([pool.submit(train_candidates, *arguments, piece) for piece in pieces])
        wall = time.perf_counter() - started
    finally:
        pool.shutdown(kill_workers=True)
    candidates = [candidate for results in found for candidate in results]
    measured, scaled = (sum(candidate[key] for candidate in candidates) for key in ("seconds", "scaled"))
    return {
        "row": row.name,
        "round": round_,
        "seconds": wall * scaled / measured / len(chosen),
        "storing": max(worker["storing"] for worker in ready),
        "peak_mb": _sum_of_workers(candidates, "peak_mb"),
        "device_mb": _sum_of_workers(candidates, "device_mb"),
        "bare_mb": ready[0]["bare_mb"],
        "threads": ready[0]["threads"],
        "is_whole": measured == scaled,
        "candidates": candidates,
    }


def count_candidates(setting: Setting, row: Row) -> int:
    """Say how many candidates are timed in one round: the fewer, the longer each takes."""
    count = 1 if row.subset == 1 else 2 if row.stop == 1 else 8
    places = setting.workers(row) * setting.stacked if row.at_once else 1
    return -(-count // places) * places


def _sum_of_workers(candidates: Sequence[dict[str, Any]], key: str) -> float:
    peaks: dict[int, float] = {}
    for candidate in candidates:
        peaks[candidate["process"]] = max(candidate[key], peaks.get(candidate["process"], 0.0))
    return round(sum(peaks.values()), 1)


def get_ready(setting: Setting, row: Row, recipe: str, meeting: str, workers: int) -> dict[str, float]:
    """Load everything in a worker, take some steps, and wait for the others."""
    bare = peak_memory()
    bench = bench_of(setting, row)
    take_steps(bench, recipe)
    if workers == 1 and setting.cores > 1:
        choose_threads((1, setting.cores), lambda: take_steps(bench, recipe))
    gc.collect()
    Path(meeting, str(os.getpid())).touch()
    while len(list(Path(meeting).iterdir())) < workers:
        time.sleep(0.01)
    return {"bare_mb": round(bare, 1), "storing": bench.storing, "threads": torch.get_num_threads()}


def take_steps(bench: Bench, recipe: str) -> float:
    """Take some steps of a candidate that is not scored, and give the seconds of the last four."""
    training = bench.start(Recipe.from_string(recipe), seed=0)
    started = time.perf_counter()
    with contextlib.suppress(LossRejected):
        for number, _ in enumerate(itertools.islice(training.steps(0, (0, 1)), 5)):
            started = time.perf_counter() if number == 0 else started
    training.observer.close()
    return time.perf_counter() - started


def choose_threads(counts: Sequence[int], take: Callable[[], float]) -> None:
    """Set the number of torch threads with which some work takes the least time, at its best of two."""
    seconds: dict[int, float] = dict.fromkeys(counts, math.inf)
    for count in [*counts] * 2:
        torch.set_num_threads(count)
        seconds[count] = min(seconds[count], take())
    torch.set_num_threads(min(seconds, key=lambda count: seconds[count]))


def train_candidates(
    setting: Setting, row: Row, seed: int, most_epochs: int, recipes: Sequence[str]
) -> list[dict[str, Any]]:
    """Train some candidates in a worker, side by side if there are several, and score them."""
    bench = bench_of(setting, row)
    parsed = [Recipe.from_string(recipe) for recipe in recipes]
    train = bench.train_stacked if len(parsed) > 1 else bench.train_each
    found = train(parsed, [derive_seed(seed, recipe) for recipe in recipes], most_epochs)
    memory = {"process": os.getpid(), "peak_mb": peak_memory(), "device_mb": 0.0}
    if torch.cuda.is_initialized():
        memory["device_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return [{"recipe": recipe, **result, **memory} for recipe, result in zip(recipes, found, strict=True)]


def distil(setting: Setting, recipe: str, seed: int, index: int) -> dict[str, Any]:
    """Train a student in full by the recipe that a search has found, and read the test data."""
    bench = bench_of(setting, OFFLINE)
    try:
        run, _ = train_student(
            bench.task,
            Recipe.from_string(recipe),
            epochs=setting.sizes.epochs,
            seed=derive_seed(seed, "student"),
            index=index,
            knowledge=bench.knowledge,
        )
    except LossRejected as rejected:
        return {"test_accuracy": 0.0, "val_accuracy": 0.0, "rejected": str(rejected)}
    return {"test_accuracy": run.test_accuracy, "val_accuracy": run.val_accuracy, "rejected": None}


class Bench:
    """What a worker has ready to train the candidates of a row."""

    def __init__(self, setting: Setting, row: Row) -> None:
        sizes = setting.sizes
        self.proxy = row.proxy(sizes)
        views = min(sizes.views, self.proxy.epochs)
        parts, teacher = load_parts(setting.data, sizes), load_teacher(setting.teacher, sizes)
        self.task = create_task(parts, sizes, teacher, device=setting.device, views=views, precision=row.precision)
        self.knowledge: TeacherKnowledge | None = None
        # The first answer makes a faster twin of the teacher, and imports much for it; that is no part of storing.
        self.task.teacher_knowledge(self.task.prepare(parts.val.images[:8]))
        started = time.perf_counter()
        if row.is_offline:
            self.knowledge = store_answers(self.task, self.proxy)
        self.storing = time.perf_counter() - started if row.is_offline else 0.0

    def start(self, recipe: Recipe, seed: int, proxy: ProxyConfig | None = None) -> StudentTraining:
        """Build a student and its distiller."""
        return StudentTraining(self.task, recipe, proxy or self.proxy, seed=seed, knowledge=self.knowledge)

    def train_each(self, recipes: Sequence[Recipe], seeds: Sequence[int], most_epochs: int) -> list[dict[str, Any]]:
        """Train one after another."""
        return [self._train(recipe, seed, most_epochs) for recipe, seed in zip(recipes, seeds, strict=True)]

    def train_stacked(self, recipes: Sequence[Recipe], seeds: Sequence[int], most_epochs: int) -> list[dict[str, Any]]:
        """Train side by side, as one network; the time of all is shared out evenly."""
        started = time.perf_counter()
        epochs = min(self.proxy.epochs, most_epochs)
        proxy = replace(self.proxy, epochs=epochs, rungs=(epochs,))
        trainings = [self.start(recipe, seed, proxy) for recipe, seed in zip(recipes, seeds, strict=True)]
        attempts = (next_rung(training.lessons()) for training in trainings)
        found: dict[int, dict[str, Any]] = {}
        for place, outcome in learn_together(attempts, most=len(trainings)):
            if isinstance(outcome, LossRejected):
                found[place] = self._rejected(outcome)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                assert outcome is not None  # a proxy has one rung
                found[place] = _scores(outcome.metrics)
        for training in trainings:
            training.observer.close()
        seconds = (time.perf_counter() - started) / len(trainings)
        scaled = seconds * self.proxy.epochs / epochs
        return [{**found[place], "seconds": seconds, "scaled": scaled} for place in range(len(trainings))]

    def _train(self, recipe: Recipe, seed: int, most_epochs: int) -> dict[str, Any]:
        started = time.perf_counter()
        training = self.start(recipe, seed)
        trained, epochs = 0.0, min(self.proxy.epochs, most_epochs)
        try:
            for epoch in range(epochs):
                before = time.perf_counter()
                training.train_epoch(epoch, cycle=(0, self.proxy.epochs))
                trained += time.perf_counter() - before
            found = _scores(training.evaluate())
        except LossRejected as rejected:
            found, epochs = self._rejected(rejected), self.proxy.epochs  # it takes no longer than this in any case
        training.observer.close()
        seconds = time.perf_counter() - started
        return {**found, "seconds": seconds, "scaled": seconds + trained * (self.proxy.epochs / epochs - 1)}

    def _rejected(self, reason: LossRejected) -> dict[str, Any]:
        return {**_scores(Metrics.useless(self.task.num_classes)), "rejected": str(reason)}


def _scores(metrics: Metrics) -> dict[str, Any]:
    return {"accuracy": metrics.accuracy, "reward": reward(metrics), "rejected": None}


@lru_cache(maxsize=2)  # both rows of the searches
def bench_of(setting: Setting, row: Row) -> Bench:
    """Give what a worker has ready for a row."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Bench(setting, row)
