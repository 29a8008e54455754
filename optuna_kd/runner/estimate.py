"""How long a search will take, from a few real training steps."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import torch

from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.runner.plan import METHODS, PRUNED_SHARE, Plan
from optuna_kd.runner.workers import share_of_cores
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.trainer import StudentTraining

WARM_UP, STEPS = 3, 5
CONTROLS = 17  # labels only and the grid of tuned KD


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


def seconds_per_step(task: ImageClassification, recipe: Recipe, threads: int, batch_size: int | None = None) -> float:
    """Time one training step of a fresh student on so many threads, with the teacher online; None: the task's batches.

    The first steps do not count: they warm up, and the second one checks the terms.
    """
    proxy = ProxyConfig(epochs=STEPS + WARM_UP, batch_size=batch_size)  # an epoch may be one step
    training = StudentTraining(task, recipe, proxy, seed=0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        steps = itertools.chain.from_iterable(
            training.steps(epoch, cycle=(0, STEPS + WARM_UP)) for epoch in itertools.count()
        )
        times = [time.perf_counter() for _ in itertools.islice(steps, WARM_UP + STEPS)][WARM_UP - 1 :]
    finally:
        torch.set_num_threads(before)
        training.observer.close()
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def seconds_per_epoch(task: ImageClassification, plan: Plan, batch_size: int | None = None) -> float:
    """Time one epoch on all images, of one of several trainings at once; None: in the batches of the task."""
    recipe = Recipe.from_string("channel|kl*5 + kl@4*1")
    step = seconds_per_step(task, recipe, share_of_cores(plan.workers), batch_size)
    return step * max(1, len(task.train_set) // (batch_size or task.batch_size)) / plan.workers


def estimate(task: ImageClassification, plan: Plan, proxy: ProxyConfig) -> Estimate:
    """Estimate the phases of a search; what the teacher costs online is included, so it errs upwards."""
    epoch = seconds_per_epoch(task, plan)
    one_proxy = seconds_per_epoch(task, plan, proxy.batch_size) if proxy.batch_size is not None else epoch
    one_proxy *= proxy.subset * proxy.epochs
    recipes, seeds = plan.confirm
    return Estimate(
        controls=one_proxy * CONTROLS,
        trials=one_proxy * PRUNED_SHARE * (plan.trials or 0),
        confirmation=one_proxy * 2 * recipes * seeds,
        full=epoch * plan.epochs * plan.seeds * METHODS,
    )
