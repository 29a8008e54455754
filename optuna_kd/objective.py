"""The one place where search meets training: a trial becomes a recipe, a proxy, a reward."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import optuna
from optuna.study import Study
from optuna.trial import Trial

from optuna_kd import stopping
from optuna_kd.distillers import InvalidChainError, probe_cells
from optuna_kd.pruners import record_gap, reject, should_prune
from optuna_kd.pruners import report as report_values
from optuna_kd.pruners.cka import GAPS
from optuna_kd.pruners.reporting import Values
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.rewards import REWARDS, Metrics
from optuna_kd.search_space import TWO_CLASSES, DeadCell, Space, space_from_dict
from optuna_kd.seeds import derive_seed
from optuna_kd.stopping import TrainingInterrupted
from optuna_kd.storages import frozen_of, original_number, together, write_trial
from optuna_kd.study import (
    FACTS,
    RECIPE,
    TASK,
    StudyMismatchError,
    freeze_space,
    refit_queue,
    require_same,
    settings_of,
    space_of,
)
from optuna_kd.training.checkpoint import Checkpoint
from optuna_kd.training.lesson import Rung
from optuna_kd.training.offline import TeacherKnowledge, store_affordable
from optuna_kd.training.proxy import proxy_images, proxy_student
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.together import Attempt, learn_alone, next_rung
from optuna_kd.training.trainer import StudentTraining
from optuna_kd.trial_checkpoints import file_of_trial, sweep_checkpoints

logger = logging.getLogger(__name__)

CHECKPOINT_LIMIT = 4 * 2**30  # bytes of all checkpoints of a folder

_STORING = threading.Lock()


class DistillationObjective:
    """Scores a recipe by a proxy: a short training of the student, judged on validation data.

    The reward is reported at every rung; pruned trials and rejected losses end as PRUNED, with the reason
    for a rejection in the attribute `reject_reason`. Every trial carries accuracy, cross-entropy, CKA,
    `reward_paper`, seconds, epochs and parameters as user attributes.

    Args:
        task: What is to be distilled.
        proxy: Length, rungs and subset of the proxy.
        reward: "bounded", "paper", "ce", "ce-l1" or "accuracy" (Auto-KD eq. 3 and Table 9).
        knowledge: Stored outputs of the teacher, or the file that holds them; None stores what fits into
            memory at the first trial (nothing where the data are read anew in every epoch).
        checkpoints: Folder in which trials keep their state at every rung, so that one whose process was killed goes on
            from there, wherever it runs again; None keeps none, and it begins anew. The result is the same.

    Raises:
        UnknownNameError: For an unknown reward.
        KnowledgeMismatchError: For knowledge of another teacher, split or preprocessing.
        ValueError: For a task whose student is still to be chosen, or a proxy that cannot be made of it.
        ImportError: For a narrow proxy without torch-pruning.
    """

    chooses_student: ClassVar[bool] = False

    def __init__(
        self,
        task: ImageClassification,
        *,
        proxy: ProxyConfig | None = None,
        reward: str = "bounded",
        knowledge: TeacherKnowledge | str | Path | None = None,
        checkpoints: str | Path | None = None,
    ) -> None:
        if task.is_open and not self.chooses_student:
            raise ValueError(
                "The student factory of this task takes a StudentConfig, so its student is still to be chosen: use "
                "JointDistillationObjective, or task.with_student(config)."
            )
        self.task, self.proxy = task, proxy or ProxyConfig()
        if not task.is_open and self.proxy.narrow < 1:
            proxy_student(task, self.proxy, seed=0)  # that it can be built shows here, and not in a trial
        self.reward_name, self.reward = reward, REWARDS[reward]
        if isinstance(knowledge, str | Path):
            knowledge = TeacherKnowledge.load(knowledge, task)
        elif knowledge is not None:
            knowledge.check(task)
        self._knowledge = knowledge
        self._asked = knowledge is not None
        self._described: dict[str, Any] | None = None
        self.checkpoints = None if checkpoints is None else Path(checkpoints)

    @property
    def knowledge(self) -> TeacherKnowledge | None:
        """The stored outputs of the teacher, made when first asked for; None where it is asked online."""
        with _STORING:  # threads of one study wait for the first
            if not self._asked:
                self._knowledge = store_affordable(self.task, proxy_images(self.task, self.proxy)[0])
                self._asked = True
        return self._knowledge

    def use(self, knowledge: TeacherKnowledge | None) -> None:
        """Take prepared knowledge; None asks the teacher online.

        Raises:
            KnowledgeMismatchError: For knowledge of another teacher, split or preprocessing.
        """
        if knowledge is not None:
            knowledge.check(self.task)
        self._knowledge, self._asked = knowledge, True

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """Run one trial."""
        return learn_alone(self.attempt(trial))

    def attempt(self, trial: Trial) -> Attempt[float | tuple[float, ...]]:
        """Run one trial, step by step: what it gives is to be learned, alone or beside others (`learn_together`)."""
        space, seed = self.bind(trial.study)
        with together(trial):
            recipe = space.suggest(trial)
            write_trial(trial, {RECIPE: str(recipe), "parameters": self.task.student_parameters})
        checkpoint = self.checkpoint_of(trial, recipe)
        with checkpoint.until_the_end():
            return (yield from self._learn(trial, recipe, trial_seed(seed, trial), checkpoint))

    def _learn(self, trial: Trial, recipe: Recipe, seed: int, checkpoint: Checkpoint) -> Attempt[float]:
        started = time.perf_counter()
        rung: Rung | None = None
        final: dict[int, float] = {}  # the report of the last rung, which is written with all that is known at the end
        inherited = set(frozen_of(trial).intermediate_values)
        try:
            training = StudentTraining(
                self.task, recipe, self.proxy, seed=seed, knowledge=self.knowledge, checkpoint=checkpoint
            )
            events = training.lessons()
            while (passed := (yield from next_rung(events))) is not None:
                rung = passed
                if rung.epoch not in inherited:
                    report = {rung.epoch: self.reward(rung.metrics)}
                    if rung.epoch == self.proxy.epochs:
                        final = report
                    else:
                        write_trial(trial, {GAPS: gaps_of(trial, rung)}, report)
                is_judged = rung.epoch < max(inherited, default=0)  # before it was interrupted, and went on
                if rung.epoch < self.proxy.epochs and not is_judged and trial.should_prune():
                    raise optuna.TrialPruned(f"pruned at epoch {rung.epoch}")
        except InvalidChainError as error:
            raise reject(trial, f"cannot be built: {error}") from None
        except LossRejected as rejected:
            # At the rung that it did not reach it counts as the worst, whatever it was worth before.
            last = max([*inherited, rung.epoch if rung is not None else 0])
            for missed in [epoch for epoch in self.proxy.rungs if epoch > last][:1]:
                trial.report(self.reward(Metrics.useless(self.task.num_classes)), missed)
            raise reject(trial, str(rejected)) from None
        finally:
            scores = {} if rung is None else scores_of(rung)
            if rung is not None and final:
                scores[GAPS] = gaps_of(trial, rung)
            write_trial(trial, {"seconds": round(time.perf_counter() - started, 3), **scores}, final)
        assert rung is not None  # a proxy has at least one rung
        return self.reward(rung.metrics)

    def checkpoint_of(self, trial: Trial, recipe: Recipe) -> Checkpoint:
        """Give the file in which a trial keeps its state; one that runs another again has that one's."""
        if self.checkpoints is None:
            return Checkpoint(None)
        number = _number_of(trial)
        file = file_of_trial(self.checkpoints, trial.study, number)
        described = {**(self._described or {}), "recipe": recipe.to_dict(), "trial": number}
        return Checkpoint(file, described, limit=CHECKPOINT_LIMIT)

    def sweep(self, study: Study) -> None:
        """Remove the states of trials that nobody goes on with: others have finished them, or they were given up."""
        if self.checkpoints is not None:
            sweep_checkpoints(study, self.checkpoints)

    def check(self, space: Space, *, objectives: int) -> None:
        """Refuse a space, or a number of objectives, that this objective cannot serve.

        Raises:
            StudyMismatchError: Saying what does not fit.
        """
        if space.chooses_student and not self.chooses_student:
            raise StudyMismatchError(
                f"The space {space.name!r} chooses the student, but this task has one. Use another space, or a student "
                "factory that takes a StudentConfig with JointDistillationObjective."
            )
        if self.chooses_student and not space.chooses_student:
            raise StudyMismatchError(f"The space {space.name!r} has no students, but this task needs one chosen.")
        if (objectives > 1) != self.chooses_student:
            raise StudyMismatchError(
                f"The study has {objectives} objectives; {type(self).__name__} "
                + ("needs two or more." if self.chooses_student else "has one reward. Use JointDistillationObjective.")
            )

    def task_of(self, recipe: Recipe) -> ImageClassification:
        """Give the task with the student that a recipe is for: here there is one."""
        return self.task

    def options(self) -> dict[str, Any]:
        """Give the arguments, beside task and knowledge, that create the same objective in another process."""
        return {"proxy": self.proxy, "reward": self.reward_name}

    def bind(self, study: Study) -> tuple[Space, int]:
        """Tie the study to this task at its first trial; later, refuse to mix tasks in one study.

        Options that cannot teach on the maps of this task are left out of the space, which is frozen then.

        Returns:
            The frozen space and the seed of the study.

        Raises:
            StudyMismatchError: If the study was run on something else; both values are named.
        """
        attrs = study.user_attrs  # read once: it is a look into the storage
        settings = settings_of(study, attrs)
        space = space_from_dict(settings["space"])
        self.check(space, objectives=len(study.directions))
        if self._described is None:  # once: it hashes all data and weights
            self._described = self.describe(space)
        stored = attrs.get(TASK)
        if stored is None:
            space = self.live_space(space)
            freeze_space(study, space)
            refit_queue(study, space)
            study.set_user_attr(FACTS, self.task.facts().to_dict())
            study.set_user_attr(TASK, self._described)
        else:
            require_same(study, stored, self._described)
        return space, int(settings["seed"])

    def describe(self, space: Space) -> dict[str, Any]:
        """Everything that must not change inside a study, beside its space, as plain JSON."""
        return {**self.task.describe(), "proxy": self.proxy.to_dict(), "reward": self.reward_name}

    def live_space(self, space: Space) -> Space:
        """Leave out what cannot teach on the maps of this task, and say so."""
        dead = dead_cells(self.task)
        if not dead:
            return space
        logger.warning(
            "On maps of %s (teacher) and %s (student) these cannot teach and are left out: %s.",
            list(self.task.teacher_layer.shape), list(self.task.student_layer.shape), ", ".join(map(str, dead)),
        )  # fmt: skip
        return space.without(dead)


def gaps_of(trial: Trial, rung: Rung) -> dict[str, float]:
    """Give the representation gaps of a trial at the rungs that it has reported, and at this one."""
    return {**frozen_of(trial).user_attrs.get(GAPS, {}), str(rung.epoch): rung.metrics.gap}


def scores_of(rung: Rung) -> dict[str, Any]:
    """Give the scores of a trial that are stored with it, as they are at a rung."""
    metrics = rung.metrics
    return {
        "accuracy": metrics.accuracy,
        "cross_entropy": metrics.cross_entropy,
        "cka": metrics.cka,
        "reward_paper": REWARDS["paper"](metrics),
        "epochs": rung.epoch,
    }


def dead_cells(task: ImageClassification) -> list[DeadCell]:
    """List the operations that have no loss or no gradient on the maps, or for the classes, of a task."""
    found = probe_cells(task.student_layer.shape, task.teacher_layer.shape)
    return sorted({DeadCell(*cell[1:]) for cell in found} | ({TWO_CLASSES} if task.num_classes == 2 else set()))


class TrainingFunction(Protocol):
    """A user's own training: recipe in, metrics out."""

    def __call__(
        self, recipe: Recipe, *, seed: int, report: Callable[..., None]
    ) -> float | Sequence[float] | Metrics | Mapping[str, Any]:
        """Train a student by `recipe` and score it on validation data.

        Args:
            recipe: What to train with; `optuna_kd.build_distiller` makes the loss terms of it.
            seed: Of this trial.
            report: `report(step, reward, gap=None)` at each rung; it ends the trial when it is pruned. In a study
                with several objectives, `report(step, values)`.

        Returns:
            The reward, or `Metrics`, or a mapping with the key "reward" (the rest is stored with the trial). In a
            study with several objectives the values in their order, or a mapping that has their names.
        """


class FunctionObjective:
    """An objective around a user's own training function.

    Raise `optuna_kd.LossRejected` in it to end a trial whose loss cannot be used. The space is taken as it is:
    without a task there are no maps on which its options could be checked.

    Args:
        train: See `TrainingFunction`.
        reward: For functions that return `Metrics`: "bounded", "paper", "ce", "ce-l1" or "accuracy".

    Example:
        >>> def train(recipe, *, seed, report):
        ...     report(1, 0.5)
        ...     return {"reward": 0.7, "accuracy": 0.9}
        >>> study = create_study(storage=None, seed=0)
        >>> study.optimize(FunctionObjective(train), n_trials=1)
    """

    def __init__(self, train: TrainingFunction, *, reward: str = "bounded") -> None:
        self.train, self.reward = train, REWARDS[reward]

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """Run one trial."""
        settings = settings_of(trial.study)
        with together(trial):
            recipe = space_of(trial.study).suggest(trial)
            write_trial(trial, {RECIPE: str(recipe)})

        inherited = set(frozen_of(trial).intermediate_values)  # of the trial that this one runs again

        def report(step: int, reward: Values, gap: float | None = None) -> None:
            if step not in inherited:
                report_values(trial, reward, step)
                if gap is not None:
                    record_gap(trial, step, gap)
            if step >= max(inherited, default=0) and should_prune(trial):
                raise optuna.TrialPruned(f"pruned at step {step}")
            if stopping.is_asked():
                raise TrainingInterrupted

        started = time.perf_counter()
        try:
            result = self.train(recipe, seed=trial_seed(settings["seed"], trial), report=report)
        except InvalidChainError as error:
            raise reject(trial, f"cannot be built: {error}") from None
        except LossRejected as rejected:
            raise reject(trial, str(rejected)) from None
        finally:
            trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
        return self._values(trial, result)

    def _values(
        self, trial: Trial, result: float | Sequence[float] | Metrics | Mapping[str, Any]
    ) -> float | tuple[float, ...]:
        names = trial.study.metric_names if len(trial.study.directions) > 1 else None
        if isinstance(result, Metrics):
            if names:
                raise ValueError(f"The study has the objectives {names}; the training function returned Metrics.")
            return self.reward(result)
        if isinstance(result, Mapping):
            wanted = names or ["reward"]
            if missing := [name for name in wanted if name not in result]:
                raise ValueError(f"The training function returned no {missing[0]!r}; its keys are {sorted(result)}.")
            for name, value in result.items():
                trial.set_user_attr(name, value.item() if hasattr(value, "item") else value)
            values = tuple(float(result[name]) for name in wanted)
            return values if names else values[0]
        if isinstance(result, Sequence):
            return tuple(map(float, result))  # Optuna says where their number is wrong
        return float(result)


def trial_seed(study_seed: int, trial: Trial) -> int:
    """Derive the seed of a trial; one that runs an interrupted trial again has that trial's seed."""
    return derive_seed(study_seed, "trial", _number_of(trial))


def _number_of(trial: Trial) -> int:
    return original_number(frozen_of(trial))


__all__ = [
    "DistillationObjective",
    "FunctionObjective",
    "StudyMismatchError",
    "TrainingFunction",
    "dead_cells",
]
