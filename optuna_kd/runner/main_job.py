"""The main job: controls, search, confirmation, full trainings, and an honest table."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.objective import DistillationObjective
from optuna_kd.pruners import record_control_gaps
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.runner.jobs import SESSION, Worker, WorkerSpec, run_full, run_proxy, run_trial
from optuna_kd.runner.ledger import Ledger
from optuna_kd.runner.progress import Reporter, create_reporter, format_seconds
from optuna_kd.runner.result import LABELS, PLAIN, SEARCHED, TUNED, SearchResult, conclude
from optuna_kd.runner.teacher import check_teacher
from optuna_kd.runner.workers import Job, Outcome, Workers
from optuna_kd.search_space import Space
from optuna_kd.search_space.auto_kd import LOGIT_WEIGHTS, TEMPERATURES_PAPER
from optuna_kd.seeds import derive_seed
from optuna_kd.storages import DEFAULT_URL, retry_interrupted
from optuna_kd.study import CONFIRMED, best_recipe, count_finished, create_study, top_recipes
from optuna_kd.training.offline import store_knowledge
from optuna_kd.training.task import ImageClassification

PLAIN_KD = Recipe.from_string("kl@4*1")
KD_GRID = {
    (temperature, weight): Recipe.from_string(f"kl@{temperature:g}*{weight:g}")
    for temperature in TEMPERATURES_PAPER
    for weight in LOGIT_WEIGHTS
}
FAILURES = 3  # trials that fail one after another, after which a search gives up
PRUNED_SHARE = 0.55  # of the epochs of an unpruned trial, for estimates of the time left


@dataclass(frozen=True)
class Plan:
    """How much a search does.

    Args:
        trials: Total of the study; None searches until `budget` is nearly used up.
        budget: Seconds for the whole job, or None.
        confirm: How many of the best recipes are scored again, and with how many new seeds each.
        epochs: Of each full training.
        seeds: Students per method in the closing table.
        workers: Processes.
    """

    trials: int | None = 60
    budget: float | None = None
    confirm: tuple[int, int] = (5, 3)
    epochs: int = 60
    seeds: int = 10
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1; got {getattr(self, name)!r}.")
        if self.trials is None and self.budget is None:
            raise ValueError("A search needs a number of trials or a budget.")
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials must be >= 1; got {self.trials!r}.")
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"The budget must be > 0 seconds; got {self.budget!r}.")
        if min(self.confirm) < 0 or (self.confirm[0] > 0 and self.confirm[1] < 1):
            raise ValueError(f"confirm is (recipes, seeds), e.g. (5, 3), or (0, 0) for none; got {self.confirm!r}.")


def search(
    task: ImageClassification,
    *,
    trials: int | None = None,
    budget: str | float | None = None,
    workers: int = 1,
    storage: str | BaseStorage | None = DEFAULT_URL,
    study_name: str | None = None,
    seed: int = 0,
    space: str | Space | None = None,
    sampler: str | BaseSampler = "mcts",
    pruner: BasePruner | None = None,
    reward: str = "bounded",
    proxy: ProxyConfig | None = None,
    epochs: int = 60,
    seeds: int = 10,
    confirm: tuple[int, int] = (5, 3),
    directory: str | Path = "runs",
    progress: bool | Reporter = True,
    name: str = "auto-kd",
    student_config: StudentConfig | None = None,
) -> SearchResult:
    """Find a recipe, train the student with it and with the controls, and compare them honestly.

    Running it again with the same arguments goes on where it was stopped; finished work is kept.

    Args:
        task: What is to be distilled.
        trials: Total of the study; 60 unless a budget is given.
        budget: Instead of trials: the time for all of it, in seconds or as text ("20m", "1h30m").
        workers: Processes; each gets its share of the cores. More than one need a storage with a URL.
        storage: A database URL; None keeps everything in memory.
        study_name: None derives it from everything that must not change inside a study.
        seed: All randomness derives from it.
        space: "auto-kd", "auto-kd-extended", "feature-only", "naive", or a space; None is "auto-kd".
        sampler: "mcts", "random", "tpe", "nsga2", or an Optuna sampler.
        pruner: None is `CKAPruner()`.
        reward: "bounded", "paper", "ce", "ce-l1" or "accuracy".
        proxy: Length, rungs and subset of the proxies.
        epochs: Of each full training.
        seeds: Students per method in the closing table.
        confirm: How many of the best recipes are scored again, and with how many new seeds each.
        directory: Results are written to `<directory>/<study name>/`.
        progress: False says nothing.
        name: First part of a derived study name.
        student_config: The student by its registered name, for the recipe file; None for a student of your own.

    Raises:
        StudyMismatchError: If the study exists with other settings; both are named.
        StorageError: If the storage cannot be opened.
        TeacherError: If the teacher is not better than chance.
        ValueError: For arguments out of range.
    """
    seconds = parse_duration(budget) if budget is not None else None
    plan = Plan(trials if trials or seconds else 60, seconds, confirm, epochs, seeds, workers)
    if workers > 1 and not isinstance(storage, str):
        raise ValueError(
            f"{workers} workers need a storage with a URL, because they are processes; with a storage in memory "
            "use workers=1."
        )
    objective = DistillationObjective(task, proxy=proxy, reward=reward)
    study_name = study_name or derived_name(name, task, objective, seed, space, sampler)
    study = create_study(
        storage=storage,
        study_name=study_name,
        seed=seed,
        space=space,
        sampler=sampler,
        pruner=pruner,
        load_if_exists=True,
    )
    run = _Search(
        task,
        objective,
        study,
        plan,
        storage,
        sampler,
        seed,
        Path(directory),
        create_reporter(progress),
        student_config,
    )
    return run()


def parse_duration(text: str | float) -> float:
    """Read a duration in seconds: 90, "90", "20m", "1h30m", "45s".

    Raises:
        ValueError: If it is none.
    """
    match = re.fullmatch(r"\s*(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?\s*", str(text))
    if not match or not any(match.groups()):
        raise ValueError(f"A duration reads like 20m, 1h30m or 90s; got {text!r}.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def derived_name(
    name: str,
    task: ImageClassification,
    objective: DistillationObjective,
    seed: int,
    space: str | Space | None,
    sampler: str | BaseSampler,
) -> str:
    """Derive a study name from everything that must not change inside a study."""
    described = {
        **task.describe(),
        "proxy": objective.proxy.to_dict(),
        "reward": objective.reward_name,
        "seed": seed,
        "space": space.to_dict() if isinstance(space, Space) else space or "auto-kd",
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


@dataclass
class _Clock:
    """Time left, from the cost of the epochs trained so far."""

    workers: int
    started: float = field(default_factory=time.monotonic)
    epochs_done: float = 0.0
    epochs_planned: float = 0.0
    busy_since: float = field(default_factory=time.monotonic)

    def left(self) -> float | None:
        """Seconds left of everything planned; None before anything was measured."""
        if self.epochs_done <= 0:
            return None
        return (self.epochs_planned - self.epochs_done) * self.seconds_per_epoch

    @property
    def seconds_per_epoch(self) -> float:
        """Wall-clock seconds per epoch, all workers together."""
        return (time.monotonic() - self.busy_since) / max(self.epochs_done, 1e-9)


class _Search:
    """One run of the main job; its methods are its phases, in order."""

    def __init__(
        self,
        task: ImageClassification,
        objective: DistillationObjective,
        study: Study,
        plan: Plan,
        storage: str | BaseStorage | None,
        sampler: str | BaseSampler,
        seed: int,
        directory: Path,
        reporter: Reporter,
        student_config: StudentConfig | None,
    ) -> None:
        self.student_config = student_config
        self.task, self.objective, self.study, self.plan = task, objective, study, plan
        self.sampler, self.seed, self.say = sampler, seed, reporter
        self.storage = storage if isinstance(storage, str) else study._storage
        self.folder = directory / study.study_name
        self.session = f"{os.getpid()}-{time.time_ns():x}"
        backend = study._storage
        self.controls = Ledger(backend, f"{study.study_name}/controls", metric="reward")
        self.confirmation = Ledger(backend, f"{study.study_name}/confirmation", metric="reward")
        self.full = Ledger(backend, f"{study.study_name}/full", metric="validation accuracy")
        self.clock = _Clock(plan.workers)

    def __call__(self) -> SearchResult:
        started = time.monotonic()
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        scratch = Path(tempfile.mkdtemp(prefix="optuna_kd-"))
        try:
            self.objective.bind(self.study)
            teacher = check_teacher(self.task)
            self.say.note(f"Study      {self.study.study_name}")
            self.say.note(f"Layers     {self.task.layers()}")
            self.say.note(f"Teacher    {100 * teacher:.2f} % validation accuracy")
            optuna.storages.fail_stale_trials(self.study)
            spec = WorkerSpec(
                create_task=_Constant(self.task),
                proxy=self.objective.proxy,
                reward=self.objective.reward_name,
                knowledge=self._store_knowledge(scratch),
                storage=self.storage,
                study_name=self.study.study_name,
                sampler=self.sampler,
                pruner=self.study.pruner,
                seed=self.seed,
                session=self.session,
            )
            self._plan_time()
            with Workers(self.plan.workers, spec, on_crash=self._fail_running) as self.workers:
                try:
                    self._run_controls()
                    self._run_trials()
                    searched, tuned = self._confirm()
                    methods = {LABELS: Recipe(), PLAIN: PLAIN_KD, TUNED: tuned, SEARCHED: searched}
                    records = self._train_in_full(methods)
                except BaseException:
                    self.workers.stop()
                    self._fail_running()
                    raise
            result = conclude(
                self.study,
                self.task,
                methods,
                records,
                self.folder,
                student_file=lambda index: self._student_file(methods[SEARCHED], index),
                student_config=self.student_config,
            )
            self.say.note(f"Done in {format_seconds(time.monotonic() - started)}.")
            return result
        finally:
            self.say.close()
            optuna.logging.set_verbosity(verbosity)
            shutil.rmtree(scratch, ignore_errors=True)

    def _store_knowledge(self, scratch: Path) -> str | None:
        """Ask the teacher once; worker processes map the file into memory."""
        if self.task.is_streaming:
            return None
        self.objective._knowledge = store_knowledge(self.task)
        file = scratch / "knowledge.pt"
        self.objective._knowledge.save(file)
        return str(file)

    def _plan_time(self) -> None:
        plan, proxy = self.plan, self.objective.proxy.epochs
        share = self.objective.proxy.subset
        control = sum(self.controls.get(key) is None for key, *_ in self._control_jobs())
        trials = max(0, (plan.trials or 0) - count_finished(self.study))
        recipes, seeds = plan.confirm
        missing = [1 for _ in range(4 * plan.seeds)]
        self.reserve = share * proxy * 2 * recipes * seeds + plan.epochs * len(missing)
        self.clock.epochs_planned = share * proxy * (control + PRUNED_SHARE * trials) + self.reserve

    # Controls

    def _control_jobs(self) -> Iterator[tuple[str, Recipe, int]]:
        """Labels only, then the KD grid with plain KD first: the pruner needs its representation gaps."""
        yield "labels", Recipe(), derive_seed(self.seed, "control", "labels")
        grid = sorted(KD_GRID.items(), key=lambda item: item[1] != PLAIN_KD)
        for (temperature, weight), recipe in grid:
            yield (
                f"kl@{temperature:g}*{weight:g}",
                recipe,
                derive_seed(self.seed, "control", temperature, str(weight)),
            )

    def _run_controls(self) -> None:
        jobs = list(self._control_jobs())
        missing = [job for job in jobs if self.controls.get(job[0]) is None]
        self.say.phase("Controls", len(jobs), len(jobs) - len(missing))
        points = {str(recipe): point for point, recipe in KD_GRID.items()}
        for outcome in self._run(Job(key, run_proxy, (recipe, seed)) for key, recipe, seed in missing):
            found = outcome.result
            params, distributions = {}, {}
            if found["recipe"] in points:
                params = dict(zip(("temperature", "logit_weight"), points[found["recipe"]], strict=True))
                distributions = {
                    "temperature": CategoricalDistribution(TEMPERATURES_PAPER),
                    "logit_weight": CategoricalDistribution(LOGIT_WEIGHTS),
                }
            self.controls.put(outcome.key, found["reward"], found, params=params, distributions=distributions)
            self._advance(found["epochs"] * self.objective.proxy.subset, f"{outcome.key}  reward {found['reward']:.4f}")
        plain = self.controls.get(str(PLAIN_KD))
        if plain and "gaps" in plain:
            record_control_gaps(self.study, {int(rung): gap for rung, gap in plain["gaps"].items()})

    # Trials

    def _run_trials(self) -> None:
        finished = count_finished(self.study)
        total = self.plan.trials
        self.say.phase("Search", total or finished, finished)
        failures = 0
        for outcome in self.workers.run(self._trial_jobs(finished)):
            if outcome.error is not None:
                failures += 1
                self._lost += 1
                self.say.note(f"A trial failed: {type(outcome.error).__name__}: {outcome.error}")
                if failures >= FAILURES:
                    raise outcome.error
                continue
            failures = 0
            found = outcome.result
            if found["state"] not in ("COMPLETE", "PRUNED"):
                self._lost += 1
                continue
            self._advance(found["epochs"] * self.objective.proxy.subset, self._best_so_far())

    def _trial_jobs(self, finished: int) -> Iterator[Job[Worker]]:
        """One job per missing trial, read one by one: a budget may end the stream, a lost trial is repeated."""
        self._lost = 0
        given = 0
        while self.plan.trials is None or finished + given - self._lost < self.plan.trials:
            if self.plan.budget is not None and given and self._out_of_time():
                return
            yield Job(f"trial {given}", run_trial, (finished + given,))
            given += 1

    def _out_of_time(self) -> bool:
        assert self.plan.budget is not None
        reserve = self.reserve * self.clock.seconds_per_epoch
        return time.monotonic() - self.clock.started + reserve > self.plan.budget

    def _best_so_far(self) -> str:
        try:
            best = self.study.best_trial
        except ValueError:
            return "no complete trial yet"
        return f"best {best.value:.4f}  {best.user_attrs.get('recipe', '')}"

    # Confirmation

    def _confirm(self) -> tuple[Recipe, Recipe]:
        """Score the best recipes again with new seeds, the searched ones and those of tuned KD alike."""
        count, seeds = self.plan.confirm
        grid = sorted(KD_GRID.values(), key=lambda recipe: -(self.controls.get(str(recipe)) or {"reward": 0})["reward"])
        if count_complete(self.study) == 0:
            raise ValueError(
                f"None of the {count_finished(self.study)} trials was completed: all were pruned or rejected. "
                "The attribute reject_reason of the trials says why."
            )
        if count == 0:
            return best_recipe(self.study), grid[0]
        groups = {"searched": top_recipes(self.study, count), "tuned KD": grid[:count]}
        jobs = {
            f"{recipe.digest}/{index}": (recipe, index)
            for recipes in groups.values()
            for recipe in recipes
            for index in range(seeds)
        }
        missing = {key: job for key, job in jobs.items() if self.confirmation.get(key) is None}
        self.say.phase("Confirmation", len(jobs), len(jobs) - len(missing))
        for outcome in self._run(
            Job(key, run_proxy, (recipe, derive_seed(self.seed, "confirm", index)))
            for key, (recipe, index) in missing.items()
        ):
            self.confirmation.put(outcome.key, outcome.result["reward"], outcome.result)
            self._advance(self.objective.proxy.epochs * self.objective.proxy.subset)

        def mean(recipe: Recipe) -> float:
            found = (self.confirmation.get(f"{recipe.digest}/{index}") for index in range(seeds))
            return fmean(record["reward"] for record in found if record is not None)

        searched, tuned = (max(recipes, key=mean) for recipes in groups.values())
        self.study.set_user_attr(CONFIRMED, searched.to_dict())
        return searched, tuned

    # Full trainings

    def _train_in_full(self, methods: Mapping[str, Recipe]) -> dict[str, list[dict[str, Any]]]:
        jobs: dict[str, Job[Worker]] = {}
        for index in range(self.plan.seeds):
            for method, recipe in methods.items():
                key = f"{recipe.digest}/{self.plan.epochs}/{index}"
                file = str(self._student_file(recipe, index).resolve()) if method == SEARCHED else None
                if file or key not in jobs:
                    jobs[key] = Job(key, run_full, (recipe, self.plan.epochs, index, file))
        missing = {
            key: job
            for key, job in jobs.items()
            if self.full.get(key) is None or (job.arguments[3] and not Path(job.arguments[3]).exists())
        }
        self.say.phase("Full training", len(jobs), len(jobs) - len(missing))
        for outcome in self._run(iter(missing.values())):
            if self.full.get(outcome.key) is None:
                self.full.put(outcome.key, outcome.result["val_accuracy"], outcome.result)
            self._advance(self.plan.epochs)
        return {
            method: [
                {**(self.full.get(f"{recipe.digest}/{self.plan.epochs}/{index}") or {})}
                for index in range(self.plan.seeds)
            ]
            for method, recipe in methods.items()
        }

    def _student_file(self, recipe: Recipe, index: int) -> Path:
        return self.folder / "students" / f"{recipe.digest}-{self.plan.epochs}-{index}.pt"

    # Running jobs

    def _run(self, jobs: Iterator[Job[Worker]]) -> Iterator[Outcome]:
        for outcome in self.workers.run(jobs):
            if outcome.error is not None:
                raise outcome.error
            yield outcome

    def _advance(self, epochs: float, text: str = "") -> None:
        self.clock.epochs_done += epochs
        self.say.advance(text, left=self.clock.left())

    def _fail_running(self) -> None:
        """Queue the trials again that this run left open; others may belong to a run beside this one."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get(SESSION) == self.session:
                with contextlib.suppress(ValueError):  # told by its worker just now
                    retry_interrupted(self.study, trial)


def count_complete(study: Study) -> int:
    """Count the trials that ran to the end."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


@dataclass(frozen=True)
class _Constant:
    """A function that gives always the same task; it travels to the workers with it."""

    task: ImageClassification

    def __call__(self) -> ImageClassification:
        return self.task
