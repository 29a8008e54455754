"""Which parameters matter: ours beside Optuna's PED-ANOVA and fANOVA, on functions whose importances are known.

Claims, about the five functions of `known_functions.py` with 50, 100 and 300 noisy trials of random search and of TPE:

- the mean absolute error of our importances (of all parameters of a function, normalised to the sum 1) is lower than
  that of PED-ANOVA and of fANOVA in all 30 places, by more than two standard errors of the paired difference;
- our rank correlation with the truth, all functions together, is higher than that of either with 100 and 300 trials;
- our 90 % intervals hold the truth in at least 85 % of cases, for each number of trials and each sampler;
- of differences between options, the 90 % intervals hold the truth in at least 85 % of cases, and of the parameters
  whose options are all the same at most 5 % (and two standard errors) have a difference that counts as beyond noise;
- where four trials of five are pruned, our error is lower with the pruned trials than without them, and lower than
  with pruned trials judged by their rank as the samplers do, by more than two standard errors;
- a study of 300 trials takes at most 5 seconds on one core, one of 5,000 at most 20.

PED-ANOVA asks another question (what do the best trials have in common), and fANOVA knows only parameters that every
trial has; what they do not assess counts as 0. All are given the same studies.

    python benchmarks/importance.py --seeds 10 --processes 2
    python benchmarks/importance.py --quick

Every study is a line of `results/importance.jsonl`, so the command can be stopped and run again; a study counts as
done while the code of the analysis is what it was. The summary is `results/importance.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from gauge_report import save_figure
from importance_report import draw, print_summary, summarise
from known_functions import FUNCTIONS, KnownFunction
from loky import ProcessPoolExecutor
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

import optuna_kd.analysis
from optuna_kd.analysis.importance import importances
from optuna_kd.analysis.options import compare_options
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.table import TrialTable, read_table
from optuna_kd.pruners import ParetoHalvingPruner
from optuna_kd.samplers.evidence import rank_rewards, rescale, rung_ranks

SAMPLERS = {"random": RandomSampler, "tpe": TPESampler}
TRIALS = (50, 100, 300)
PRUNED_TRIALS = 100
LARGE = 5000
# Of the studies with pruning: at each rung a report is so much of the value, less so much, with noise of so many sd.
RUNGS = {1: (0.5, 6.0, 0.35), 3: (0.8, 2.0, 0.3)}
RESULT = Path(__file__).parent / "results" / "importance.jsonl"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Job = tuple[str, str, str, int, int]  # kind, function, sampler, trials, seed


def run_job(kind: str, function: str, sampler: str, trials: int, seed: int) -> dict[str, Any]:
    """Make one study and hold all methods against the truth."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    known = FUNCTIONS[function]
    study = create_study(known, SAMPLERS[sampler](seed=seed), trials, seed, prune=kind == "pruned")
    run = {"plain": run_plain, "pruned": run_pruned, "large": run_large}[kind]
    return {
        "version": version(),
        "job": [kind, function, sampler, trials, seed],
        **run(known, study),
    }


def create_study(
    known: KnownFunction, sampler: BaseSampler, trials: int, seed: int, *, prune: bool = False
) -> optuna.Study:
    pruner = ParetoHalvingPruner(2, rungs=list(RUNGS)) if prune else optuna.pruners.NopPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    rng = np.random.default_rng([seed, 1])

    def objective(trial: optuna.Trial) -> float:
        value = known.value(trial)
        for rung, (slope, shift, noise) in RUNGS.items() if prune else ():
            trial.report(slope * value - shift + noise * known.sd * rng.normal(), rung)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value + known.noise * known.sd * float(rng.normal())

    study.optimize(objective, n_trials=trials)
    return study


def run_plain(known: KnownFunction, study: optuna.Study) -> dict[str, Any]:
    begin = time.process_time()
    response = Response(read_table(study))
    rows = importances(response)
    seconds = {"ours": time.process_time() - begin}
    shares = {"ours": {row.parameter: row.share for row in rows}}
    for name, evaluator in (
        ("ped-anova", PedAnovaImportanceEvaluator()),
        ("fanova", FanovaImportanceEvaluator(seed=0)),
    ):
        begin = time.process_time()
        shares[name] = get_param_importances(study, evaluator=evaluator)
        seconds[name] = time.process_time() - begin
    return {
        "truth": known.truth,
        "shares": shares,
        "intervals": {row.parameter: (row.low, row.high) for row in rows},
        "seconds": seconds,
        "options": list(compared(known, response)),
    }


def compared(known: KnownFunction, response: Response) -> Iterator[dict[str, Any]]:
    """Compare the options of parameters whose effects are known, and of all that have none."""
    for name in [*known.effects, *(name for name in known.variances if name not in known.effects)]:
        if name not in response.table.parameters or (name not in known.effects and known.variances[name] > 0):
            continue
        effects = known.effects.get(name)
        found = compare_options(response, name).differences
        yield {
            "parameter": name,
            "null": effects is None or len(set(effects.values())) == 1,
            "held": [
                bool(
                    each.low <= (effects[each.better.value] - effects[each.worse.value] if effects else 0) <= each.high
                )
                for each in found
            ],
            "beyond_noise": sum(each.beyond_noise for each in found),
        }


def run_pruned(known: KnownFunction, study: optuna.Study) -> dict[str, Any]:
    table = read_table(study)
    tables = {"lines": table, "ranks": ranked(table), "complete alone": table.where(~table.pruned)}
    rows = {name: importances(Response(each)) for name, each in tables.items()}
    return {
        "truth": known.truth,
        "pruned": float(table.pruned.mean()),
        "shares": {name: {row.parameter: row.share for row in each} for name, each in rows.items()},
        "intervals": {row.parameter: (row.low, row.high) for row in rows["lines"]},
    }


def ranked(table: TrialTable) -> TrialTable:
    """Judge pruned trials by their ranks at their last rungs, as `optuna_kd.samplers.evidence` does."""
    values = table.values[:, 0].copy()
    known = np.sort(values[~table.pruned])
    rewards = rescale(known)
    for rung in np.unique(table.rungs[table.pruned]):
        rows = np.flatnonzero(table.rungs == rung)
        told = [trial.intermediate_values[rung] for trial in table.trials if rung in trial.intermediate_values]
        earned = rank_rewards(rung_ranks(np.sort(told), table.reported[rows, 0]), rewards)
        values[rows] = np.interp(earned, rewards, known)
    return replace(table, values=values[:, None])


def run_large(known: KnownFunction, study: optuna.Study) -> dict[str, Any]:
    begin = time.process_time()
    rows = importances(study)
    seconds = time.process_time() - begin
    return {
        "truth": known.truth,
        "shares": {"ours": {row.parameter: row.share for row in rows}},
        "seconds": {"ours": seconds},
    }


def version() -> str:
    """Hash the code that is measured: the analysis and the functions."""
    content = hashlib.sha256()
    folder = Path(optuna_kd.analysis.__file__).parent
    names = ("table", "space", "branches", "shapley", "response", "importance", "marginals", "options")
    for path in (*(folder / f"{name}.py" for name in names), Path(__file__).with_name("known_functions.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


def jobs_of(seeds: int) -> list[Job]:
    jobs: list[Job] = []
    for seed in range(seeds):
        for sampler in SAMPLERS:
            jobs += [("plain", name, sampler, trials, seed) for trials in TRIALS for name in FUNCTIONS]
            jobs += [("pruned", name, sampler, PRUNED_TRIALS, seed) for name in FUNCTIONS]
    return [*jobs, ("large", "nested", "random", LARGE, 0)]


def quick_jobs() -> list[Job]:
    return [("plain", "gated", "random", 50, 0), ("pruned", "gated", "random", 50, 0)]


def read_runs(path: Path) -> dict[Job, dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    runs, current = (json.loads(line) for line in lines), version()
    return {tuple(run["job"]): run for run in runs if run["version"] == current}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="studies of each kind (10)")
    parser.add_argument("--processes", type=int, default=2, help="studies at once (2)")
    parser.add_argument("--quick", action="store_true", help="two small studies, in seconds; nothing is kept")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--figure", type=Path, help="where to draw the comparison, such as docs/images/importance.png")
    arguments = parser.parse_args()
    if arguments.quick:
        print_summary(summarise([run_job(*job) for job in quick_jobs()]))
        return
    jobs, done = jobs_of(arguments.seeds), read_runs(arguments.out)
    missing = [job for job in jobs if job not in done]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(arguments.processes, env=ONE_THREAD) as pool,
        arguments.out.open("a", encoding="utf-8") as file,
    ):
        for count, run in enumerate(pool.map(run_job, *zip(*missing, strict=True)) if missing else (), 1):
            done[tuple(run["job"])] = run
            print(json.dumps(run), file=file, flush=True)
            print(f"{count}/{len(missing)} {run['job']}", flush=True)
    summary = summarise([done[job] for job in jobs])
    arguments.out.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print_summary(summary)
    if arguments.figure:
        save_figure(draw(summary), arguments.figure)


if __name__ == "__main__":
    main()
