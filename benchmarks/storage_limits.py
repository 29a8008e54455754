"""How many trials a second each storage takes, from several workers at once.

No claim; it says from how many workers on a storage is the limit: of trials of a minute, sixty times as many workers as
trials a second.

    python benchmarks/storage_limits.py    # starts a PostgreSQL server of its own, where its programs are installed

A trial is that of `storage_overhead.py`: all that `optuna_kd.DistillationObjective` reads and writes, without the
training between its rungs. Workers are processes of one thread. They, the database server and the proxy share the cores
of one machine here, so servers on machines of their own take more. All begin at the same moment in an empty study; what
counts is how many trials were finished between two moments.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from gauge_report import surroundings

import optuna_kd
from optuna_kd.storages import create_storage

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "storages")]

WORKERS = (1, 2, 4, 8)
RESULT = Path(__file__).parent / "results" / "storage_limits.json"
NAME = "limits"


def work(url: str, ready: Any, seconds: float, finished: Any) -> None:
    """Run trials for so long; count those that have ended."""
    import torch
    from storage_overhead import NeverPrunes, NoTraining, create_objective, run_one

    import optuna_kd.objective

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna_kd.objective.StudentTraining = NoTraining  # type: ignore[misc,assignment]
    torch.manual_seed(0)  # the same teacher in all
    objective = create_objective()
    storage = create_storage(url)
    study = optuna_kd.load_study(NAME, storage=storage, sampler="random", pruner=NeverPrunes())
    objective.bind(study)
    ready.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run_one(study, objective)
        if time.monotonic() < end:
            with finished.get_lock():
                finished.value += 1


def measure(url: str, workers: int, seconds: float) -> float:
    """Give the trials a second of so many workers in an empty database."""
    optuna_kd.create_study(storage=url, study_name=NAME, seed=0)
    context = multiprocessing.get_context("spawn")
    ready, finished = context.Barrier(workers), context.Value("i", 0)
    processes = [context.Process(target=work, args=(url, ready, seconds, finished)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"A worker on {url} failed.")
    return finished.value / seconds


@contextlib.contextmanager
def storages() -> Iterator[dict[str, Any]]:
    """Give what makes the URL of an empty storage of each kind."""
    from proxy_server import free_port, start_proxy
    from server import Server

    server, proxies = Server(), []
    number = iter(range(10**6))
    server.start()

    def proxy() -> str:
        port = free_port()
        proxies.append(start_proxy(server.create_database("behind"), port))
        create_storage(f"grpc://127.0.0.1:{port}", patience=60.0)  # waits until it answers
        return f"grpc://127.0.0.1:{port}"

    try:
        with tempfile.TemporaryDirectory() as folder:
            yield {
                "sqlite": lambda: f"sqlite:///{folder}/kd{next(number)}.db",
                "postgresql": lambda: server.create_database("limits"),
                "proxy before postgresql": proxy,
                "journal": lambda: f"journal:///{folder}/kd{next(number)}.log",
            }
    finally:
        for process in proxies:
            process.kill()
            process.wait()
        server.remove()


def store(found: dict[str, dict[str, list[float]]], seconds: float, path: Path) -> None:
    """Write what was measured until now."""
    content = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "seconds": seconds,
        "trials_a_second": found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS), help="processes at once")
    parser.add_argument("--seconds", type=float, default=10.0, help="that each measurement takes")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements, by turns")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, dict[str, list[float]]] = {}
    with storages() as kinds:
        for _ in range(arguments.rounds):
            for workers in arguments.workers:
                for kind, new in kinds.items():
                    rate = measure(new(), workers, arguments.seconds)
                    found.setdefault(kind, {}).setdefault(str(workers), []).append(round(rate, 2))
                    print(f"{kind:<24}{workers:>3} workers  {rate:>6.1f} trials a second", flush=True)
                    store(found, arguments.seconds, arguments.out)


if __name__ == "__main__":
    main()
