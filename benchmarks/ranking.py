"""Whether cheap proxies order recipes as full trainings do: on the digits, and on a small part of CIFAR-10.

Claims: over 24 recipes spread over the Auto-KD space, Spearman's correlation between the reward of the default proxy
and the validation accuracy after full training (each a mean over 3 seeds, none of them shared) is at least 0.8 on the
digits and at least 0.7 on CIFAR-10. The counter-example is a truncated step schedule: the learning rate of a full
training that drops to a tenth after 62.5, 75 and 87.5 % of its epochs, simply cut off where the proxy ends.

    python benchmarks/ranking.py --data DIR --processes 2

`--data` is a folder of CIFAR-10 images; without it only the digits are ranked. Both rank the same recipes, in which
every option of every factor comes up equally often. Proxies have a seed of their own, as in a study; full trainings of
all recipes share theirs, as in `distill`. A rejected recipe counts as guessing. Test images are never read: proxies and
full trainings are scored on the validation images, which no training has seen.

How high a correlation can be with full trainings as noisy as these says "full again": the recipes trained in full with
three other seeds (on the digits alone), and how well one seed of the full trainings orders the mean of the others.
Intervals are of a bootstrap over the recipes. Finished trainings are kept in the result file, so the command can be
stopped and run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gauge_report import print_claims, surroundings
from loky import ProcessPoolExecutor, as_completed
from ranking_report import check_claims, print_summary, summarise
from small_cifar import Sizes, create_task, grow_teacher, load_parts, teacher_file

from optuna_kd import commands
from optuna_kd.objective import dead_cells
from optuna_kd.recipe import ProxyConfig, Recipe, canonical
from optuna_kd.rewards import Metrics
from optuna_kd.runner.progress import SilentReporter
from optuna_kd.runner.teacher import cache_folder
from optuna_kd.search_space import Space, create_space
from optuna_kd.seeds import derive_seed
from optuna_kd.task_options import DIGITS, NATURAL, PROXY_IMAGES, suitable_batch
from optuna_kd.training import ImageClassification, LossRejected, StudentTraining, TeacherKnowledge, accuracy
from optuna_kd.training.narrow import HALF_COST
from optuna_kd.training.offline import store_affordable

RECIPES = 24
DECAYS = (0.625, 0.75, 0.875)  # of the epochs, as in the published code of CRD: 150, 180 and 210 of 240
RESULT = Path(__file__).parent / "results" / "ranking.json"


@dataclass(frozen=True)
class Setting:
    """What recipes are ranked on, with the defaults of `optuna-kd search` for it.

    Args:
        name: Of the data.
        task: What is distilled.
        proxy: The default proxy.
        epochs: Of a full training.
    """

    name: str
    task: ImageClassification
    proxy: ProxyConfig
    epochs: int

    @property
    def full(self) -> ProxyConfig:
        """A full training: one cosine cycle on all images."""
        return ProxyConfig(epochs=self.epochs, rungs=(self.epochs,))


# The networks and epochs are the defaults of `optuna-kd search`. Batch and learning rate are half of them: with the
# default batch a proxy of so few images would have 84 steps.
SIZES = Sizes(
    images=2_000,
    epochs=NATURAL.epochs,
    teacher=NATURAL.teacher,
    student=NATURAL.student,
    teacher_images=8_000,
    teacher_epochs=15,
    val=1_000,
    test=100,  # never read
    batch_size=NATURAL.batch_size // 2,
    lr=0.05,
    views=8,
)
QUICK_SIZES = dataclasses.replace(SIZES, images=200, teacher_images=400, teacher_epochs=1, val=100)


def train_in_cycles(training: StudentTraining, setting: Setting) -> Metrics:
    """Train as a search does."""
    return list(training.run())[-1].metrics


def train_in_steps(training: StudentTraining, setting: Setting) -> Metrics:
    """Train by the step schedule of a full training, as far as this training goes."""
    peak = training.lr
    for epoch in range(training.proxy.epochs):
        training.lr = peak * 0.1 ** sum(epoch >= share * setting.epochs for share in DECAYS)
        # The top of a cosine that never comes down: the learning rate is what the line above says.
        training.train_epoch(epoch, cycle=(-1, 10**9))
    metrics = training.evaluate()
    if not math.isfinite(metrics.cross_entropy):
        raise LossRejected("non-finite cross-entropy on the validation data")
    return metrics


@dataclass(frozen=True)
class Arm:
    """A way to score a recipe.

    Args:
        schedule: Gives the length of its training; None where there is no such thing.
        role: Arms of one role share their seeds.
        train: How it goes through its epochs.
    """

    schedule: Callable[[Setting], ProxyConfig | None]
    role: str = "proxy"
    train: Callable[[StudentTraining, Setting], Metrics] = train_in_cycles


def few_steps(setting: Setting, epochs: int, *, smaller: bool) -> ProxyConfig | None:
    """Give a short proxy on the digits in the batches of the task, or in those that a search would choose."""
    images, batch_size = len(setting.task.train_set), setting.task.batch_size
    batch = suitable_batch(epochs, images, batch_size) if smaller else None
    return if_cheap(setting, ProxyConfig(epochs=epochs, rungs=(epochs,), batch_size=batch))


def if_cheap(setting: Setting, schedule: ProxyConfig) -> ProxyConfig | None:
    """Give the schedule on the digits, where trainings take seconds."""
    return schedule if setting.name == "digits" else None


ARMS = {
    "full": Arm(lambda setting: setting.full, role="full"),
    "full again": Arm(lambda setting: if_cheap(setting, setting.full), role="again"),
    "proxy": Arm(lambda setting: setting.proxy),
    "proxy of one cycle": Arm(
        lambda setting: if_cheap(setting, dataclasses.replace(setting.proxy, rungs=(setting.proxy.epochs,)))
    ),
    "truncated steps": Arm(lambda setting: setting.proxy, train=train_in_steps),
    "sparse proxy": Arm(lambda setting: dataclasses.replace(setting.proxy, sparsity=0.5)),
    "proxy of 4 epochs": Arm(lambda setting: few_steps(setting, 4, smaller=False)),
    "proxy of 4 epochs, smaller batches": Arm(lambda setting: few_steps(setting, 4, smaller=True)),
    "proxy of 1 epoch": Arm(lambda setting: few_steps(setting, 1, smaller=False)),
    "proxy of 1 epoch, smaller batches": Arm(lambda setting: few_steps(setting, 1, smaller=True)),
    "narrow proxy": Arm(lambda setting: dataclasses.replace(setting.proxy, narrow=HALF_COST)),
}


class Job(NamedTuple):
    """One training, as it travels to a worker."""

    setting: str
    data: Path | None
    quick: bool
    arm: str
    recipe: str
    seed: int


def train(job: Job) -> dict[str, Any]:
    """Train one recipe once; a rejected one scores as guessing, and says why it was rejected."""
    torch.set_num_threads(1)
    setting, knowledge = prepare(job.setting, job.data, job.quick)
    arm, recipe = ARMS[job.arm], Recipe.from_string(job.recipe)
    schedule = arm.schedule(setting)
    assert schedule is not None  # `run` has left such arms out
    own = () if arm.role != "proxy" else (job.recipe,)
    seed = derive_seed("ranking", arm.role, job.seed, *own)
    classes, reason = setting.task.num_classes, {}
    started = time.process_time()  # of the clock, a busy machine would take more
    try:
        training = StudentTraining(setting.task, recipe, schedule, seed=seed, knowledge=knowledge)
        metrics = arm.train(training, setting)
    except LossRejected as rejected:
        metrics = Metrics(1 / classes, math.log(classes), 0.0, 2.0, classes)
        reason = {"rejected": str(rejected)}
    seconds = round(time.process_time() - started, 2)
    return {
        **{name: getattr(job, name) for name in ("setting", "arm", "recipe", "seed")},
        **{name: round(value, 5) for name, value in dataclasses.asdict(metrics).items()},
        **reason,
        "cpu_seconds": seconds,
    }


@functools.cache
def prepare(name: str, data: Path | None, quick: bool) -> tuple[Setting, TeacherKnowledge | None]:
    """Give a setting, and what its teacher knows as far as that fits into memory."""
    setting = create_setting(name, data, quick)
    return setting, store_affordable(setting.task, torch.arange(len(setting.task.train_set)))


def create_setting(name: str, data: Path | None, quick: bool) -> Setting:
    """Give the digits, or a part of CIFAR-10; its teacher is trained first if it is not in the cache."""
    if name == "cifar10":
        assert data is not None
        setting = cifar_setting(data, QUICK_SIZES if quick else SIZES)
    else:
        setting = digits_setting()
    if not quick:
        return setting
    return dataclasses.replace(setting, proxy=dataclasses.replace(setting.proxy, epochs=2, rungs=(2,)), epochs=3)


def digits_setting() -> Setting:
    options = commands.TaskOptions(
        data="digits", teacher=None, teacher_checkpoint=None, student=None, device="cpu", epochs=None,
        seeds=None, max_train=None, batch_size=None, image_size=None, seed=0,
    )  # fmt: skip
    task = commands.create_task(options, commands.load_splits(options), say=SilentReporter())
    return Setting("digits", task, ProxyConfig(epochs=DIGITS.proxy_epochs), DIGITS.epochs)


def cifar_setting(data: Path, sizes: Sizes) -> Setting:
    parts = load_parts(data, sizes)
    teacher = grow_teacher(teacher_file(cache_folder() / "teachers", sizes, data), parts, sizes, device="cpu")
    assert teacher is not None  # there is no deadline
    subset = max(NATURAL.subset, min(1.0, PROXY_IMAGES / sizes.images))
    proxy = ProxyConfig(epochs=NATURAL.proxy_epochs, subset=subset)
    return Setting("cifar10", create_task(parts, sizes, teacher, device="cpu"), proxy, sizes.epochs)


def spread_recipes(space: Space, count: int, seed: int = 0) -> list[Recipe]:
    """Draw different recipes of a space in which the options of each factor come up equally often."""
    rng = random.Random(seed)
    for _ in range(10_000):
        columns = []
        for options in space.factors().values():
            repeated = [options[row % len(options)] for row in range(count)]
            columns.append(rng.sample(repeated, count))
        rows = (dict(zip(space.factors(), values, strict=True)) for values in zip(*columns, strict=True))
        recipes = [create_space(space.name).recipe(row) for row in rows]
        if len(set(map(canonical, recipes))) == count and all(is_in(space, recipe) for recipe in recipes):
            return recipes
    raise ValueError(f"No {count} different recipes of the space {space.name!r} have every option equally often.")


def is_in(space: Space, recipe: Recipe) -> bool:
    try:
        space.params(recipe)
    except ValueError:
        return False
    return True


def run(
    *,
    seeds: int,
    processes: int,
    out: Path,
    quick: bool,
    data: Path | None,
    arms: Sequence[str] = tuple(ARMS),
    recipes: int = RECIPES,
) -> dict[str, Any]:
    """Train what is not in the result file yet, and write the report.

    Args:
        seeds: Trainings of each recipe and arm.
        processes: Trainings at once; 0: in this process.
        out: The result file.
        quick: Tiny trainings of few recipes, to see that it runs.
        data: Folder of CIFAR-10 images; None for the digits alone.
        arms: Which of `ARMS`.
        recipes: How many.
    """
    if quick:
        seeds, recipes = min(seeds, 2), min(recipes, 4)
    torch.set_num_threads(max(1, processes))  # for teachers
    settings = {name: create_setting(name, data, quick) for name in ("digits", *(["cifar10"] if data else []))}
    dead = {cell for setting in settings.values() for cell in dead_cells(setting.task)}
    drawn = [recipe.to_string() for recipe in spread_recipes(create_space("auto-kd").without(sorted(dead)), recipes)]
    digests = {
        (name, arm): digest_of(setting, schedule, arm)
        for name, setting in settings.items()
        for arm in arms
        if (schedule := ARMS[arm].schedule(setting)) is not None
    }
    stored = json.loads(out.read_text(encoding="utf-8"))["runs"] if out.exists() else []
    runs = [entry for entry in stored if digests.get((entry["setting"], entry["arm"]), entry["of"]) == entry["of"]]
    if dropped := len(stored) - len(runs):
        print(f"{dropped} of the {len(stored)} trainings in {out} are of other data, teachers or budgets: left out")
    done = {(entry["setting"], entry["arm"], entry["recipe"], entry["seed"]) for entry in runs}
    jobs = [
        Job(name, data, quick, arm, recipe, seed)
        for seed in range(seeds)  # all arms of one seed first: a report of what is there compares them
        for name, arm in digests
        for recipe in drawn
        if (name, arm, recipe, seed) not in done
    ]
    facts = {
        "claim": (__doc__ or "").splitlines()[0],
        **surroundings(),
        "seeds": seeds,
        "settings": {name: describe(setting) for name, setting in settings.items()},
    }
    for number, entry in enumerate(train_all(jobs, processes), 1):
        runs.append({**entry, "of": digests[entry["setting"], entry["arm"]]})
        print(f"{number}/{len(jobs)} {entry}", flush=True)
        write(out, {**facts, "runs": runs})
    summary = {
        name: summarise([entry for entry in runs if entry["setting"] == name], drawn, seeds) for name in settings
    }
    content = {**facts, "summary": summary, "claims": check_claims(summary), "runs": runs}
    write(out, content)
    return content


def train_all(jobs: Sequence[Job], processes: int) -> Iterator[dict[str, Any]]:
    if not jobs or processes == 0:
        yield from map(train, jobs)
        return
    pool = ProcessPoolExecutor(processes, env={"OMP_NUM_THREADS": "1"})
    try:
        yield from (future.result() for future in as_completed([pool.submit(train, job) for job in jobs]))
    finally:
        pool.shutdown(kill_workers=True)


def digest_of(setting: Setting, schedule: ProxyConfig, arm: str) -> str:
    """Name what a training depends on beside recipe and seed: a result of something else does not count."""
    given = {name: value for name, value in schedule.to_dict().items() if value is not None}
    text = json.dumps([setting.task.describe(), given, setting.epochs, arm], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def describe(setting: Setting) -> dict[str, Any]:
    task = setting.task
    return {
        "training_images": len(task.train_set),
        "validation_images": len(task.val_set),
        "layers": task.layers(),
        "student_parameters": task.student_parameters,
        "teacher_val_accuracy": round(accuracy(task, task.teacher, "val"), 4),
        "proxy": setting.proxy.to_dict(),
        "full_epochs": setting.epochs,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 images, for the second setting")
    parser.add_argument("--recipes", type=int, default=RECIPES, help=f"recipes ({RECIPES})")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each recipe and arm (3)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (2); 0: in this process")
    parser.add_argument("--quick", action="store_true", help="tiny trainings, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    arguments = parser.parse_args()
    content = run(**vars(arguments))
    print_summary(content["summary"])
    print_claims(content["claims"])


if __name__ == "__main__":
    # By its name, or workers would get copies of the functions for every job, with empty caches.
    import ranking

    ranking.main()
