"""What MCTSSampler finds in 25, 50 and 100 noisy trials, side by side with Optuna's samplers, seed by seed.

Claims, as paired leads over TPE with Optuna's defaults in the noise-free value of the recommended recipe, counted
in standard deviations of uniform draws (`landscapes.py` describes the five families):

- A, pairs of options: at least 0.8, 0.65 and 0.45 after 25, 50 and 100 trials; B, prefix tree: 0.45, 0.45 and
  0.4; C, floats and integers: 0.35, 0.25 and 0.1; D, trained recipes, and E, student and recipe: two standard
  errors;
- after 100 trials no other sampler is ahead by more than one standard error of the paired difference;
- on A, B and C, 50 trials find at least what TPE finds in 100;
- eight asynchronous workers cost less than 0.1 sd after 100 trials: the lower end of the 90 % interval of the
  paired difference, all families together, is above -0.1.

    python benchmarks/sampler_gauge.py --landscapes 40 --processes 2 --figure gauge.png

MCTSSampler recommends by its `recommend`; the others have none, theirs is the best observed trial, whose score is
kept for all. Seed and noise are those of the landscape, the same for every sampler. NSGA-II has a population of
20: with its default of 50 it would see two generations in 100 trials. Family D is one table of real trainings
(`tables/make_digits_recipes.py`); its landscapes, and its standard errors, differ in noise and seeds only.

Every search is a line of `results/sampler_gauge.jsonl`, so the command can be stopped and run again; a search
counts as done while the sampler's code and the landscape are what they were. The report about the searches asked
for is `results/sampler_gauge.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from gauge_report import CHECKPOINTS, Job, Record, draw, print_report, report, save_figure, surroundings
from landscapes import FAMILIES, Landscape, UniformTrial
from loky import ProcessPoolExecutor, as_completed
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

import optuna_kd.samplers
from optuna_kd.samplers import MCTSSampler

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe-group": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
    "nsga2": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
    "uct": lambda seed: MCTSSampler(seed, selection="uct"),
    "ours": lambda seed: MCTSSampler(seed),
    "ours-8": lambda seed: MCTSSampler(seed),
}
WORKERS = {"ours-8": 8}  # trials at a time; one elsewhere
RESULT = Path(__file__).parent / "results" / "sampler_gauge.jsonl"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_job(family: str, number: int, sampler: str) -> Record:
    """Run one search to its end."""
    version = version_of(sampler, family)  # first: the source is still what was imported
    land = landscape_of(family, number)
    scores = list(search(land, SAMPLERS[sampler](number), WORKERS.get(sampler, 1)))
    return Record(
        family=family,
        landscape=number,
        sampler=sampler,
        version=version,
        recommended=[recommended for recommended, _ in scores],
        observed=[observed for _, observed in scores],
        optimum=land.z(land.best),
    )


def search(
    land: Landscape, sampler: BaseSampler, workers: int, checkpoints: Sequence[int] = CHECKPOINTS
) -> Iterator[tuple[float, float]]:
    """Ask and tell as `workers` asynchronous workers would, in simulated time.

    Yields:
        At each checkpoint the noise-free value of the recommended and of the best observed trial.
    """
    study = optuna.create_study(direction="maximize", sampler=sampler)
    scores: list[float] = []  # without noise, by trial number
    running: list[tuple[float, int, float]] = []  # the end, the number and the noisy value of a trial
    now = 0.0
    for finished in range(1, checkpoints[-1] + 1):
        while len(running) < workers and len(scores) < checkpoints[-1]:
            trial = study.ask()
            value = land.observe(trial, trial.number)
            scores.append(land.score(trial))
            heapq.heappush(running, (now + duration(land.number, trial.number), trial.number, value))
        now, number, value = heapq.heappop(running)
        study.tell(number, value)
        if finished in checkpoints:
            yield scores[recommend(study).number], scores[study.best_trial.number]


def duration(landscape: int, number: int) -> float:
    return 1 + np.random.default_rng([landscape, 3, number]).exponential(0.5)


def recommend(study: optuna.Study) -> FrozenTrial:
    return study.sampler.recommend(study) if isinstance(study.sampler, MCTSSampler) else study.best_trial


@lru_cache(maxsize=4)
def landscape_of(family: str, number: int) -> Landscape:
    """Give a landscape; the jobs of one come after each other, and its unit and optimum take a second."""
    return FAMILIES[family](number)


@cache
def version_of(sampler: str, family: str) -> str:
    """Name what a record is about: the sampler's source or Optuna's version, the family's values, the checkpoints."""
    ours = isinstance(SAMPLERS[sampler](0), MCTSSampler)
    code = source_hash() if ours else f"optuna {metadata.version('optuna')}"
    return f"{code}, {family} {landscape_hash(family)}, {CHECKPOINTS}"


@cache
def source_hash(*, without: str | None = "nsga") -> str:
    """Hash what `MCTSSampler` is made of: the room of the samplers without what else lives there.

    Args:
        without: The folder that is left out; None hashes all.
    """
    folder = Path(optuna_kd.samplers.__file__).parent
    content = hashlib.sha256()
    files = [path for path in folder.rglob("*.py") if path.name != "__init__.py" and without not in path.parts]
    for path in sorted(files):
        content.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


@cache
def landscape_hash(family: str) -> str:
    """Hash values of the family's first landscape, not its code, of which some changes nothing."""
    land, trial = landscape_of(family, 0), UniformTrial(np.random.default_rng(0))
    values = [land.z(land.best), *(land.observe(trial, number) for number in range(50))]
    return hashlib.sha256(" ".join(f"{value:.6f}" for value in values).encode()).hexdigest()[:12]


def read_records(path: Path) -> list[Record]:
    """Read the records, the last of each job, without those of other versions of sampler or landscape."""
    found: dict[Job, Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = Record(**json.loads(line))
        except ValueError:  # half a line, written when the command was stopped
            continue
        if record.version == version_of(record.sampler, record.family):
            found[record.job] = record
    return [found[job] for job in sorted(found)]


def tidy(path: Path) -> list[Record]:
    """Put the store in order, without stale records and half lines, and read it."""
    records = read_records(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    whole.write_text("".join(map(line_of, records)), encoding="utf-8")
    whole.replace(path)
    return records


def line_of(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"


def run_gauge(jobs: Sequence[Job], path: Path, processes: int) -> dict[str, Any]:
    """Run the jobs of which the store has no record, and write the report about all of them beside it."""
    done = {record.job for record in tidy(path)}
    missing = [job for job in jobs if job not in done]
    print(f"{len(jobs) - len(missing)} of {len(jobs)} searches are done", flush=True)
    for count, record in enumerate(run_all(missing, processes), start=1):
        with path.open("a", encoding="utf-8") as file:
            file.write(line_of(record))
        values = " ".join(f"{value:.2f}" for value in record.recommended)
        print(f"{count}/{len(missing)} {record.family} {record.landscape} {record.sampler}: {values}", flush=True)
    wanted = set(jobs)
    found = report([record for record in tidy(path) if record.job in wanted])
    numbers = sorted({number for _, number, _ in jobs})
    content = {
        "claim": __doc__.splitlines()[0],
        "landscapes": {"first": numbers[0], "count": len(numbers)},
        **surroundings(),
        "sampler_source": source_hash(),
        **found,
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[Record]:
    if not jobs or processes == 0:
        yield from (run_job(*job) for job in jobs)
        return
    pool = ProcessPoolExecutor(processes, env=ONE_THREAD, initializer=be_quiet)
    try:
        yield from (future.result() for future in as_completed([pool.submit(run_job, *job) for job in jobs]))
    finally:
        pool.shutdown(kill_workers=True)


def be_quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def jobs_of(families: Iterable[str], landscapes: Iterable[int], samplers: Iterable[str]) -> list[Job]:
    """List the searches, all of one landscape after each other."""
    return [(family, number, name) for number in landscapes for family in families for name in samplers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--landscapes", type=int, default=40, help="landscapes of each family (40)")
    parser.add_argument("--first", type=int, default=0, help="number of the first landscape (0)")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
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
    import sampler_gauge

    sampler_gauge.main()
