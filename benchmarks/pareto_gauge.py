"""What UniADSSampler finds in 100, 200 and 400 trials with two objectives, side by side with Optuna's samplers.

Claims, in paired differences of the noise-free hypervolume of all finished trials, as a share of that of the
landscape's reference front (`pareto_landscapes.py` describes the families and the share):

- ahead of NSGAIISampler, whichever of the population sizes 50 (its default) and 20 is the better, by more than two
  standard errors on every family after 200 and after 400 trials;
- after 400 trials ahead of TPESampler, whichever of its defaults and `group=True, multivariate=True` is the better,
  on most families, and on none behind by more than one standard error.

    python benchmarks/pareto_gauge.py --landscapes 30 --processes 2 --figure pareto.png

P and S are observed with noise (0.3 standard deviations of uniform draws; the cost in P is exact), Q and R without.
Seed and noise are those of the landscape, the same for every sampler. "ours-plain" is UniADSSampler without
screening: the evolutionary search alone.

Every search is a line of `results/pareto_gauge.jsonl`, so the command can be stopped and run again; a search counts
as done while the sampler's code and the landscape are what they were. The report about the searches asked for is
`results/pareto_gauge.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from gauge_report import Job, save_figure, surroundings
from landscapes import UniformTrial
from loky import ProcessPoolExecutor, as_completed
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from pareto_landscapes import FAMILIES, ParetoLandscape
from pareto_report import CHECKPOINTS, ORDER, ParetoRecord, draw, landscapes_of, print_report, report
from sampler_gauge import ONE_THREAD, be_quiet, jobs_of, source_hash

from optuna_kd.samplers import UniADSSampler

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "nsga2-20": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe-group": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
    "ours-plain": lambda seed: UniADSSampler(seed, screening=False),
    "ours": lambda seed: UniADSSampler(seed),
}
RESULT = Path(__file__).parent / "results" / "pareto_gauge.jsonl"


def run_job(family: str, number: int, sampler: str) -> ParetoRecord:
    """Run one search to its end."""
    version = version_of(sampler, family)  # first: the source is still what was imported
    land = landscape_of(family, number)
    started = time.process_time()
    shares = list(search(land, SAMPLERS[sampler](number)))
    seconds = time.process_time() - started
    return ParetoRecord(family, number, sampler, version, [round(share, 6) for share in shares], round(seconds, 2))


def search(land: ParetoLandscape, sampler: BaseSampler, checkpoints: Sequence[int] = CHECKPOINTS) -> Iterator[float]:
    """Ask and tell; yields at each checkpoint the share of the hypervolume that was found."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    scores = np.empty((checkpoints[-1], 2))  # without noise
    for number in range(checkpoints[-1]):
        trial = study.ask()
        scores[number] = land.score(trial)
        study.tell(trial, (scores[number] + land.noise_of(number)).tolist())
        if number + 1 in checkpoints:
            yield land.share(scores[: number + 1])


@lru_cache(maxsize=8)
def landscape_of(family: str, number: int) -> ParetoLandscape:
    """Give a landscape; the jobs of one come after each other, and its unit and front take a second."""
    land = FAMILIES[family](number)
    assert land.attainable > 0  # known before the clock starts
    return land


@cache
def version_of(sampler: str, family: str) -> str:
    """Name what a record is about: the sampler's source or Optuna's version, the family's values, the checkpoints."""
    code = source_hash(without=None) if sampler.startswith("ours") else f"optuna {metadata.version('optuna')}"
    return f"{code}, {family} {landscape_hash(family)}, {CHECKPOINTS}"


@cache
def landscape_hash(family: str) -> str:
    """Hash values of the family's first landscape, not its code, of which some changes nothing."""
    land, trial = landscape_of(family, 0), UniformTrial(np.random.default_rng(0))
    values = [land.attainable, *(value for number in range(50) for value in land.score(trial) + land.noise_of(number))]
    return hashlib.sha256(" ".join(f"{value:.6f}" for value in values).encode()).hexdigest()[:12]


def read_records(path: Path) -> list[ParetoRecord]:
    """Read the records, the last of each job, without those of other versions of sampler or landscape."""
    found: dict[Job, ParetoRecord] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = ParetoRecord(**json.loads(line))
        except ValueError:  # half a line, written when the command was stopped
            continue
        if record.version == version_of(record.sampler, record.family):
            found[record.job] = record
    return [found[job] for job in sorted(found)]


def tidy(path: Path) -> list[ParetoRecord]:
    """Put the store in order, without stale records and half lines, and read it."""
    records = read_records(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    whole.write_text("".join(map(line_of, records)), encoding="utf-8")
    whole.replace(path)
    return records


def line_of(record: ParetoRecord) -> str:
    return json.dumps(asdict(record)) + "\n"


def run_gauge(jobs: Sequence[Job], path: Path, processes: int) -> dict[str, Any]:
    """Run the jobs of which the store has no record, and write the report about all of them beside it."""
    done = {record.job for record in tidy(path)}
    missing = [job for job in jobs if job not in done]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} searches are done", flush=True)
    for count, record in enumerate(run_all(missing, processes), start=1):
        with path.open("a", encoding="utf-8") as file:
            file.write(line_of(record))
        values = " ".join(f"{value:.3f}" for value in record.shares)
        told = f"{record.family} {record.landscape} {record.sampler}: {values}, {record.seconds:.1f} s"
        print(f"{count}/{len(missing)} {told}", flush=True)
    wanted = set(jobs)
    content = {
        "claim": (__doc__ or "").splitlines()[0],
        "landscapes": landscapes_of(jobs),
        **surroundings(),
        "sampler_source": source_hash(without=None),
        **report([record for record in tidy(path) if record.job in wanted]),
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[ParetoRecord]:
    if not jobs or processes == 0:
        yield from (run_job(*job) for job in jobs)
        return
    pool = ProcessPoolExecutor(processes, env=ONE_THREAD, initializer=be_quiet)
    try:
        yield from (future.result() for future in as_completed([pool.submit(run_job, *job) for job in jobs]))
    finally:
        pool.shutdown(kill_workers=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--landscapes", type=int, default=30, help="landscapes of each family (30)")
    parser.add_argument("--first", type=int, default=0, help="number of the first landscape (0)")
    parser.add_argument("--samplers", nargs="+", default=list(ORDER), choices=ORDER)
    parser.add_argument("--processes", type=int, default=2, help="searches at once (2); 0: in this process")
    parser.add_argument("--out", type=Path, default=RESULT, help="the store; the report is beside it, as .json")
    parser.add_argument("--figure", type=Path, help="draw the report into this image")
    arguments = parser.parse_args()
    be_quiet()
    landscapes = range(arguments.first, arguments.first + arguments.landscapes)
    jobs = jobs_of(arguments.families, landscapes, arguments.samplers)
    content = run_gauge(jobs, arguments.out, arguments.processes)
    print_report(content)
    if arguments.figure:
        save_figure(draw(content), arguments.figure)


if __name__ == "__main__":
    # By its name, or workers would get copies of the functions for every job, with empty caches.
    import pareto_gauge

    pareto_gauge.main()
