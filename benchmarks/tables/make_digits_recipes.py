"""Train every recipe of a grid of Auto-KD recipes on the digits: the real table of the sampler gauge.

All 27 transform chains x 3 feature distances x 2 feature weights x 2 logit distances x 2 logit weights x
2 temperatures = 1,296 recipes, three seeds each, no surrogate, nothing pruned: what a trial of
`optuna-kd search` trains, at its full proxy length. Each training has a seed of its own (of initial weights,
data order, augmentation and masks), as in a study, so the spread between the three is a study's noise.

    python benchmarks/tables/make_digits_recipes.py --processes 2

takes about 80 minutes of one core. Finished trainings are kept beside the table (`.partial.jsonl`), so the
command can be stopped and run again. The result is `digits-recipes.csv.gz`, with what made it in
`digits-recipes.json`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import itertools
import json
import platform
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from loky import ProcessPoolExecutor, as_completed

from optuna_kd.commands import DIGITS, TaskOptions, create_task, load_splits
from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.search_space import create_space
from optuna_kd.search_space.auto_kd import FEATURE_DISTANCES, GLOBAL, INTER, INTRA, LOGIT_DISTANCES
from optuna_kd.seeds import derive_seed
from optuna_kd.training.offline import TeacherKnowledge, store_knowledge
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

GRID: dict[str, tuple[Any, ...]] = {
    "global_transform": GLOBAL,
    "intra_transform": INTRA,
    "inter_transform": INTER,
    "feature_distance": FEATURE_DISTANCES,
    "feature_weight": (1, 25),
    "logit_distance": LOGIT_DISTANCES,
    "logit_weight": (0.5, 5),
    "temperature": (1, 4),
}
SEEDS = 3
METRICS = ("accuracy", "cross_entropy", "cka", "l1")
TABLE = Path(__file__).with_name("digits-recipes.csv.gz")
PROVENANCE = Path(__file__).with_name("digits-recipes.json")
PARTIAL = Path(__file__).with_name("digits-recipes.partial.jsonl")


def all_runs() -> Iterator[dict[str, Any]]:
    """Give one row for each training: the factors of the recipe and the seed's index, one seed after the other."""
    for index in range(SEEDS):
        for values in itertools.product(*GRID.values()):
            yield {**dict(zip(GRID, values, strict=True)), "seed": index}


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return *(row[name] for name in GRID), row["seed"]


_context: tuple[ImageClassification, TeacherKnowledge | None] | None = None


def train(row: dict[str, Any]) -> dict[str, Any]:
    """Train one recipe once; a rejected loss gives a row without metrics and the reason."""
    global _context
    if _context is None:
        torch.set_num_threads(1)
        task = digits_task()
        _context = task, store_knowledge(task)
    task, knowledge = _context
    recipe = create_space("auto-kd").recipe({name: row[name] for name in GRID})
    seed = derive_seed(0, "table", str(recipe), row["seed"])
    started = time.perf_counter()
    try:
        training = StudentTraining(
            task, recipe, ProxyConfig(epochs=DIGITS.proxy_epochs), seed=seed, knowledge=knowledge
        )
        metrics = list(training.run())[-1].metrics
    except LossRejected as rejected:
        return {**row, "rejected": str(rejected), "seconds": time.perf_counter() - started}
    measured = {name: round(getattr(metrics, name), 5) for name in METRICS}
    return {**row, **measured, "seconds": time.perf_counter() - started}


def digits_task() -> ImageClassification:
    """Give the task of `optuna-kd search` without options."""
    options = TaskOptions(
        data="digits", teacher=None, teacher_checkpoint=None, student=None, device="cpu", epochs=None,
        seeds=None, max_train=None, batch_size=None, image_size=None, seed=0,
    )  # fmt: skip
    return create_task(options, load_splits(options), say=SilentReporter())


def read_partial() -> dict[tuple[Any, ...], dict[str, Any]]:
    if not PARTIAL.exists():
        return {}
    rows = []
    for line in PARTIAL.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that was being written when the command was stopped
            continue
    return {key_of(row): row for row in rows}


def write_table(rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*GRID, "seed", *METRICS], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    TABLE.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))  # the same rows give the same bytes
    seconds = [row["seconds"] for row in rows]
    PROVENANCE.write_text(
        json.dumps(
            {
                "made_by": "python benchmarks/tables/make_digits_recipes.py",
                "what": "validation metrics of proxies on the digits bundled with scikit-learn; teacher resnet20, "
                "student resnet8x0.125, the defaults of `optuna-kd search`",
                "proxy": {"epochs": DIGITS.proxy_epochs, "seeds": SEEDS},
                "grid": {name: list(values) for name, values in GRID.items()},
                "recipes": len(rows) // SEEDS,
                "rejected": sorted({row["rejected"] for row in rows if "rejected" in row}),
                "seconds_of_one_core": round(sum(seconds)),
                "machine": platform.processor() or platform.machine(),
                "python": platform.python_version(),
                "versions": {name: metadata.version(name) for name in ("optuna-kd", "torch", "optuna", "numpy")},
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    processes = parser.parse_args().processes
    digits_task()  # trains the teacher once, before several processes want it
    done = read_partial()
    missing = [row for row in all_runs() if key_of(row) not in done]
    print(f"{len(done)} trainings are done, {len(missing)} to go", flush=True)
    with ProcessPoolExecutor(processes) as pool, PARTIAL.open("a", encoding="utf-8") as file:
        for count, future in enumerate(as_completed([pool.submit(train, row) for row in missing]), start=1):
            row = future.result()
            done[key_of(row)] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            if count % 100 == 0:
                print(f"{len(done)} of {len(done) + len(missing) - count}", flush=True)
    write_table([done[key_of(row)] for row in all_runs()])
    print(f"wrote {TABLE.name} and {PROVENANCE.name}")


if __name__ == "__main__":
    # Imported by name, so that the functions that travel to the processes find their context there again.
    import make_digits_recipes

    make_digits_recipes.main()
