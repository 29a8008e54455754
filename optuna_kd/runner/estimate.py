"""How long a search will take, from a few real training steps."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.runner.main_job import KD_GRID, PRUNED_SHARE, Plan
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

STEPS = 5


@dataclass(frozen=True)
class Estimate:
    """Seconds of wall-clock time of the phases of a search, all workers together."""

    controls: float
    trials: float
    confirmation: float
    full: float

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return self.controls + self.trials + self.confirmation + self.full


def seconds_per_step(task: ImageClassification, recipe: Recipe) -> float:
    """Time one training step of a fresh student, after one to warm up, with the teacher online."""
    training = StudentTraining(task, recipe, ProxyConfig(epochs=1), seed=0)
    steps = training.steps(epoch=0, cycle=(0, 1))
    next(steps)
    started = time.perf_counter()
    count = sum(1 for _ in itertools.islice(steps, STEPS))
    return (time.perf_counter() - started) / max(1, count)


def estimate(task: ImageClassification, plan: Plan, proxy: ProxyConfig) -> Estimate:
    """Estimate the phases of a search; what the teacher costs online is included, so it errs upwards."""
    step = seconds_per_step(task, Recipe.from_string("channel|kl*5 + kl@4*1"))
    images = len(task.train_set)
    epoch = step * max(1, images // task.batch_size) / plan.workers
    one_proxy = epoch * proxy.subset * proxy.epochs
    recipes, seeds = plan.confirm
    return Estimate(
        controls=one_proxy * (1 + len(KD_GRID)),
        trials=one_proxy * PRUNED_SHARE * (plan.trials or 0),
        confirmation=one_proxy * 2 * recipes * seeds,
        full=epoch * plan.epochs * plan.seeds * 4,
    )
