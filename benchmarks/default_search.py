"""The default search, beside that of an earlier version: how long it takes, and whether it finds as much.

Claims: `optuna-kd search`, as it is typed, takes less than two minutes on two CPU cores (a mean; the training of the
teacher and of 40 students included); and the students of the recipe that it finds are as good as those of the version
beside it: the lower 90 % bound of the paired difference in their mean test accuracy is above -1.0 point, over ten study
seeds.

    git worktree add ../before fb5afbc          # before the engine of the proxies
    python benchmarks/default_search.py --beside ../before --seeds 10

Both versions run in this environment, one search at a time, taking turns in who is first; every search in an empty
folder with an empty cache, with the same seed for both. Every search is kept in the result file, so the command can be
stopped and run again. `-- --trials 10` and the like go to both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gauge_report import estimate, print_claims, shown, surroundings, with_bound
from pieces import write

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "default_search.json"
COMMAND = (sys.executable, "-c", "from optuna_kd.cli import main; main()", "search")
VERSIONS = ("this", "beside")
MINUTES, ACCURACY_LOSS = 2.0, -1.0


def search(checkout: Path, seed: int, more: Sequence[str]) -> dict[str, Any]:
    """Run one search by the code of a checkout; give its seconds and the accuracies of its table, in percent.

    Raises:
        SystemExit: If the search fails, with what it said last.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "OPTUNA_KD_CACHE": str(Path(folder, "cache"))}
        started = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, "--seed", str(seed), *more], cwd=folder, env=env, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
        summaries = list(Path(folder, "runs").glob("*/summary.json"))
        if done.returncode or len(summaries) != 1:
            sys.exit(f"A search of {checkout} ended with {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        summary = json.loads(summaries[0].read_text(encoding="utf-8"))
    accuracies = {row["method"]: 100 * fmean(row["accuracies"]) for row in summary["table"]}
    return {"seconds": round(seconds, 1), "recipe": summary["recipe"], "accuracies": accuracies}


def report(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the searches of both versions, seed by seed, and hold the claims against them."""
    by_version = {name: {run["seed"]: run for run in runs if run["version"] == name} for name in VERSIONS}
    found: dict[str, Any] = {
        name: {
            "seconds": estimate(run["seconds"] for run in done.values()),
            **{
                method: estimate(run["accuracies"][method] for run in done.values())
                for method in next(iter(done.values()))["accuracies"]
            },
        }
        for name, done in by_version.items()
        if done
    }
    this, beside = (by_version[name] for name in VERSIONS)
    claims = []
    if this:
        minutes = estimate(run["seconds"] / 60 for run in this.values())
        longest = max(run["seconds"] for run in this.values()) / 60
        claim = f"minutes of a search (the longest {longest:.2f}): less than {MINUTES:g}"
        claims.append({"claim": claim, **minutes, "met": minutes["mean"] < MINUTES})
    if both := sorted(this.keys() & beside):
        method = "searched recipe"
        ahead = with_bound([this[seed]["accuracies"][method] - beside[seed]["accuracies"][method] for seed in both])
        faster = with_bound([beside[seed]["seconds"] / this[seed]["seconds"] for seed in both])
        found |= {"this_minus_beside": ahead, "times_faster": faster}
        bound = ahead["lower_90_bound"]
        claim = f"accuracy of the searched recipe, points: lower 90 % bound {bound} > {ACCURACY_LOSS}"
        claims.append({"claim": claim, **ahead, "met": bound is not None and bound > ACCURACY_LOSS})
    return {**found, "claims": claims}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="checkout of another version; without it this one runs alone")
    parser.add_argument("--seeds", type=int, default=10, help="study seeds (10)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("more", nargs="*", help="options of both searches")
    arguments = parser.parse_args()
    checkouts = {"this": ROOT} | ({"beside": arguments.beside} if arguments.beside else {})
    if arguments.beside and not (arguments.beside / "optuna_kd").is_dir():
        parser.error(f"{arguments.beside} is no checkout of optuna_kd: it has no folder optuna_kd/")
    content = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"runs": []}
    if content["runs"] and content["options"] != arguments.more:
        parser.error(f"{arguments.out} holds searches with the options {content['options']}: give another --out")
    runs: list[dict[str, Any]] = content["runs"]
    facts = {"claim": (__doc__ or "").splitlines()[0], **surroundings(), "options": arguments.more}
    for seed in range(arguments.seeds):
        for name in sorted(checkouts, reverse=seed % 2 == 1):
            if not any((run["version"], run["seed"]) == (name, seed) for run in runs):
                found = search(checkouts[name], seed, arguments.more)
                runs.append({"version": name, "commit": commit_of(checkouts[name]), "seed": seed, **found})
                accuracy = found["accuracies"]["searched recipe"]
                print(f"seed {seed}, {name}: {found['seconds']:.0f} s, {accuracy:.2f} %", flush=True)
            write(arguments.out, {**facts, **report(runs), "runs": runs})
    for name, values in report(runs).items():
        if name in VERSIONS:
            print(f"{name:<8}" + "   ".join(f"{key} {shown(value)}" for key, value in values.items()))
    print_claims(report(runs)["claims"])


def commit_of(checkout: Path) -> str:
    found = subprocess.run(["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
