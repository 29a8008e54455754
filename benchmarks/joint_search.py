"""What joint search, its sampler and its pruning give on the digits: hypervolume by proxy epochs, seed by seed.

Claims: with successive halving (rungs 2, 3, 6, 12 of 12 epochs) `UniADSSampler` reaches the hypervolume of the same 60
trials without pruning or rejection, for at most 40 % of their epochs (lower 90 % bound of the paired difference above
-0.02); after 300 epochs of proxies it is ahead of stock NSGA-II and of random search (the ablation of UniADS's Fig. 4),
of searching the architecture alone (plain KD for every student) and the recipe alone (one student of medium size).

Every front is scored on new proxies: its recipes are trained again with another seed, because the values that
brought a trial onto the front were chosen for being low. Hypervolume: of validation cross-entropy and log10 of the
parameters, below the reference point (ln 10, log10 of the largest student), as a share of the box down to (0, log10 of
the smallest student). The arms of one seed share teacher, data and machine, and begin with the smallest student, as
`optuna_kd.search` does, if they may choose it.

Beside the fronts, what a user with room for 20,000 parameters gets: of each search, after those 300 epochs, the
complete trial within them with the lowest validation cross-entropy, trained in full; against the baselines of
UniADS's Table 2, a random student and the one that DisWOT scores highest, both with plain KD, and the simplest of all:
the largest student with plain KD.

    python benchmarks/joint_search.py --seeds 10 --processes 2

Finished searches are kept in the result file, so the command can be stopped and run again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import joint_figure
import numpy as np
import optuna
import torch
from gauge_report import estimate, save_figure, surroundings, with_bound
from loky import ProcessPoolExecutor
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pareto_landscapes import hypervolume

from optuna_kd.commands import SearchOptions, create_task, load_splits
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import count_parameters, student_label
from optuna_kd.pruners import ParetoHalvingPruner
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig, halving_rungs
from optuna_kd.runner.controls import PLAIN_KD
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.search import begin_with
from optuna_kd.samplers import UniADSSampler
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.seeds import derive_seed
from optuna_kd.study import create_study, front, recipe_of
from optuna_kd.training.diswot import rank_students
from optuna_kd.training.full import distill
from optuna_kd.training.offline import store_knowledge
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.trainer import StudentTraining

TRIALS = 60
PROXY = ProxyConfig(epochs=12, rungs=halving_rungs(12))
WIDTH = {"base_width": 0.25}
MEDIUM = {"depth_1": (3,), "depth_2": (3,), "depth_3": (3,), "width": (1.0,)}
JOINT = UniADSSpace(student=StudentSpace(fixed=WIDTH))
ROOM = 20_000  # parameters
FULL_EPOCHS = 15
CURVE = (60, 120, 180, 240, 300)  # epochs of proxies
COMPARED_AFTER_TRIALS = ("uniads", "uniads, unpruned")  # too, and so they run at least as many
RESULT = Path(__file__).parent / "results" / "joint_search.json"

Arm = tuple[UniADSSpace, Callable[[int], BaseSampler], Callable[[], BasePruner]]
ARMS: dict[str, Arm] = {
    "uniads": (JOINT, lambda seed: UniADSSampler(seed=seed), ParetoHalvingPruner),
    "uniads, unpruned": (JOINT, lambda seed: UniADSSampler(seed=seed), NopPruner),
    "nsga2": (JOINT, lambda seed: NSGAIISampler(seed=seed, population_size=12), NopPruner),
    "nsga2, halving": (JOINT, lambda seed: NSGAIISampler(seed=seed, population_size=12), ParetoHalvingPruner),
    "random": (JOINT, lambda seed: RandomSampler(seed=seed), NopPruner),
    "architecture": (
        UniADSSpace(student=StudentSpace(fixed=WIDTH), distiller=False),
        lambda seed: UniADSSampler(seed=seed),
        ParetoHalvingPruner,
    ),
    "recipe": (
        UniADSSpace(student=StudentSpace(options=MEDIUM, fixed=WIDTH)),
        lambda seed: UniADSSampler(seed=seed),
        ParetoHalvingPruner,
    ),
}


def choose_random(objective: JointDistillationObjective, students: list[StudentConfig], seed: int) -> StudentConfig:
    return random.Random(seed).choice(students)


def choose_by_diswot(objective: JointDistillationObjective, students: list[StudentConfig], seed: int) -> StudentConfig:
    scores = rank_students(objective.task, students, seed=derive_seed(seed, "diswot"))
    return max(scores, key=lambda student: scores[student])


def choose_largest(objective: JointDistillationObjective, students: list[StudentConfig], seed: int) -> StudentConfig:
    return max(students, key=lambda student: parameters_of(objective, student))


BASELINES: dict[str, Callable[[JointDistillationObjective, list[StudentConfig], int], StudentConfig]] = {
    "random student, plain KD": choose_random,
    "DisWOT's student, plain KD": choose_by_diswot,
    "largest student, plain KD": choose_largest,
}


class Unpruned(JointDistillationObjective):
    """Rejects no student for guessing: every trial runs to its end, unless its loss explodes."""

    def _is_early(self, trial: Trial, goals: Sequence[str], step: int) -> bool:
        return True


def run_arm(arm: str, seed: int) -> dict[str, Any]:
    """Run one search or one baseline."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    started = time.perf_counter()
    objective = joint_objective(seed, Unpruned if arm in ARMS and ARMS[arm][2] is NopPruner else None)
    found = run_search(objective, arm, seed) if arm in ARMS else run_baseline(objective, arm, seed)
    return {"arm": arm, "seed": seed, **found, "seconds": round(time.perf_counter() - started, 1)}


def run_baseline(objective: JointDistillationObjective, arm: str, seed: int) -> dict[str, Any]:
    """Choose a student without a training, and train it with plain KD."""
    assert JOINT.student is not None
    students = [student for student in JOINT.student.all() if parameters_of(objective, student) <= ROOM]
    student = BASELINES[arm](objective, students, seed)
    return {"epochs": 0, "student": train(objective, replace(PLAIN_KD, student=student), seed)}


def run_search(objective: JointDistillationObjective, arm: str, seed: int) -> dict[str, Any]:
    """Run one search until its epochs are used up, and score its fronts on the way."""
    space, sampler, pruner = ARMS[arm]
    study = create_study(
        "uniads", storage=None, study_name="search", seed=seed, space=space, sampler=sampler(seed), pruner=pruner()
    )
    after_trials, chosen = None, None
    known: dict[Recipe, float] = {}
    curve: dict[int, float] = {}
    spent = 0
    if space.student and (smallest := objective.find_feasible(space)):
        begin_with(study, space, smallest)
    while spent < CURVE[-1] or (arm in COMPARED_AFTER_TRIALS and len(study.trials) < TRIALS):
        study.optimize(objective, n_trials=1)
        spent += study.trials[-1].user_attrs.get("epochs", 0)
        for mark in CURVE:
            if mark not in curve and spent >= mark:
                curve[mark] = hypervolume_of(study, objective, seed, known)
                chosen = best_small_trial(study)
        if len(study.trials) == TRIALS:
            after_trials = {"epochs": spent, "hypervolume": hypervolume_of(study, objective, seed, known)}
        if len(study.trials) >= 10 * TRIALS:  # of a space that is used up, or students that cost nothing
            break
    return {
        "student": train(objective, recipe_of(study, chosen), seed) if chosen else None,
        "after_60_trials": after_trials,
        "curve": {str(mark): value for mark, value in curve.items()},
        "trials": len(study.trials),
        "epochs": spent,
        "states": {state: sum(t.state.name == state for t in study.trials) for state in ("COMPLETE", "PRUNED", "FAIL")},
    }


def best_small_trial(study: Study) -> FrozenTrial | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    small = [trial for trial in complete if trial.user_attrs["parameters"] <= ROOM]
    return min(small, key=lambda trial: trial.values[0], default=None)


def train(objective: JointDistillationObjective, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train a student in full and read the test data, once."""
    assert recipe.student is not None
    task = objective.task_of(recipe)
    (run,) = distill(task, recipe, epochs=FULL_EPOCHS, seeds=1, seed=derive_seed(seed, "full")).runs
    return {
        "recipe": str(replace(recipe, student=None)),
        "student": student_label(recipe.student),
        "parameters": task.student_parameters,
        "val_accuracy": run.val_accuracy,
        "test_accuracy": run.test_accuracy,
    }


def parameters_of(objective: JointDistillationObjective, student: StudentConfig) -> int:
    return count_parameters(objective.task.draft_student(student))


def joint_objective(seed: int, kind: type[JointDistillationObjective] | None = None) -> JointDistillationObjective:
    options = SearchOptions(
        data="digits", teacher=None, teacher_checkpoint=None, student=None, device="cpu", epochs=None, seeds=None,
        max_train=None, batch_size=None, image_size=None, seed=seed, method="uniads", trials=None, timeout=None,
        workers=1, storage="", study_name=None, space=None, objectives=None, max_params=None, max_flops=None,
        max_latency_ms=None, budget_params=None, screen=0.0, chain=None, sampler=None, reward="bounded",
        temperatures=None, proxy_epochs=None, subset=None, subset_by="images", confirm="0", runs=Path(), dry_run=False,
    )  # fmt: skip
    task = create_task(options, load_splits(options), say=SilentReporter())
    return (kind or JointDistillationObjective)(task, proxy=PROXY, knowledge=store_knowledge(task))


def hypervolume_of(study: Study, objective: JointDistillationObjective, seed: int, known: dict[Recipe, float]) -> float:
    """Give the hypervolume of a study's front, scored anew; `known` keeps what was scored before."""
    try:
        trials = front(study)
    except ValueError:
        return 0.0
    points = []
    for trial in trials:
        recipe = recipe_of(study, trial)
        if recipe not in known:
            known[recipe] = fresh_cross_entropy(objective, recipe, derive_seed(seed, "fresh"))
        points.append((known[recipe], math.log10(trial.user_attrs["parameters"])))
    loss, largest, smallest = bounds(objective)
    return hypervolume(np.array(points), (loss, largest)) / (loss * (largest - smallest))


def fresh_cross_entropy(objective: JointDistillationObjective, recipe: Recipe, seed: int) -> float:
    task = objective.task_of(recipe)
    try:
        training = StudentTraining(task, recipe, PROXY, seed=seed, knowledge=objective.knowledge)
        return list(training.run())[-1].metrics.cross_entropy
    except LossRejected:
        return math.log(task.num_classes)


def bounds(objective: JointDistillationObjective) -> tuple[float, float, float]:
    """Give the reference point (cross-entropy, log10 parameters), and the logarithm of the smallest student."""
    assert JOINT.student is not None
    students = JOINT.student.all()
    sizes = [objective.task_of(Recipe(student=config)).student_parameters for config in (students[0], students[-1])]
    return math.log(objective.task.num_classes), math.log10(sizes[1]), math.log10(sizes[0])


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    by_arm = {arm: {run["seed"]: run for run in runs if run["arm"] == arm} for arm in ARMS}
    full, pruned = by_arm["uniads, unpruned"], by_arm["uniads"]
    summary: dict[str, Any] = {"students of 20,000 parameters at most, test accuracy": {}, "curves": {}}
    for arm in (*ARMS, *BASELINES):
        students = [run["student"] for run in runs if run["arm"] == arm and run["student"]]
        if students:
            summary["students of 20,000 parameters at most, test accuracy"][arm] = {
                **estimate(student["test_accuracy"] for student in students),
                "parameters": round(fmean(student["parameters"] for student in students)),
            }
    for arm, found in by_arm.items():
        if not (curves := [run["curve"] for run in found.values()]):
            continue
        summary["curves"][arm] = {
            mark: estimate(curve[mark] for curve in curves if mark in curve) for mark in map(str, CURVE)
        }
    if both := sorted(
        s for s in full.keys() & pruned.keys() if full[s]["after_60_trials"] and pruned[s]["after_60_trials"]
    ):
        ends = [(pruned[seed]["after_60_trials"], full[seed]["after_60_trials"]) for seed in both]
        summary["pruned minus unpruned, after 60 trials"] = with_bound(
            [one["hypervolume"] - other["hypervolume"] for one, other in ends]
        )
        summary["share of the epochs"] = round(fmean(one["epochs"] / other["epochs"] for one, other in ends), 3)
    for arm, found in by_arm.items():
        if arm != "uniads" and (seeds := sorted(found.keys() & pruned.keys())):
            summary[f"uniads minus {arm}, by epochs"] = {
                mark: estimate(
                    pruned[seed]["curve"][mark] - found[seed]["curve"][mark]
                    for seed in seeds
                    if mark in pruned[seed]["curve"] and mark in found[seed]["curve"]
                )
                for mark in map(str, CURVE)
            }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="study seeds (10)")
    parser.add_argument("--arms", nargs="+", default=[*ARMS, *BASELINES], choices=[*ARMS, *BASELINES])
    parser.add_argument("--processes", type=int, default=2, help="searches at once (2)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--figure", type=Path, help="draw the curves into this image")
    arguments = parser.parse_args()
    runs = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    done = {(run["arm"], run["seed"]) for run in runs}
    jobs = [(arm, seed) for seed in range(arguments.seeds) for arm in arguments.arms if (arm, seed) not in done]
    with ProcessPoolExecutor(arguments.processes, env={"OMP_NUM_THREADS": "1"}) as pool:
        for number, run in enumerate(pool.map(run_arm, *zip(*jobs, strict=True)) if jobs else (), 1):
            runs.append(run)
            print(f"{number}/{len(jobs)} {run}", flush=True)
            content = {
                "claim": __doc__.splitlines()[0],
                "reference_point": "ln 10 and log10 of the largest student's parameters",
                **surroundings(),
                "summary": summarise(runs),
                "runs": runs,
            }
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(summarise(runs), indent=2))
    if arguments.figure is not None:
        save_figure(joint_figure.draw(runs, CURVE), arguments.figure)


if __name__ == "__main__":
    import joint_search  # by its name: workers would get copies of the functions for every job

    joint_search.main()
