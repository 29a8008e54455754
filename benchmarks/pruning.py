"""What CKAPruner saves, and what it costs: pruned against unpruned searches, study seed by study seed.

Claim: a 60-trial search on the digits with the default pruner trains at least 40 % fewer proxy epochs, and
the lower 90 % bound of the paired difference in final test accuracy to the unpruned search is above -1.0
point. Each search: MCTS, 60 trials, the five best confirmed with three new seeds, the winner trained in full
with five seeds. The arms of one study seed share teacher, data, seeds and machine.

    python benchmarks/pruning.py --seeds 10 --processes 2

Finished searches are kept in the result file, so the command can be stopped and run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev

import optuna
import torch
from loky import ProcessPoolExecutor
from optuna.pruners import BasePruner, NopPruner
from scipy import stats

from optuna_kd.commands import DIGITS, TaskOptions, create_task, load_splits
from optuna_kd.objective import DistillationObjective
from optuna_kd.pruners import CKAPruner, record_control_gaps
from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.confirmation import confirm
from optuna_kd.runner.controls import PLAIN_KD
from optuna_kd.runner.jobs import Worker, run_proxy
from optuna_kd.runner.ledger import Ledger
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.run import Clock, Run
from optuna_kd.runner.workers import Workers
from optuna_kd.seeds import derive_seed
from optuna_kd.study import create_study, optimize, top_recipes
from optuna_kd.training.full import distill
from optuna_kd.training.offline import store_knowledge
from optuna_kd.training.together import learn_alone

ARMS = ("none", "default", "eta=2", "eta=3", "eta=4")
RESULT = Path(__file__).parent / "results" / "pruning.json"


def create_pruner(arm: str) -> BasePruner:
    if arm == "none":
        return NopPruner()
    return CKAPruner() if arm == "default" else CKAPruner(float(arm.partition("=")[2]))


def run_search(arm: str, seed: int, trials: int) -> dict[str, object]:
    """Run one search to the end and give what it cost and what came out."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.perf_counter()
    options = TaskOptions(
        data="digits", teacher=None, teacher_checkpoint=None, student=None, device="cpu", epochs=None,
        seeds=None, max_train=None, batch_size=None, image_size=None, seed=seed,
    )  # fmt: skip
    task = create_task(options, load_splits(options), say=SilentReporter())
    objective = DistillationObjective(
        task, proxy=ProxyConfig(epochs=DIGITS.proxy_epochs), knowledge=store_knowledge(task)
    )
    study = create_study(storage=None, study_name="search", seed=seed, pruner=create_pruner(arm))
    objective.bind(study)
    worker = Worker(task, objective, study, "mcts", seed, "benchmark")
    with Workers(1, lambda: worker, threads=1) as workers:
        run = Run(study, objective, workers, SilentReporter(), Clock(), seed)
        control = learn_alone(run_proxy(worker, PLAIN_KD, derive_seed(seed, "control", str(PLAIN_KD))))
        record_control_gaps(study, {int(rung): gap for rung, gap in control["gaps"].items()})
        optimize(study, objective, total_trials=trials)
        ledger = Ledger(None, "confirmation", metric="reward")
        (winner,) = confirm(run, ledger, [top_recipes(study, 5)], 3)
    result = distill(task, winner, epochs=DIGITS.epochs, seeds=5, seed=seed, knowledge=objective.knowledge)
    epochs = sum(trial.user_attrs.get("epochs", 0) for trial in study.trials)
    return {
        "arm": arm,
        "seed": seed,
        "trials": trials,
        "recipe": str(winner),
        "proxy_epochs": epochs,
        "unpruned_epochs": trials * DIGITS.proxy_epochs,
        "complete": len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))),
        "best_reward": study.best_value,
        "test_accuracy": fmean(result.test_accuracies),
        "val_accuracy": fmean(run.val_accuracy for run in result.runs),
        "seconds": round(time.perf_counter() - started, 1),
    }


def summarise(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Compare every arm with the unpruned one over the study seeds that both have."""
    by_arm = {arm: {run["seed"]: run for run in runs if run["arm"] == arm} for arm in ARMS}
    summary = {}
    for arm, found in by_arm.items():
        seeds = sorted(set(found) & set(by_arm["none"]))
        if arm == "none" or len(seeds) < 2:
            continue
        saved = [1 - found[s]["proxy_epochs"] / found[s]["unpruned_epochs"] for s in seeds]
        differences = [100 * (found[s]["test_accuracy"] - by_arm["none"][s]["test_accuracy"]) for s in seeds]
        error = stdev(differences) / len(seeds) ** 0.5
        summary[arm] = {
            "study_seeds": len(seeds),
            "epochs_saved_percent": round(100 * fmean(saved), 1),
            "epochs_saved_lowest_percent": round(100 * min(saved), 1),
            "accuracy_points": round(fmean(differences), 2),
            "accuracy_points_sd": round(stdev(differences), 2),
            "lower_90_bound": round(fmean(differences) - stats.t.ppf(0.95, len(seeds) - 1) * error, 2),
            "test_accuracy_percent": round(100 * fmean(found[s]["test_accuracy"] for s in seeds), 2),
            "unpruned_accuracy_percent": round(100 * fmean(by_arm["none"][s]["test_accuracy"] for s in seeds), 2),
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="study seeds (10)")
    parser.add_argument("--trials", type=int, default=60, help="trials of each search (60)")
    parser.add_argument("--arms", nargs="+", default=["none", "default"], choices=ARMS)
    parser.add_argument("--processes", type=int, default=2, help="searches at once (2)")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    runs = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    done = {(run["arm"], run["seed"], run["trials"]) for run in runs}
    missing = [
        (arm, seed, arguments.trials)
        for seed in range(arguments.seeds)
        for arm in arguments.arms
        if (arm, seed, arguments.trials) not in done
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(arguments.processes, env={"OMP_NUM_THREADS": "1"}) as pool:
        for number, run in enumerate(pool.map(run_search, *zip(*missing, strict=True)) if missing else (), 1):
            runs.append(run)
            print(f"{number}/{len(missing)} {run}", flush=True)
            content = {
                "claim": __doc__.splitlines()[0],
                "machine": f"{platform.system()} {platform.machine()}, {arguments.processes} processes of one thread",
                "versions": {name: metadata.version(name) for name in ("optuna-kd", "optuna", "torch")},
                "summary": summarise(runs),
                "runs": runs,
            }
            arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(summarise(runs), indent=2))


if __name__ == "__main__":
    main()
