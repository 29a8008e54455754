"""What a worker process does: one proxy, one trial, one full training."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial
from torch import nn

from optuna_kd import stopping
from optuna_kd.objective import CHECKPOINT_LIMIT, DistillationObjective
from optuna_kd.recipe import Recipe
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.runner.cohort import run_cohort
from optuna_kd.storages import PATIENCE, cached, create_storage
from optuna_kd.study import SETTINGS, STUDY_ID, TASK, create_sampler
from optuna_kd.study.optimizing import next_trial
from optuna_kd.training.checkpoint import Checkpoint, checkpoint_file
from optuna_kd.training.full import FullRun, attempt_student, save_student
from optuna_kd.training.memory import memory_guard
from optuna_kd.training.offline import TeacherKnowledge
from optuna_kd.training.profile import list_operations, measure_parts
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.together import Attempt, learn_together, next_rung
from optuna_kd.training.trainer import StudentTraining

SESSION = "session"  # user attribute of a trial: which run of the command it belongs to

Training = tuple[Callable[..., Attempt[dict[str, Any]]], tuple[Any, ...]]


@dataclass
class Worker:
    """The context of a worker process.

    Args:
        task: The task.
        objective: Scores its trials.
        study: The searched study.
        seed: Of the study.
        session: Of this run of the command.
        checkpoints: Folder in which trainings keep their state.
        travelling: Contents of files by path, which travel with a result instead of being written; None on a machine
            that sees the folder of the results.
    """

    task: ImageClassification
    objective: DistillationObjective
    study: Study
    seed: int
    session: str
    checkpoints: Path | None
    travelling: dict[str, bytes] | None = None

    @property
    def knowledge(self) -> TeacherKnowledge | None:
        """The stored outputs of the teacher."""
        return self.objective.knowledge

    def keep(self, student: nn.Module, file: str) -> None:
        """Write the weights of a student, or let them travel."""
        if self.travelling is None:
            path = Path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            save_student(student.state_dict(), path)
            return
        with tempfile.TemporaryDirectory(prefix="optuna_kd-") as folder:
            path = Path(folder) / "student.pt"
            save_student(student.state_dict(), path)
            self.travelling[file] = path.read_bytes()


@dataclass(frozen=True)
class WorkerSpec:
    """How to create a `Worker` in another process.

    Args:
        task: The task; it travels with its teacher and its data.
        objective, options: How to create the objective.
        knowledge: The file with the teacher's outputs, or its content [bytes], or None to ask it online.
        storage: URL, or the storage itself when everything runs in one process.
        study_name: Of the searched study.
        sampler: A name, or a sampler.
        pruner: The pruner.
        seed: Of the study.
        session: Of this run of the command.
        checkpoints: Folder in which trainings keep their state.
    """

    task: ImageClassification
    objective: type[DistillationObjective]
    options: dict[str, Any]
    knowledge: str | np.ndarray | None
    storage: str | BaseStorage
    study_name: str
    sampler: str | BaseSampler
    pruner: BasePruner
    seed: int
    session: str
    checkpoints: Path | None

    def __call__(self) -> Worker:
        """Create the context."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        objective = self.objective(self.task, **self.options, checkpoints=self.checkpoints)
        objective.use(None if self.knowledge is None else TeacherKnowledge.load(self.knowledge, self.task))
        sampler = self.sampler if isinstance(self.sampler, BaseSampler) else create_sampler(self.sampler, self.seed)
        study = optuna.load_study(
            study_name=self.study_name,
            storage=cached(create_storage(self.storage, patience=PATIENCE)),
            sampler=sampler,
            pruner=self.pruner,
        )
        return Worker(self.task, objective, study, self.seed, self.session, self.checkpoints)


def run_trials(worker: Worker, total: int | None, count: int, most: int) -> list[dict[str, Any] | Exception]:
    """Run some trials of the study side by side; give what came of each.

    Args:
        worker: The context.
        total: Finished and running trials that the study may have, whoever runs them; None for any number.
        count: How many are run; fewer where there is no place for more, or where it is to stop.
        most: How many are trained at a time.
    """

    def trials() -> Iterator[Trial]:
        for _ in range(count):
            trial = None if stopping.is_asked() else next_trial(worker.study, total)
            if trial is None:
                return
            trial.set_user_attr(SESSION, worker.session)
            yield trial

    with worker.task.settings():
        return [
            error or _report(worker, number)
            for number, error in run_cohort(worker.study, worker.objective, trials(), most)
        ]


@dataclass(frozen=True)
class Measured:
    """What takes the time of a training step, in a line and, if asked for, in full."""

    summary: str
    details: str


def measure_step(worker: Worker, recipe: Recipe, together: int, in_full: bool) -> Measured:
    """Time the parts of a training step, in the place of a trial: beside the others, as trials are.

    Args:
        worker: The context.
        recipe: Of the students.
        together: How many students take the step side by side.
        in_full: Whether the details are asked for.
    """
    objective = worker.objective

    def trainings() -> list[StudentTraining]:
        task = objective.task_of(recipe)
        return [
            StudentTraining(task, recipe, objective.proxy, seed=seed, knowledge=objective.knowledge)
            for seed in range(together)
        ]

    try:
        with worker.task.settings(), memory_guard("measuring a step"):
            summary = str(measure_parts(trainings()))
            details = f"{measure_parts(trainings(), steps=100)}\n\n{list_operations(trainings())}" if in_full else ""
    except LossRejected as rejected:
        return Measured(f"not measured: {rejected}", "")
    return Measured(summary, details)


def _report(worker: Worker, number: int) -> dict[str, Any]:
    trial = worker.study.trials[number]
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "recipe": trial.user_attrs.get("recipe"),
        "epochs": trial.user_attrs.get("epochs", 0),
        "seconds": trial.user_attrs.get("seconds", 0.0),
    }


def run_proxy(worker: Worker, recipe: Recipe, seed: int) -> Attempt[dict[str, Any]]:
    """Run one unpruned proxy outside the study: a control, or a confirmation."""
    objective = worker.objective
    rungs = []
    try:
        task = objective.task_of(recipe)
        training = StudentTraining(task, recipe, objective.proxy, seed=seed, knowledge=worker.knowledge)
        events = training.lessons()
        while (rung := (yield from next_rung(events))) is not None:
            rungs.append(rung)
        metrics = rungs[-1].metrics
    except LossRejected as rejected:
        return {
            "recipe": str(recipe),
            "reward": objective.reward(Metrics.useless(worker.task.num_classes)),
            "reject_reason": str(rejected),
        }
    return {
        "recipe": str(recipe),
        "reward": objective.reward(metrics),
        "reward_paper": REWARDS["paper"](metrics),
        "accuracy": metrics.accuracy,
        "cross_entropy": metrics.cross_entropy,
        "cka": metrics.cka,
        "gaps": {str(rung.epoch): rung.metrics.gap for rung in rungs},
    }


def run_full(worker: Worker, recipe: Recipe, epochs: int, index: int, file: str | None) -> Attempt[dict[str, Any]]:
    """Train one student in full; write its weights to `file` where one is given.

    A training whose loss is rejected counts as guessing, with the reason; the other trainings go on.
    """
    task = worker.objective.task_of(recipe)
    try:
        run, student = yield from attempt_student(
            task, recipe, epochs=epochs, seed=worker.seed, index=index, knowledge=worker.knowledge,
            checkpoint=_checkpoint_of(worker, recipe, epochs, index),
        )  # fmt: skip
    except LossRejected as rejected:
        chance = 1 / worker.task.num_classes
        test = None if worker.task.test_set is None else chance
        failed = FullRun(index, chance, test, cross_entropy=None, cka=None, seconds=0.0, selected_test_accuracy=test)
        return {"recipe": str(recipe), "epochs": epochs, **dataclasses.asdict(failed), "reject_reason": str(rejected)}
    if file is not None:
        worker.keep(student, file)
    return {"recipe": str(recipe), "epochs": epochs, **dataclasses.asdict(run)}


def _checkpoint_of(worker: Worker, recipe: Recipe, epochs: int, index: int) -> Checkpoint:
    if worker.checkpoints is None:
        return Checkpoint(None)
    study = worker.study.user_attrs
    described = {"study": [study.get(SETTINGS), study.get(TASK)], "recipe": recipe.to_dict(), "epochs": epochs}
    file = checkpoint_file(worker.checkpoints, study.get(STUDY_ID), recipe.digest, epochs, index)
    return Checkpoint(file, {**described, "index": index}, limit=CHECKPOINT_LIMIT)


def train_all(worker: Worker, trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """Run trainings outside the study side by side; give their results in order.

    Args:
        worker: The context.
        trainings: Of each its kind, `run_proxy` or `run_full`, and the arguments.
    """
    attempts = (kind(worker, *arguments) for kind, arguments in trainings)
    results: dict[int, dict[str, Any]] = {}
    with worker.task.settings():
        for place, outcome in learn_together(attempts, most=len(trainings)):
            if isinstance(outcome, Exception):
                raise outcome
            results[place] = outcome
    return [results[place] for place in range(len(trainings))]
