"""What a trial costs beside its training, in a study of 10,000: asking, suggesting, reporting, telling, and attributes.

Claim: with 10,000 trials in the study the median is below 50 ms a trial, on SQLite and on PostgreSQL.

    python benchmarks/storage_overhead.py                                        # SQLite, in a temporary folder
    python benchmarks/storage_overhead.py --storage postgresql+psycopg://...     # an empty database of your own, too

A trial is one of `optuna_kd.DistillationObjective`, with all that it reads and writes, but the training between its
four rungs is left out. The parameters are drawn at random, because `sampler_overhead.py` measures the samplers. One
process, one thread; studies of all sizes and databases take turns. The finished trials are copies of some that were
run, with their parameters, attributes and intermediate values; PostgreSQL has seen them (ANALYZE), as it would have
where they had been run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import torch
from gauge_report import print_claims, surroundings
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial
from sklearn.datasets import load_digits

import optuna_kd.objective
from optuna_kd import DistillationObjective, ImageClassification, ProxyConfig, create_study
from optuna_kd.models import create_model
from optuna_kd.rewards import Metrics
from optuna_kd.storages import create_storage, show_storage
from optuna_kd.storages._compat import models, scoped
from optuna_kd.storages.urls import backend_of
from optuna_kd.study.optimizing import next_trial, run_trial
from optuna_kd.training.lesson import Rung

SIZES = (100, 2_000, 10_000)  # finished trials
LIMIT = 50.0  # ms
TEMPLATES, TURNS, BLOCK = 20, 5, 8  # trials that are copied; turns; trials a turn
PROXY = ProxyConfig(epochs=8, rungs=(1, 2, 4, 8))
RESULT = Path(__file__).parent / "results" / "storage_overhead.json"
COPIED = ("trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes",
          "trial_intermediate_values", "trial_heartbeats")  # fmt: skip


class NoTraining:
    """Stands for `StudentTraining`: rungs without anything between them."""

    def __init__(self, *_: Any, seed: int, **__: Any) -> None:
        self._rng = np.random.default_rng(seed)

    def lessons(self) -> Iterator[Rung]:
        """Give the rungs."""
        for epoch in PROXY.rungs:
            loss = float(self._rng.uniform(0.1, 1.0))
            yield Rung(epoch, Metrics(1 - loss / 3, loss, 0.8, loss, 10))


class NeverPrunes(BasePruner):
    """Reads what other trials reported, as a pruner does, and lets all go on."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Read, and let it go on."""
        return len(study.get_trials(deepcopy=False)) < 0


def create_objective() -> DistillationObjective:
    bundled = load_digits()
    images = np.round(bundled.images * 255 / 16).astype(np.uint8)[:, None]

    def network() -> torch.nn.Module:
        return create_model("resnet8x0.25", num_classes=10, in_channels=1, input_size=8)

    task = ImageClassification(network(), network, (images[:400], bundled.target[:400]), device="cpu")
    objective = DistillationObjective(task, proxy=PROXY)
    objective.use(None)
    return objective


def prepare(url: str, size: int, objective: DistillationObjective) -> Study:
    """Give a study with so many finished trials."""
    study = create_study(storage=url, study_name=f"{size} trials", seed=0, sampler="random", pruner=NeverPrunes())
    for _ in range(TEMPLATES):
        run_one(study, objective)
    copy_trials(study, size - TEMPLATES)
    if url.startswith("postgresql"):
        analyze(study)
    # Read anew: nothing of it is cached.
    return optuna_kd.load_study(study.study_name, storage=create_storage(url), sampler="random", pruner=NeverPrunes())


def copy_trials(study: Study, count: int) -> None:
    """Copy the trials of a study until there are `count` more, with all that belongs to them."""
    backend: Any = backend_of(study._storage)
    tables = models.BaseModel.metadata.tables
    with scoped(backend.scoped_session) as session:
        trials = tables["trials"]
        originals = session.execute(trials.select().where(trials.c.study_id == study._study_id)).mappings().all()
        first = max(row["trial_id"] for row in session.execute(trials.select()).mappings()) + 1
        sources = [originals[place % len(originals)] for place in range(count)]
        new = [
            {**row, "trial_id": first + place, "number": len(originals) + place} for place, row in enumerate(sources)
        ]
        session.execute(trials.insert(), new)
        for name in COPIED:
            table = tables[name]
            key = next(iter(table.primary_key)).name
            rows: dict[int, list[dict[str, Any]]] = {}
            for row in session.execute(table.select()).mappings():
                rows.setdefault(row["trial_id"], []).append({**row})
            copies = [
                {**{column: value for column, value in row.items() if column != key}, "trial_id": first + place}
                for place, source in enumerate(sources)
                for row in rows.get(source["trial_id"], [])
            ]
            if copies:
                session.execute(table.insert(), copies)
        if backend.engine.dialect.name == "postgresql":
            session.execute(
                sqlalchemy.text(f"SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), {first + count})")
            )


def analyze(study: Study) -> None:
    """Let PostgreSQL look at what it holds, as it does by itself within a minute of such growth."""
    backend: Any = backend_of(study._storage)
    with backend.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sqlalchemy.text("ANALYZE"))


def run_one(study: Study, objective: DistillationObjective) -> None:
    trial = next_trial(study, None)
    assert trial is not None
    run_trial(study, trial, objective, ())


def time_block(study: Study, objective: DistillationObjective) -> list[float]:
    """Give the milliseconds of some trials."""
    taken = []
    for _ in range(BLOCK):
        started = time.perf_counter()
        run_one(study, objective)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def measure(urls: Sequence[str], sizes: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Time trials in studies of all sizes in all databases, by turns."""
    objective = create_objective()
    studies = {(url, size): prepare(url, size, objective) for url in urls for size in sizes}
    for study in studies.values():
        time_block(study, objective)  # reads the trials
    taken: dict[tuple[str, int], list[float]] = {place: [] for place in studies}
    for _ in range(TURNS):
        for place, study in studies.items():
            taken[place] += time_block(study, objective)
    found: dict[str, dict[str, Any]] = {}
    for (url, size), values in taken.items():
        kind = show_storage(url).split(":")[0].split("+")[0]
        ordered = sorted(values)
        found.setdefault(kind, {})[str(size)] = {
            "n": len(values),
            "median_ms": round(median(values), 2),
            "quartiles_ms": [round(ordered[len(ordered) // 4], 2), round(ordered[3 * len(ordered) // 4], 2)],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", nargs="*", default=[], help="URLs of empty databases, beside SQLite")
    parser.add_argument("--quick", action="store_true", help="small studies, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna_kd.objective.StudentTraining = NoTraining  # type: ignore[misc,assignment]
    sizes = (30, 60) if arguments.quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        found = measure([f"sqlite:///{folder}/kd.db", *arguments.storage], sizes)
    largest = str(max(sizes))
    claims = [
        {"claim": f"{kind}: below {LIMIT:g} ms a trial at {largest} trials", "n": by_size[largest]["n"],
         "mean": by_size[largest]["median_ms"], "se": None, "met": by_size[largest]["median_ms"] < LIMIT}
        for kind, by_size in found.items()
    ]  # fmt: skip
    content = {"claim": (__doc__ or "").splitlines()[0], **surroundings(), "milliseconds": found, "claims": claims}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for kind, by_size in found.items():
        for size, row in by_size.items():
            print(f"{kind:<12}{size:>7} trials  {row['median_ms']:>7.1f} ms  {row['quartiles_ms']}")
    print_claims(claims)


if __name__ == "__main__":
    main()
