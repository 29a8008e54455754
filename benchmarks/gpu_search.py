"""A whole search on one GPU: 100 recipes for ResNet-110 to ResNet-20 on the 50,000 images of CIFAR-10.

Claim: with the paper's proxy (a fifth of the images, 48 epochs) and one reward at its end, without a pruner, they take
at most 15 minutes of searching; 5 are the goal.

    python benchmarks/gpu_search.py --data DIR --minutes 9

The command works in pieces: it ends by itself after so many minutes, and goes on where it was when it is run again,
until the report is there. First it trains the teacher, on the labels of 45,000 images (5,000 choose the recipe), and
keeps it after every epoch; then it searches. Several processes share the GPU and the study, and each trains several
students side by side. Searching takes the time in which any trial ran that finished; loading and storing the teacher's
answers, which every piece does again, are told beside it.

The study is an ordinary one, in the `.db` beside the report: `optuna-dashboard sqlite:///PATH` opens it.
`--quick` searches 4 recipes on images that are made up, on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import torch
from gauge_report import print_claims, surroundings
from optuna.pruners import NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pieces import gather, machine_of, open_pool, source_of_engine, write
from small_cifar import Sizes, create_task, grow_teacher, load_parts, load_teacher, store_answers, teacher_file

from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig
from optuna_kd.study import count_finished, create_study, top_recipes
from optuna_kd.training import accuracy
from optuna_kd.training.task import resolve_device
from optuna_kd.training.together import learn_together

FULL = Sizes(
    images=45_000, epochs=240, teacher="resnet110", teacher_images=45_000, teacher_epochs=40, val=5_000,
    batch_size=128, lr=0.1, views=8,
)  # fmt: skip
QUICK = Sizes(
    images=160, epochs=10, teacher="resnet8x0.5", student="resnet8x0.25", teacher_images=160, teacher_epochs=2, val=40,
    test=40, batch_size=16, views=2,
)  # fmt: skip
SHARE = 0.2  # of the images, and of the epochs
LIMIT, GOAL = 15, 5  # minutes
HASTE = 1.2  # a trial begins only if there is time for one this many times longer than the longest so far
FIRST = 180  # seconds that are kept for the first
RESULT = Path(__file__).parent / "results" / "gpu_search.json"


@dataclass(frozen=True)
class Search:
    """What every process of the search has to know.

    Args:
        sizes: Networks and images.
        teacher: File of the trained teacher.
        data: Folder of CIFAR-10; None for images that are made up.
        device: As in `optuna_kd.ImageClassification`.
        storage: File of the study.
        seed: Of the study.
        recipes: How many are to be tried.
        stacked: How many students a process trains side by side.
        deadline: On the clock of `time.monotonic`.
    """

    sizes: Sizes
    teacher: Path
    data: Path | None
    device: str
    storage: Path
    seed: int
    recipes: int
    stacked: int
    deadline: float

    @property
    def proxy(self) -> ProxyConfig:
        """The training that scores a recipe."""
        epochs = round(SHARE * self.sizes.epochs)
        return ProxyConfig(epochs=epochs, rungs=(epochs,), subset=SHARE)

    def open(self) -> Study:
        """Create the study, or go on with it."""
        url = f"sqlite:///{self.storage}"
        return create_study(
            "auto-kd", storage=url, study_name="search", seed=self.seed, pruner=NopPruner(), load_if_exists=True
        )


def search(plan: Search) -> dict[str, Any]:
    """Try recipes in this process until all are tried, by whomever, or time is short."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = create_task(
        load_parts(plan.data, plan.sizes), plan.sizes, load_teacher(plan.teacher, plan.sizes), device=plan.device
    )
    objective, study = DistillationObjective(task, proxy=plan.proxy), plan.open()
    started = time.monotonic()
    objective.use(store_answers(task, plan.proxy))
    storing = time.monotonic() - started
    objective.bind(study)
    asked: list[Trial] = []
    for place, outcome in learn_together(attempts(plan, objective, study, asked), most=plan.stacked):
        if isinstance(outcome, optuna.TrialPruned):
            study.tell(asked[place], state=TrialState.PRUNED)
        elif isinstance(outcome, Exception):
            study.tell(asked[place], state=TrialState.FAIL)
            raise outcome
        else:
            study.tell(asked[place], outcome)
    return {"storing_seconds": round(storing, 1), "trials": len(asked)}


def attempts(plan: Search, objective: DistillationObjective, study: Study, asked: list[Trial]) -> Iterator[Any]:
    """Ask for trials, one by one as the engine wants them, while there are some left and there is time for them."""
    while True:
        known = study.get_trials(deepcopy=False)
        count = sum(trial.state != TrialState.FAIL for trial in known)
        if count >= plan.recipes or time.monotonic() + HASTE * (longest(known) or FIRST) > plan.deadline:
            return
        with warnings.catch_warnings():
            # Nobody looks at the heartbeats of these trials: `run` clears those of a killed piece away.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            asked.append(study.ask())
        yield objective.attempt(asked[-1])


def intervals(trials: Iterable[FrozenTrial]) -> Iterator[tuple[datetime, datetime]]:
    """Give begin and end of the trials that finished; one that was killed has the end of its clearing away."""
    for trial in trials:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.datetime_start and trial.datetime_complete:
            yield trial.datetime_start, trial.datetime_complete


def longest(trials: Iterable[FrozenTrial]) -> float:
    """Give the seconds of the longest finished trial; 0 if none has finished."""
    return max(((end - start).total_seconds() for start, end in intervals(trials)), default=0.0)


def busy_seconds(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Give the length of the union of some spans of time, in seconds."""
    total, reached = 0.0, datetime.min
    for start, end in sorted(spans):
        if end > reached:
            total += (end - max(start, reached)).total_seconds()
            reached = end
    return total


def run(
    *,
    processes: int,
    out: Path,
    quick: bool,
    data: Path | None,
    device: str = "auto",
    recipes: int | None = None,
    stacked: int = 8,
    minutes: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Go on with teacher and search, and write the report.

    Args:
        processes: Processes that share the device; 0: in this process.
        out: The report; the study and the pieces are beside it.
        quick: Tiny sizes, to see that it runs.
        data: Folder of CIFAR-10; None for images that are made up.
        device: As in `optuna_kd.ImageClassification`.
        recipes: How many are to be tried; None for 100, or 4 if quick.
        stacked: How many students a process trains side by side.
        minutes: After which nothing new begins; None for no end.
        seed: Of the study.
    """
    deadline = time.monotonic() + 60 * (math.inf if minutes is None else minutes)
    sizes, wanted = (QUICK, recipes or 4) if quick else (FULL, recipes or 100)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = teacher_file(out.parent, sizes, data)
    parts = load_parts(data, sizes)
    teacher = grow_teacher(file, parts, sizes, device=device, deadline=deadline)
    if teacher is None:
        print("Time is up before the teacher is trained: run the command again.")
        return {"claims": []}
    plan = Search(sizes, file, data, device, out.with_suffix(".db"), seed, wanted, stacked, deadline)
    study = plan.open()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # of a piece that was killed
    pieces = out.with_suffix(".jsonl")
    if count_finished(study) < wanted:
        found = search_in_processes(plan, processes)
        trials = sum(worker["trials"] for worker in found)
        record = {"storing_seconds": max(worker["storing_seconds"] for worker in found), "trials": trials}
        with pieces.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({**record, "processes": processes, "stacked": stacked, **versions(device)}) + "\n")
    task = create_task(parts, sizes, teacher, device=device)
    content = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "machine": machine_of(resolve_device(device).type, processes),
        "images": "CIFAR-10" if data is not None else "made up",
        "sizes": asdict(sizes),
        "proxy": plan.proxy.to_dict(),
        "teacher_val_accuracy": round(accuracy(task, task.teacher, "val"), 4),
        **report(study, wanted, plan.proxy.epochs * round(SHARE * sizes.images)),
        "pieces": [json.loads(line) for line in pieces.read_text(encoding="utf-8").splitlines()],
    }
    write(out, content)
    print(f"{content['finished']} of {wanted} recipes in {content['minutes']:.2f} minutes of searching")
    return content


def search_in_processes(plan: Search, processes: int) -> list[dict[str, Any]]:
    pool = open_pool(max(1, processes), 1, is_here=processes == 0)
    try:
        return gather([pool.submit(search, plan) for _ in range(max(1, processes))])
    finally:
        pool.shutdown(kill_workers=True)


def versions(device: str) -> dict[str, str]:
    kind = resolve_device(device).type
    return {"source": source_of_engine(), "device": torch.cuda.get_device_name() if kind == "cuda" else kind}


def report(study: Study, wanted: int, images: int) -> dict[str, Any]:
    """Give what the search has taken and found so far; the claim is held against a finished one.

    Args:
        study: The search.
        wanted: Recipes that are to be tried.
        images: That a proxy trains on, those of all its epochs counted.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    seconds, finished = busy_seconds(intervals(trials)), count_finished(study)
    claims = []
    if finished >= wanted:
        minutes = {"n": 1, "mean": seconds / 60, "se": None}
        for text, most in (("at most", LIMIT), ("the goal:", GOAL)):
            claims.append(
                {"claim": f"{wanted} recipes in {text} {most} minutes", **minutes, "met": seconds <= 60 * most}
            )
    return {
        "finished": finished,
        "rejected": finished - len(complete),
        "lost": sum(trial.state == TrialState.FAIL for trial in trials),
        "minutes": round(seconds / 60, 3),
        "images_per_second": round(images * len(complete) / seconds, 1) if seconds else None,
        "best": [str(recipe) for recipe in top_recipes(study, 5)] if complete else [],
        "accuracies": sorted((round(trial.user_attrs["accuracy"], 4) for trial in complete), reverse=True),
        "claims": claims,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--minutes", type=float, help="after which this piece ends (no end)")
    parser.add_argument("--recipes", type=int, help="recipes to be tried (100)")
    parser.add_argument("--processes", type=int, default=4, help="processes that share the device (4); 0: in this one")
    parser.add_argument("--stacked", type=int, default=8, help="students side by side in each process (8)")
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", ...')
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="the report; study and teacher are kept beside it")
    given = parser.parse_args(arguments)
    if not given.quick and given.data is None:
        parser.error("--data DIR is needed, the folder of CIFAR-10; without it there is --quick")
    print_claims(run(**vars(given))["claims"])


if __name__ == "__main__":
    # By its name: workers would get copies of the functions for every job.
    import gpu_search

    gpu_search.main()
