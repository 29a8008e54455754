"""The paper's Table 2 with this program: what each way to accelerate a search gives, one added to the other.

Claims: the last row takes a 60th of the first row's time for a candidate on two CPU cores (a 150th on a GPU), of which
a subset of a fifth of the images and a fifth of the epochs give 25 by definition; the same without these two takes a
2.5th (a 6th). The lower 90 % bound of the paired difference in the final student's test accuracy, of searches by the
last row minus searches by the first, is above -1.0 point.

ResNet-56 teaches ResNet-20 on CIFAR-10: some images and few epochs on a CPU, all images on a GPU. The first row is
plain: all images in all epochs, float32, the teacher asked in every step, the student as it is, one candidate after
another on all cores (or on one, if that is faster), and the data pipeline of this program. Every row is timed in fresh
processes on the same recipes, drawn uniformly from Auto-KD's space; its speed-up counts what storing the teacher's
answers takes, shared by 100 candidates. `CKAPruner` saves epochs on top of it and has a benchmark of its own
(`pruning.py`).

A search of the first row trains 16 recipes as final students are trained, and takes the best. One of the last row
scores the same 16 by its proxy, with the batches that `optuna-kd search` chooses for so few steps, and then, as that
does, the best five again with three new seeds, by whose mean it takes one: 15 proxies, which count in its time as 15 to
100 candidates. The final students learn by that recipe from all images in all epochs, those of both rows from the same
seeds.

    python benchmarks/acceleration.py --part ladder --data DIR

The teacher is trained first, and kept beside the result. Every measurement is a line of a `.jsonl`, so the command can
be stopped and run again; it counts as long as the sizes are what they were.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from gauge_report import surroundings
from ladder_report import NEW_SEEDS, Key, finalists, print_table, report, winner
from ladder_rows import BASELINE, LAST, ROWS, Setting, distil, measure, train_candidates
from pieces import machine_of, open_pool, source_of_engine, write
from small_cifar import Sizes, create_task, draw_recipes, grow_teacher, load_parts, teacher_file

from optuna_kd.seeds import derive_seed
from optuna_kd.training import accuracy
from optuna_kd.training.task import resolve_device

CPU = Sizes(images=2_000, epochs=10)
GPU = Sizes(images=45_000, epochs=240, teacher_images=45_000, teacher_epochs=60, val=5_000, batch_size=128, lr=0.1)
QUICK = Sizes(
    images=160, epochs=5, teacher="resnet8x0.5", student="resnet8x0.25", teacher_images=200, teacher_epochs=2, val=40,
    test=100, batch_size=16, views=2,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        timed: How candidates are timed.
        searched: How whole searches train; the epochs are fewer where the images are many.
        candidates: Recipes of a search.
        students: Final students of each search.
    """

    timed: Setting
    searched: Setting
    candidates: int = 16
    students: int = 3


@dataclass(frozen=True)
class Job:
    """A piece of work for a worker: what it gives is kept under these keys, one after the other."""

    keys: tuple[Key, ...]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def run(
    *,
    seeds: int,
    processes: int,
    out: Path,
    quick: bool,
    data: Path | None,
    device: str = "auto",
    images: int | None = None,
    epochs: int | None = None,
    search_epochs: int | None = None,
    timed_epochs: int | None = None,
    stacked: int | None = None,
    minutes: float | None = None,
    only: str | None = None,
) -> dict[str, Any]:
    """Measure what is not in the store yet, and write the report.

    Args:
        seeds: Rounds of timing, and searches of each row.
        processes: Processes at once; 0: all in this process, which shows that it runs and measures no memory.
        out: The report; the store is beside it, as .jsonl.
        quick: Tiny sizes, to see that it runs.
        data: Folder of CIFAR-10; None for images that are made up.
        device: As in `optuna_kd.ImageClassification`.
        images: Training images of the students; this and the rest: None for what suits the device.
        epochs: Of a full training, which is timed.
        search_epochs: Of a full training, in whole searches.
        timed_epochs: After which a timed candidate is cut.
        stacked: Candidates side by side in a process of the last row.
        minutes: After which nothing new begins; None for no end.
        only: "timing" or "searches"; None for both.
    """
    deadline = time.monotonic() + 60 * (math.inf if minutes is None else minutes)
    chosen = {"images": images, "epochs": epochs, "search_epochs": search_epochs, "timed_epochs": timed_epochs}
    plan = create_plan(out.parent, data, device, processes, quick=quick, stacked=stacked, **chosen)
    timed, searched, sizes = plan.timed, plan.searched, plan.timed.sizes
    kind = resolve_device(device).type
    store = Store(out.with_suffix(".jsonl"), {"timing": digest_of(timed), "search": digest_of(searched, timed=False)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(max(1, processes))  # for the teacher
    parts = load_parts(data, sizes)
    teacher = grow_teacher(timed.teacher, parts, sizes, device=device, deadline=deadline)
    if teacher is None:
        print("Time is up before the teacher is trained: run the command again.")
        return {"claims": []}
    task = create_task(parts, sizes, teacher, device=device)
    facts = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "machine": machine_of(kind, processes),
        "images": "CIFAR-10" if data is not None else "made up",
        "sizes": asdict(sizes),
        "search_epochs": searched.sizes.epochs,
        "stacked": timed.stacked,
        "teacher_val_accuracy": round(accuracy(task, task.teacher, "val"), 4),
    }
    if only != "searches":
        time_rows(plan, store, draw_recipes(task, 64 if not quick else 8, seed=0), seeds, deadline)
    if only != "timing":
        drawn = {
            seed: draw_recipes(task, plan.candidates, derive_seed("search", seed) % 2**32) for seed in range(seeds)
        }
        search(plan, store, {seed: list(map(str, recipes)) for seed, recipes in drawn.items()}, deadline)
    content = {**facts, "sources": store.sources(), **report(store.records, on_gpu=kind != "cpu")}
    write(out, content)
    print_table(content)
    return content


def create_plan(
    folder: Path,
    data: Path | None,
    device: str,
    processes: int,
    *,
    quick: bool,
    images: int | None,
    epochs: int | None,
    search_epochs: int | None,
    timed_epochs: int | None,
    stacked: int | None,
) -> Plan:
    """Decide what is measured, see `run`; what is not given is what suits the device."""
    on_cpu = resolve_device(device).type == "cpu"
    sizes = QUICK if quick else CPU if on_cpu else GPU
    sizes = replace(sizes, images=images or sizes.images, epochs=epochs or sizes.epochs)
    sizes = replace(sizes, teacher_images=max(sizes.images, sizes.teacher_images))
    file = teacher_file(folder, sizes, data)
    cut = timed_epochs or (sizes.epochs if on_cpu else 4)
    timed = Setting(sizes, file, data, device, processes, stacked or (1 if on_cpu else 8), cut)
    shorter = search_epochs or (sizes.epochs if on_cpu or quick else 20)
    searched = replace(timed, sizes=replace(sizes, epochs=shorter), timed_epochs=shorter)
    return Plan(timed, searched, 2, 1) if quick else Plan(timed, searched)


def time_rows(plan: Plan, store: Store, recipes: Sequence[Any], rounds: int, deadline: float) -> None:
    """Time every row in every round: the machine may get slower or faster, and all rows should see it."""
    jobs = [(round_, row) for round_ in range(rounds) for row in ROWS]
    for round_, row in jobs:
        key = ("timing", round_, row.name)
        if key not in store.records:
            if time.monotonic() > deadline:
                return
            found = measure(plan.timed, row, round_, list(map(str, recipes)))
            store.add(key, found)
            print(f"round {round_}, {row.name}: {found['seconds']:.2f} s a candidate", flush=True)


def search(plan: Plan, store: Store, drawn: dict[int, list[str]], deadline: float) -> None:
    """Run the searches of the first and the last row, and train the final students."""
    run_all(list(proxies(plan, drawn)), plan.searched, store, deadline)
    complete = {
        row.name: [
            seed
            for seed, recipes in drawn.items()
            if all(("search", seed, row.name, number) in store.records for number in range(len(recipes)))
        ]
        for row in (BASELINE, LAST)
    }
    run_all(list(confirmations(plan, store, complete[LAST.name])), plan.searched, store, deadline)
    found = {(seed, winner(store.records, row, seed)) for row, seeds in complete.items() for seed in seeds}
    students = sorted((seed, recipe) for seed, recipe in found if recipe is not None)  # once, if both found the same
    run_all(
        [
            Job((("student", seed, recipe, index),), distil, (plan.searched, recipe, seed, index))
            for seed, recipe in students
            for index in range(plan.students)
        ],
        plan.searched,
        store,
        deadline,
    )


def proxies(plan: Plan, drawn: dict[int, list[str]]) -> Iterator[Job]:
    for row in (LAST, BASELINE):
        for seed, recipes in drawn.items():
            size = plan.searched.stacked if row.at_once else 1
            for start in range(0, len(recipes), size):
                piece = recipes[start : start + size]
                keys = tuple(("search", seed, row.name, start + place) for place in range(len(piece)))
                arguments = (plan.searched, row, derive_seed("search", seed), plan.searched.sizes.epochs, piece)
                yield Job(keys, train_candidates, arguments)


def confirmations(plan: Plan, store: Store, seeds: Sequence[int]) -> Iterator[Job]:
    """Score the best of the last row again, one after another, with new seeds."""
    for seed in seeds:
        for recipe in finalists(store.records, seed):
            for index in range(NEW_SEEDS):
                arguments = (plan.searched, LAST, derive_seed("confirm", seed, index), plan.searched.sizes.epochs)
                yield Job((("confirm", seed, recipe, index),), train_candidates, (*arguments, [recipe]))


def run_all(jobs: Sequence[Job], setting: Setting, store: Store, deadline: float) -> None:
    """Run the jobs of which the store lacks something, no more at a time than there are processes."""
    missing = [job for job in jobs if not all(key in store.records for key in job.keys)]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} trainings are done", flush=True)
    if not missing:
        return
    workers = max(1, setting.cores)
    pool = open_pool(workers, 1, is_here=setting.cores == 0)
    waiting, flying = iter(missing), dict[Future[Any], Job]()
    try:
        while True:
            while len(flying) < workers and time.monotonic() < deadline and (job := next(waiting, None)):
                flying[pool.submit(job.function, *job.arguments)] = job
            if not flying:
                return
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                job, found = flying.pop(future), future.result()
                for key, result in zip(job.keys, found if isinstance(found, list) else [found], strict=True):
                    store.add(key, result)
                    print(key, {name: result[name] for name in result if "accuracy" in name}, flush=True)
    finally:
        pool.shutdown(kill_workers=True)


class Store:
    """Measurements by their keys, each a line of a file; those of other sizes stay there and are not read.

    Args:
        path: The file.
        of: For the first word of the keys, what measurements depend on; "student" and "confirm" on what "search" does.
    """

    def __init__(self, path: Path, of: dict[str, str]) -> None:
        self.path, self.of = path, {**of, "student": of["search"], "confirm": of["search"]}
        self.records: dict[Key, dict[str, Any]] = {}
        self._source = source_of_engine()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):  # half a line, written when the command was stopped
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        for line in text.splitlines(keepends=True):
            if line.endswith("\n"):
                record = json.loads(line)
                if record["of"] == self.of[record["key"][0]]:
                    self.records[tuple(record["key"])] = record

    def add(self, key: Key, found: dict[str, Any]) -> None:
        """Keep one measurement."""
        record = {"key": key, "of": self.of[str(key[0])], "source": self._source, **found}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records[key] = record

    def sources(self) -> list[str]:
        """List the versions of the engine that the measurements were made with."""
        return sorted({record["source"] for record in self.records.values()})


def digest_of(setting: Setting, *, timed: bool = True) -> str:
    """Name what measurements depend on; those of searches not on how much is done at once."""
    kind = resolve_device(setting.device).type
    text = [setting.sizes.digest, setting.teacher.name, kind]
    text += [str((setting.cores, setting.stacked, setting.timed_epochs))] if timed else []
    return hashlib.sha256(" ".join(text).encode()).hexdigest()[:8]
