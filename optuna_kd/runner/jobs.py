"""What a worker process does: one proxy, one trial, one full training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import Trial, TrialState

from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import Recipe
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.runner.cohort import ask, run_cohort
from optuna_kd.seeds import derive_seed
from optuna_kd.storages import RETRIES, create_storage, quietly
from optuna_kd.study import SAMPLERS, SEEDED_PER_TRIAL
from optuna_kd.training.full import FullRun, attempt_student, save_student
from optuna_kd.training.offline import TeacherKnowledge
from optuna_kd.training.profile import list_operations, measure_parts
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.together import Attempt, learn_together, next_rung
from optuna_kd.training.trainer import StudentTraining

SESSION = "session"  # user attribute of a trial: which run of the command it belongs to
ORDER = "order"  # likewise: which of its trials it is

Training = tuple[Callable[..., Attempt[dict[str, Any]]], tuple[Any, ...]]


@dataclass
class Worker:
    """The context of a worker process."""

    task: ImageClassification
    objective: DistillationObjective
    study: Study
    sampler: str | BaseSampler
    seed: int
    session: str

    def seed_sampler(self, order: int) -> None:
        """Prepare the sampler for a trial of the study, the `order`-th to be run."""
        if isinstance(self.sampler, str) and self.sampler not in SEEDED_PER_TRIAL:
            # Optuna's samplers hold one random state each: two workers, or a resumed study, would repeat it.
            self.study.sampler = SAMPLERS[self.sampler](derive_seed(self.seed, "sampler", order))

    @property
    def knowledge(self) -> TeacherKnowledge | None:
        """The stored outputs of the teacher."""
        return self.objective.knowledge


@dataclass(frozen=True)
class WorkerSpec:
    """How to create a `Worker` in another process.

    Args:
        task: The task; it travels with its teacher and its data.
        objective, options: How to create the objective.
        knowledge: The file with the teacher's outputs, or None to ask it online.
        storage: URL, or the storage itself when everything runs in one process.
        study_name: Of the searched study.
        sampler: A name, or a sampler.
        pruner: The pruner.
        seed: Of the study.
        session: Of this run of the command.
    """

    task: ImageClassification
    objective: type[DistillationObjective]
    options: dict[str, Any]
    knowledge: str | None
    storage: str | BaseStorage
    study_name: str
    sampler: str | BaseSampler
    pruner: BasePruner
    seed: int
    session: str

    def __call__(self) -> Worker:
        """Create the context."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        objective = self.objective(self.task, **self.options)
        objective.use(TeacherKnowledge.load(self.knowledge, self.task) if self.knowledge else None)
        sampler = self.sampler if isinstance(self.sampler, BaseSampler) else SAMPLERS[self.sampler](self.seed)
        study = optuna.load_study(
            study_name=self.study_name,
            storage=create_storage(self.storage),
            sampler=sampler,
            pruner=self.pruner,
        )
        return Worker(self.task, objective, study, self.sampler, self.seed, self.session)


def run_trial(worker: Worker, order: int) -> dict[str, Any]:
    """Run one trial of the study.

    Args:
        worker: The context.
        order: Which trial of the study this is going to be, for samplers that have no seed per trial.
    """
    worker.seed_sampler(order)
    ran: dict[str, int] = {}

    def objective(trial: Trial) -> float | tuple[float, ...]:
        trial.set_user_attr(SESSION, worker.session)
        ran["number"] = trial.number
        return worker.objective(trial)

    try:
        with worker.task.settings():
            worker.study.optimize(objective, n_trials=1)
    except KeyboardInterrupt:  # Optuna has closed the trial as failed; but it was stopped, so it comes again
        if ran:
            with quietly():
                RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(worker.study, worker.study.trials[ran["number"]])
        raise
    return _report(worker, ran["number"])


def run_trials(worker: Worker, orders: Sequence[int], most: int) -> list[dict[str, Any] | Exception]:
    """Run several trials of the study side by side, `most` at a time; give what came of each.

    A job that runs again because its process was killed leaves out what it had finished.

    Args:
        worker: The context.
        orders: As for `run_trial`.
        most: How many are trained at a time.
    """
    trials = worker.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    done = {trial.user_attrs.get(ORDER) for trial in trials if trial.user_attrs.get(SESSION) == worker.session}

    def missing() -> Iterator[Trial]:
        for order in orders:
            if order in done:
                continue
            worker.seed_sampler(order)
            trial = ask(worker.study)
            trial.set_user_attr(SESSION, worker.session)
            trial.set_user_attr(ORDER, order)
            yield trial

    with worker.task.settings():
        return [
            error or _report(worker, number)
            for number, error in run_cohort(worker.study, worker.objective, missing(), most)
        ]


@dataclass(frozen=True)
class Measured:
    """What takes the time of a training step, in a line and, if asked for, in full."""

    summary: str
    details: str


def measure_step(worker: Worker, recipe: Recipe, in_full: bool) -> Measured:
    """Time the parts of a training step, in the place of a trial: beside the others, as trials are."""
    objective = worker.objective

    def training() -> StudentTraining:
        task = objective.task_of(recipe)
        return StudentTraining(task, recipe, objective.proxy, seed=0, knowledge=objective.knowledge)

    with worker.task.settings():
        summary = str(measure_parts(training()))
        details = f"{measure_parts(training(), steps=100)}\n\n{list_operations(training())}" if in_full else ""
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
            task, recipe, epochs=epochs, seed=worker.seed, index=index, knowledge=worker.knowledge
        )
    except LossRejected as rejected:
        chance = 1 / worker.task.num_classes
        test = None if worker.task.test_set is None else chance
        failed = FullRun(index, chance, test, cross_entropy=None, cka=None, seconds=0.0)
        return {"recipe": str(recipe), "epochs": epochs, **dataclasses.asdict(failed), "reject_reason": str(rejected)}
    if file is not None:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_student(student.state_dict(), path)
    return {"recipe": str(recipe), "epochs": epochs, **dataclasses.asdict(run)}


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
