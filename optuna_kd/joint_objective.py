"""Student and recipe together: a trial becomes a student that fits, a proxy, and a value for each objective."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import optuna
import torch
from optuna.study import Study
from optuna.trial import Trial
from torch import nn

from optuna_kd.distillers import DeadTermError, InvalidChainError, probe_points
from optuna_kd.goals import GOALS
from optuna_kd.models import count_flops, count_parameters, latency_ms, student_label
from optuna_kd.objective import DistillationObjective, scores_of, trial_seed
from optuna_kd.pruners import REJECT_REASON, reason_to_reject, reject, report, should_prune, values_at
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.rewards import Metrics
from optuna_kd.search_space import DeadCell, Space, UniADSSpace
from optuna_kd.seeds import derive_seed
from optuna_kd.storages import frozen_of, together, write_trial
from optuna_kd.study import RECIPE, StudyMismatchError, settings_of, space_of
from optuna_kd.training.checkpoint import Checkpoint
from optuna_kd.training.diswot import rank_students
from optuna_kd.training.lesson import Rung
from optuna_kd.training.offline import TeacherKnowledge
from optuna_kd.training.rejection import LossRejected
from optuna_kd.training.task import ImageClassification
from optuna_kd.training.together import Attempt, next_rung
from optuna_kd.training.trainer import StudentTraining

MOST_LOOKED_AT = 1000  # students, before a search with limits
ROUGHLY = {"latency_ms": 0.8}  # of a limit: a few passes take longer than the fastest of many
FEW = 4  # trials at a rung, below which nothing can be said about it
LATENCIES = "latency_ms"  # user attribute of a study, {student: milliseconds}
SCORES = "diswot_scores"  # user attribute of a study, {student: training-free score}
STUDENT = "student"  # user attribute of a trial, for people; name of the constraint that it can be built

LIMITS = {"max_params": "parameters", "max_flops": "flops", "max_latency_ms": "latency_ms"}  # argument: cost


class JointDistillationObjective(DistillationObjective):
    """Scores a student and its recipe together, in each objective of the study (UniADS).

    The objectives are the metric names of the study, which `create_study(method="uniads", objectives=...)` sets. A
    student that breaks a limit, or cannot be built, is not trained: its trial is pruned as infeasible, with the
    reason. At every rung the values are reported; trials whose loss is not finite or explodes, or that are no better
    than guessing where most others are, are pruned, with the reason in the attribute `reject_reason`.

    Args:
        task: What is to be distilled; its student factory takes a `StudentConfig`.
        proxy: Length, rungs and subset of the proxy; None is 24 epochs with rungs at 3, 6, 12, 24.
        max_params: Parameters that a student may have; None is no limit. Likewise:
        max_flops: Floating-point operations for one image, two for each multiplication with addition.
        max_latency_ms: Milliseconds for one image on one CPU thread of this machine.
        budget: Parameters, for the objective `budget_gap`.
        screen: Share of the students, those with the lowest training-free score of DisWOT (`rank_students`), that
            are not trained; in [0, 1). Counting parameters orders students better than the score does
            (`benchmarks/diswot.py`), so it is off by default.
        knowledge: As for `DistillationObjective`; likewise:
        checkpoints: Where trials keep their state.

    Raises:
        ValueError: For a task with one student, or a limit that is not positive.
    """

    chooses_student: ClassVar[bool] = True
    DEFAULT_PROXY: ClassVar[ProxyConfig] = ProxyConfig(epochs=24, rungs=(3, 6, 12, 24))

    def __init__(
        self,
        task: ImageClassification,
        *,
        proxy: ProxyConfig | None = None,
        max_params: float | None = None,
        max_flops: float | None = None,
        max_latency_ms: float | None = None,
        budget: float | None = None,
        screen: float = 0.0,
        knowledge: TeacherKnowledge | str | Path | None = None,
        checkpoints: str | Path | None = None,
    ) -> None:
        if not task.is_open:
            raise ValueError(
                "This task has one student, so there is none to choose. Pass a function that takes a StudentConfig as "
                "`student` of the task, or use DistillationObjective."
            )
        super().__init__(task, proxy=proxy or self.DEFAULT_PROXY, knowledge=knowledge, checkpoints=checkpoints)
        given = (max_params, max_flops, max_latency_ms)
        self.limits = {name: limit for name, limit in zip(LIMITS.values(), given, strict=True) if limit is not None}
        for name, limit in {**self.limits, "budget": budget}.items():
            if limit is not None and not limit > 0:
                raise ValueError(f"The limit of {name} must be > 0; got {limit!r}.")
        if not 0 <= screen < 1:
            raise ValueError(f"screen is a share of the students, in [0, 1); got {screen!r}.")
        self.budget, self.screen = budget, screen
        self._tasks: dict[StudentConfig, ImageClassification] = {}
        self._costs: dict[StudentConfig, dict[str, float]] = {}

    def attempt(self, trial: Trial) -> Attempt[float | tuple[float, ...]]:
        """Run one trial, as `DistillationObjective.attempt` does."""
        space, seed = self.bind(trial.study)
        with together(trial):
            recipe = space.suggest(trial)
            line = str(Recipe(recipe.distiller, training=recipe.training))
            write_trial(trial, {RECIPE: line, STUDENT: student_label(recipe.student) if recipe.student else ""})
        task, costs = self._admit(trial, recipe)
        checkpoint = self.checkpoint_of(trial, recipe)
        with checkpoint.until_the_end():
            return (yield from self._learn_student(trial, recipe, trial_seed(seed, trial), checkpoint, task, costs))

    def _learn_student(
        self,
        trial: Trial,
        recipe: Recipe,
        seed: int,
        checkpoint: Checkpoint,
        task: ImageClassification,
        costs: Mapping[str, float],
    ) -> Attempt[tuple[float, ...]]:
        goals = goals_of(trial.study)
        started = time.perf_counter()
        rung: Rung | None = None
        values: tuple[float, ...] = ()
        inherited = set(frozen_of(trial).intermediate_values)
        try:
            training = StudentTraining(
                task, recipe, self.proxy, seed=seed, knowledge=self.knowledge, checkpoint=checkpoint
            )
            events = training.lessons()
            while (passed := (yield from next_rung(events))) is not None:
                rung = passed
                values = self._values(goals, rung.metrics, costs)
                if rung.epoch < max(inherited, default=0):
                    continue  # it was judged there before it was interrupted, and went on
                if rung.epoch not in inherited:
                    report(trial, values, rung.epoch)
                collapsed = reason_to_reject(validation=rung.metrics.cross_entropy, num_classes=task.num_classes)
                if collapsed is not None and not self._is_early(trial, goals, rung.epoch):
                    raise reject(trial, collapsed)
                if rung.epoch < self.proxy.epochs and should_prune(trial):
                    raise optuna.TrialPruned(f"pruned at epoch {rung.epoch}")
        except (InvalidChainError, DeadTermError) as error:
            raise reject(trial, f"cannot teach: {error}") from None
        except LossRejected as rejected:
            raise reject(trial, str(rejected)) from None
        finally:
            scores = {} if rung is None else scores_of(rung)
            write_trial(trial, {"seconds": round(time.perf_counter() - started, 3), **scores})
        return values

    def task_of(self, recipe: Recipe) -> ImageClassification:
        """Give the task with the student of a recipe.

        Raises:
            ValueError: If the student cannot be built.
        """
        assert recipe.student is not None
        if recipe.student not in self._tasks:
            self._tasks[recipe.student] = _build(self.task, recipe.student)
        return self._tasks[recipe.student]

    def find_feasible(self, space: Space) -> StudentConfig | None:
        """Find a student that keeps the limits, before anything is trained.

        It looks until it has found one, which is mostly the first; of 1,000 at most.

        Returns:
            The student; None if there were too many to look at all.

        Raises:
            ValueError: If there is none: with the student that comes nearest and by how much it breaks the limits,
                or with what the student function raised, if it did for all of them.
        """
        if not isinstance(space, UniADSSpace) or space.student is None:
            return None
        nearest, excess, costs = "", math.inf, {}
        failure: Exception | None = None
        for config in space.student.all()[:MOST_LOOKED_AT]:
            try:
                costs_here = self._draft_costs(config)
            except Exception as error:  # of a user's factory, which may raise anything
                failure = failure or error
                continue
            worst = max(
                (costs_here[name] / limit * ROUGHLY.get(name, 1) for name, limit in self.limits.items()), default=0.0
            )
            if worst <= 1:
                return config
            if worst < excess:
                nearest, excess, costs = student_label(config), worst, costs_here
        count = space.student.size()
        if count > MOST_LOOKED_AT:
            return None
        if not nearest:
            raise ValueError(
                f"The student function failed for all {count} students; for the first one with "
                f"{type(failure).__name__}: {failure}"
            ) from failure
        broken = "; ".join(
            _over(name, costs[name], limit)
            for name, limit in self.limits.items()
            if costs[name] * ROUGHLY.get(name, 1) > limit
        )
        raise ValueError(
            f"None of the {count} students keeps the limits. The nearest is {nearest}: {broken}. Relax them, or search "
            "smaller students."
        )

    def _draft_costs(self, config: StudentConfig) -> dict[str, float]:
        """Measure what the limits are about."""
        student, image = self.task.draft_student(config), torch.zeros(1, *self.task.image_shape)
        if not isinstance(student, nn.Module):
            raise TypeError(f"a student is a torch.nn.Module; got {type(student).__name__}")
        costs = {"parameters": float(count_parameters(student))}
        if "flops" in self.limits:
            costs["flops"] = float(count_flops(student, image))
        if "latency_ms" in self.limits:
            costs["latency_ms"] = latency_ms(student, image, repeats=5, seconds=0)
        return costs

    def options(self) -> dict[str, Any]:
        """Give the arguments, beside task and knowledge, that create the same objective in another process."""
        limits = {argument: self.limits.get(name) for argument, name in LIMITS.items()}
        return {"proxy": self.proxy, "budget": self.budget, "screen": self.screen, **limits}

    def costs_of(self, study: Study, recipe: Recipe) -> dict[str, float]:
        """Measure what the student of a recipe costs; its latency once in a study, so that equal students are equal."""
        assert recipe.student is not None
        task, image = self.task_of(recipe), torch.zeros(1, *self.task.image_shape)
        if recipe.student not in self._costs:
            flops = float(count_flops(task.make_student(seed=0), image))
            self._costs[recipe.student] = {"parameters": float(task.student_parameters), "flops": flops}
        name, known = student_label(recipe.student), study.user_attrs.get(LATENCIES, {})
        if name not in known:
            measured = round(latency_ms(task.make_student(seed=0), image), 4)
            known = {name: measured, **study.user_attrs.get(LATENCIES, {})}  # another worker may have been first
            study.set_user_attr(LATENCIES, known)
        costs = {**self._costs[recipe.student], "latency_ms": known[name]}
        if self.budget is not None:
            costs["budget_gap"] = abs(costs["parameters"] - self.budget) / self.budget
        return costs

    def bind(self, study: Study) -> tuple[Space, int]:
        """Tie the study to this task, as `DistillationObjective.bind` does, and check its objectives.

        Raises:
            StudyMismatchError: If the study was run on something else, or its objectives are not among `GOALS`.
            ValueError: For the objective `budget_gap` without a budget.
        """
        if "budget_gap" in goals_of(study) and self.budget is None:
            raise ValueError("The objective budget_gap needs a budget: pass budget=<parameters>.")
        return super().bind(study)

    def describe(self, space: Space) -> dict[str, Any]:
        """Everything that must not change inside a study, beside its space; of the students, the first and the last."""
        limits = {**self.limits, **({} if self.budget is None else {"budget": self.budget})}
        if self.screen:
            limits["screen"] = self.screen
        described = {**self.task.describe(), "proxy": self.proxy.to_dict(), "limits": limits}
        if isinstance(space, UniADSSpace) and space.student is not None:
            students = space.student.all()
            described["students"] = " to ".join(map(self._digest, (students[0], students[-1])))
        return described

    def _digest(self, config: StudentConfig) -> str:
        """Identify the layers that the student function makes of a configuration."""
        try:
            layers = repr(self.task.draft_student(config))
        except Exception as error:  # of a user's factory, which may raise anything; its trial says what
            layers = type(error).__name__
        return hashlib.sha256(layers.encode()).hexdigest()[:16]

    def live_space(self, space: Space) -> Space:
        """Leave out what cannot teach on the maps of this task; of all students, the first one has to do."""
        if not isinstance(space, UniADSSpace) or not space.distiller or space.student is None:
            return space
        for student in space.student.all():
            try:
                shape = self.task_of(Recipe(student=student)).student_layer.shape
            except ValueError:
                continue
            found = probe_points(shape, self.task.teacher_layer.shape, self.task.num_classes)
            return space.without([DeadCell(*cell) for cell in sorted(found)])
        return space

    def _admit(self, trial: Trial, recipe: Recipe) -> tuple[ImageClassification, dict[str, float]]:
        """Build and measure the student of a trial, or end the trial as infeasible."""
        assert recipe.student is not None  # `bind` has looked
        try:
            task = self.task_of(recipe)
        except ValueError as error:
            trial.set_constraint(STUDENT, 1.0)
            raise reject(trial, f"infeasible: {error}") from None
        costs = self.costs_of(trial.study, recipe)
        write_trial(trial, costs)
        broken = []
        for name, limit in self.limits.items():
            # Relative, so that constraints of different units can be added up.
            trial.set_constraint(name, costs[name] / limit - 1)
            if costs[name] > limit:
                broken.append(_over(name, costs[name], limit))
        if broken:
            raise reject(trial, f"infeasible: {'; '.join(broken)}")
        if self.screen and (reason := self._screened_out(trial.study, recipe.student)):
            raise reject(trial, reason)
        return task, costs

    def _screened_out(self, study: Study, student: StudentConfig) -> str:
        """Say why a student is not worth a training by its training-free score; empty if it is."""
        space, scores = space_of(study), study.user_attrs.get(SCORES)
        if scores is None:
            if not isinstance(space, UniADSSpace) or space.student is None:
                return ""
            seed = derive_seed(int(settings_of(study)["seed"]), "diswot")
            ranked = rank_students(self.task, space.student.all(), seed=seed)
            scores = {student_label(config): score for config, score in ranked.items()}
            study.set_user_attr(SCORES, scores)
        own = scores.get(student_label(student))
        lower = sum(score < own for score in scores.values()) if own is not None else len(scores)
        if lower >= self.screen * len(scores):
            return ""
        return f"screened out: {lower} of {len(scores)} students have a lower training-free score ({own:.4g})"

    def _is_early(self, trial: Trial, goals: Sequence[str], step: int) -> bool:
        """Tell whether most other students that cost no more were guessing at this rung, too.

        Then it says nothing about this one: small students learn later than large ones.
        """
        quality = next(name for name in goals if GOALS[name].kind == "quality")
        chance = {"cross_entropy": math.log(self.task.num_classes), "error": 1 - 1 / self.task.num_classes}[quality]
        costs = [place for place, name in enumerate(goals) if GOALS[name].kind == "cost"]
        trials = trial.study.get_trials(deepcopy=False)
        own = values_at(trials[trial.number], step, len(goals)) or [math.inf] * len(goals)
        others = [
            values[goals.index(quality)]
            for other in trials
            if other.number != trial.number
            and (values := values_at(other, step, len(goals))) is not None
            and all(values[place] <= own[place] for place in costs)
        ]
        return len(others) < FEW or sum(value < chance for value in others) < len(others) / 2

    def _values(self, goals: Sequence[str], metrics: Metrics, costs: Mapping[str, float]) -> tuple[float, ...]:
        found = {"cross_entropy": metrics.cross_entropy, "error": 1 - metrics.accuracy, **costs}
        return tuple(found[name] for name in goals)

    def infeasible(self, study: Study) -> str:
        """Say by how much the students that were tried break the limits, for a study in which none was feasible."""
        found = []
        for name, limit in self.limits.items():
            tried = [trial.user_attrs[name] for trial in study.get_trials(deepcopy=False) if name in trial.user_attrs]
            if tried and min(tried) > limit:
                found.append(f"the nearest student that was tried has {min(tried):,.6g} {name}, allowed {limit:,.6g}")
        reasons = [trial.user_attrs.get(REJECT_REASON, "") for trial in study.get_trials(deepcopy=False)]
        if not found and reasons and all(reason.startswith("infeasible") for reason in reasons):
            found.append(f"each was infeasible, the last one: {reasons[-1].removeprefix('infeasible: ').rstrip('.')}")
        return "; ".join(found)


def goals_of(study: Study) -> list[str]:
    """Read the objectives of a study: its metric names.

    Raises:
        StudyMismatchError: If it has none, or others than those that this package can measure.
    """
    names = study.metric_names or []
    known = [GOALS[name].kind for name in names if name in GOALS]
    if len(known) != len(study.directions) or "quality" not in known:
        raise StudyMismatchError(
            f"The study {study.study_name!r} has {len(study.directions)} directions and the metric names {names}; each "
            f"direction needs one of {', '.join(GOALS)}, at least one of them a quality (cross_entropy, error). Create "
            "it with create_study(method='uniads', objectives=...)."
        )
    return list(names)


def _over(name: str, cost: float, limit: float) -> str:
    """Say by how much a limit is broken."""
    return f"{cost:,.6g} {name}, allowed {limit:,.6g}"


def _build(task: ImageClassification, student: StudentConfig) -> ImageClassification:
    try:
        return task.with_student(student)
    except Exception as error:  # of a user's factory, which may raise anything
        raise ValueError(
            f"the student {student_label(student)} cannot be built: {type(error).__name__}: {error}"
        ) from error
