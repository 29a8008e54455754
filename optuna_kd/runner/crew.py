"""What a run needs before it can begin: the teacher's knowledge, and the workers that learn from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd import stopping
from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import StudentConfig
from optuna_kd.runner.engines import STOP, Engine, LocalEngine
from optuna_kd.runner.jobs import SESSION, WorkerSpec
from optuna_kd.runner.plan import Plan
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.run import Clock, Run
from optuna_kd.runner.storing import Storing
from optuna_kd.storages import OWNER, retire_lost_trials, retire_trial, show_storage
from optuna_kd.training.task import ImageClassification

FEW = 4  # workers that SQLite serves well


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a job works with.

    Args:
        task: What is to be distilled.
        teacher: Its accuracy on the validation data.
        objective: Scores the trials.
        study: The searched study.
        plan: How much is done.
        storage: The opened storage.
        shared: How the workers open it.
        sampler: Of the study, by name or as it is.
        seed: Of the study.
        storing: What is kept of the teacher's knowledge, and where.
        folder: Where the results go.
        say: Told what happens.
        profile: Whether a profile of a training step is written.
        student_config: The student by its registered name, where it has one.
        engine: What runs the workers.
    """

    task: ImageClassification
    teacher: float
    objective: DistillationObjective
    study: Study
    plan: Plan
    storage: BaseStorage
    shared: str | BaseStorage
    sampler: str | BaseSampler
    seed: int
    storing: Storing
    folder: Path
    say: Reporter
    student_config: StudentConfig | None
    profile: bool = False
    engine: Engine = field(default_factory=LocalEngine)

    @property
    def checkpoints(self) -> Path:
        """Where interrupted trainings keep their state."""
        return self.folder.absolute() / "checkpoints"


@contextlib.contextmanager
def crew(setup: Setup) -> Iterator[Run]:
    """Store the teacher's knowledge, start the workers, and end them afterwards; trials left open are queued again.

    Inside, the first Ctrl-C and a SIGTERM let trainings end their epoch (`optuna_kd.stopping`).
    """
    clock, say = Clock(), setup.say
    session = f"{os.getpid()}-{time.time_ns():x}"
    scratch = Path(tempfile.mkdtemp(prefix="optuna_kd-"))

    def requeue(worker: str | None = None) -> None:
        """Queue the trials of a worker that is gone again; None for those of all."""
        for trial in setup.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            signed = trial.user_attrs.get(SESSION) if worker is None else trial.system_attrs.get(OWNER)
            if signed == (worker or session):
                retire_trial(setup.study, trial)
        retire_lost_trials(setup.study)  # that a worker had started and not signed when it was killed

    try:
        setup.objective.bind(setup.study)
        say.note(f"Study      {setup.study.study_name}")
        say.note(f"Layers     {setup.task.layers()}")
        say.note(f"Teacher    {100 * setup.teacher:.2f} % validation accuracy")
        setup.objective.use(setup.storing.prepare(setup.task, setup.objective.proxy, say))
        retire_lost_trials(setup.study)
        count, where = setup.plan.workers, show_storage(setup.storage)
        if where.startswith("grpc"):
            say.note("Storage    a worker that is gone is missed after two minutes: a proxy passes on no heartbeats")
        if count > FEW and where.startswith("sqlite"):
            say.note(
                f"Storage    more than {FEW} workers wait for one another in SQLite; PostgreSQL serves them better: "
                "--storage postgresql+psycopg://user@host/database"
            )
        team = setup.engine.team(
            _spec(setup, scratch, session), count, scratch=scratch, folder=setup.folder, requeue=requeue, say=say
        )
        with stopping.on_signals(say.note, scratch / STOP), team as workers:
            try:
                yield Run(setup.study, setup.objective, workers, say, clock, setup.seed, setup.plan.together)
            except BaseException:
                workers.stop()
                requeue()
                raise
    finally:
        if setup.objective.knowledge is not None:
            setup.objective.knowledge.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _spec(setup: Setup, scratch: Path, session: str) -> WorkerSpec:
    """Describe the context of the workers; the teacher is asked once, and they map its answers from a file."""
    stored = setup.objective.knowledge
    file = stored.file if stored is not None else None
    if stored is not None and file is None:
        file = scratch / "knowledge.bin"
        try:
            stored.save(file)
        except OSError as error:
            setup.say.note(f"Knowledge  {error}: the workers ask the teacher in every step, about the same views")
            stored.unstored().save(file)
    return WorkerSpec(
        task=setup.task,
        objective=type(setup.objective),
        options=setup.objective.options(),
        knowledge=str(file.absolute()) if file else None,
        storage=setup.shared,
        study_name=setup.study.study_name,
        sampler=setup.sampler,
        pruner=setup.study.pruner,
        seed=setup.seed,
        session=session,
        checkpoints=setup.checkpoints,
    )
