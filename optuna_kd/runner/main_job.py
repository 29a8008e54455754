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
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState
from sqlalchemy.exc import ArgumentError

from optuna_kd.objective import REJECTED, DistillationObjective
from optuna_kd.recipe import ProxyConfig, Recipe, StudentConfig
from optuna_kd.runner.confirmation import confirm
from optuna_kd.runner.controls import LABELS_ONLY, PLAIN_KD, best_of_grid, control_recipes, run_controls
from optuna_kd.runner.jobs import SESSION, WorkerSpec, run_full, run_trial
from optuna_kd.runner.ledger import SEED_SPACE, Ledger
from optuna_kd.runner.progress import Reporter, create_reporter, format_seconds
from optuna_kd.runner.result import LABELS, PLAIN, SEARCHED, TUNED, SearchResult, conclude
from optuna_kd.runner.run import Clock, Run
from optuna_kd.runner.teacher import check_teacher
from optuna_kd.runner.workers import Job, Outcome, Workers
from optuna_kd.search_space import Space, create_space
from optuna_kd.storages import DEFAULT_URL, create_storage, is_shareable, quietly, retry_interrupted
from optuna_kd.study import SAMPLERS, count_complete, count_finished, create_study, record_confirmed, top_recipes
from optuna_kd.training.task import ImageClassification

METHODS = 4  # in the closing table: labels only, plain KD, tuned KD, the searched recipe
FAILURES = 3  # trials that fail one after another, after which a search gives up
PRUNED_SHARE = 0.45  # of the epochs of an unpruned trial, for estimates of the time left


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
    confirm: tuple[int, int] | Literal[0] = (5, 3),
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
        sampler: "mcts", "uct", "random", "tpe", "nsga2", or an Optuna sampler.
        pruner: None is `CKAPruner()`.
        reward: "bounded", "paper", "ce", "ce-l1" or "accuracy".
        proxy: Length, rungs and subset of the proxies.
        epochs: Of each full training.
        seeds: Students per method in the closing table.
        confirm: How many of the best recipes are scored again, and with how many new seeds each; 0 for none.
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
    confirm_plan = (confirm, 0) if isinstance(confirm, int) else confirm
    seconds = parse_duration(budget) if budget is not None else None
    plan = Plan(60 if trials is None and seconds is None else trials, seconds, confirm_plan, epochs, seeds, workers)
    objective = DistillationObjective(task, proxy=proxy, reward=reward)
    space = space if isinstance(space, Space) else create_space(space or "auto-kd")
    if isinstance(sampler, str):
        SAMPLERS[sampler]  # names and teacher are checked before anything is written
    teacher = check_teacher(task)
    check_shareable(storage, workers)
    opened = create_storage(storage)
    shared: str | BaseStorage = str(storage) if is_shareable(storage) else opened
    study_name = study_name or derived_name(name, task, objective, seed, space, sampler)
    reporter = create_reporter(progress)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failed trials are told by the reporter
    try:
        study = create_study(
            storage=opened,
            study_name=study_name,
            seed=seed,
            space=space,
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        folder = Path(directory) / study.study_name
        job = _MainJob(
            task, teacher, objective, study, plan, opened, shared, sampler, seed, folder, reporter, student_config
        )
        return job()
    finally:
        reporter.close()
        optuna.logging.set_verbosity(verbosity)


def check_shareable(storage: str | BaseStorage | None, workers: int) -> None:
    """Check that so many workers can open a storage; a URL that cannot be read passes, opening it says why.

    Raises:
        ValueError: If it is in one process's memory and there are more workers.
    """
    with contextlib.suppress(ArgumentError):
        if workers > 1 and not is_shareable(storage):
            raise ValueError(
                f"{workers} workers need a storage with a URL, because they are processes; with a storage in memory "
                "use workers=1."
            )


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
    space: Space,
    sampler: str | BaseSampler,
) -> str:
    """Derive a study name from everything that must not change inside a study."""
    described = {
        **task.describe(),
        "proxy": objective.proxy.to_dict(),
        "reward": objective.reward_name,
        "seed": seed,
        "space": space.to_dict(),
        "sampler": sampler if isinstance(sampler, str) else type(sampler).__name__,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


class _MainJob:
    """One run of the main job; its methods are its phases, in order."""

    def __init__(
        self,
        task: ImageClassification,
        teacher: float,
        objective: DistillationObjective,
        study: Study,
        plan: Plan,
        storage: BaseStorage,
        shared: str | BaseStorage,
        sampler: str | BaseSampler,
        seed: int,
        folder: Path,
        reporter: Reporter,
        student_config: StudentConfig | None,
    ) -> None:
        self.task, self.objective, self.study, self.plan = task, objective, study, plan
        self.sampler, self.seed, self.say = sampler, seed, reporter
        self.teacher = teacher  # its accuracy on the validation data
        self.folder, self.student_config = folder, student_config
        self.shared = shared  # how the workers open the storage
        self.began = datetime.now()  # as Optuna stamps its trials: local time
        self.session = f"{os.getpid()}-{time.time_ns():x}"
        self.controls, self.confirmation, self.full = (
            Ledger(storage, f"{study.study_name}/{name}", metric=metric)
            for name, metric in (("controls", "reward"), ("confirmation", "reward"), ("full", "accuracy"))
        )

    def __call__(self) -> SearchResult:
        clock = Clock()
        scratch = Path(tempfile.mkdtemp(prefix="optuna_kd-"))
        try:
            self.objective.bind(self.study)
            self.say.note(f"Study      {self.study.study_name}")
            self.say.note(f"Layers     {self.task.layers()}")
            self.say.note(f"Teacher    {100 * self.teacher:.2f} % validation accuracy")
            with quietly():
                optuna.storages.fail_stale_trials(self.study)
            if self.plan.workers > 1:
                self.say.note(f"Starting   {self.plan.workers} worker processes")
            with Workers(self.plan.workers, self._spec(scratch), on_crash=self._retry_running) as workers:
                self.run = Run(self.study, self.objective, workers, self.say, clock, self.seed)
                try:
                    methods = self._find_recipes()
                    records = self._train_in_full(methods)
                    self._compare_with_teacher(records[LABELS])
                except BaseException:
                    workers.stop()
                    self._retry_running()
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
            self.say.note(f"Done in {format_seconds(clock.elapsed())}.")
            return result
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _spec(self, scratch: Path) -> WorkerSpec:
        """Describe the context of the workers; the teacher is asked once, and they map its answers from a file."""
        file = None
        if (stored := self.objective.knowledge) is not None:
            file = scratch / "knowledge.pt"
            stored.save(file)
        return WorkerSpec(
            task=self.task,
            proxy=self.objective.proxy,
            reward=self.objective.reward_name,
            knowledge=str(file) if file else None,
            storage=self.shared,
            study_name=self.study.study_name,
            sampler=self.sampler,
            pruner=self.study.pruner,
            seed=self.seed,
            session=self.session,
        )

    def _find_recipes(self) -> dict[str, Recipe]:
        """Run controls, trials and confirmation; give the recipe of every method of the table."""
        run, plan = self.run, self.plan
        recipes, seeds = plan.confirm
        after = run.proxy_cost * 2 * recipes * seeds + plan.epochs * plan.seeds * METHODS
        controls = sum(self.controls.get(str(recipe)) is None for recipe in control_recipes(self.study))
        trials = max(0, (plan.trials or 0) - count_finished(self.study))
        run.clock.planned = run.proxy_cost * (controls + PRUNED_SHARE * trials) + after
        run_controls(run, self.controls)
        self._run_trials(after)
        self._require_complete()
        tried, complete = count_finished(self.study), count_complete(self.study)
        self.say.note(f"Tried      {tried} recipes, {complete} to the end, the others pruned")
        rest = after * (run.clock.seconds_per_epoch or 0)
        if plan.budget is not None and run.clock.elapsed() + rest > 1.1 * plan.budget:
            self.say.note(
                f"The budget of {format_seconds(plan.budget)} is too small for what follows the search: about "
                f"{format_seconds(rest)} of confirmation and full trainings. Fewer epochs or seeds make them shorter."
            )
        candidates = top_recipes(self.study, max(1, recipes))
        grid = best_of_grid(self.study, self.controls, max(1, recipes))
        searched, tuned = confirm(run, self.confirmation, (candidates, grid), seeds if recipes else 0)
        record_confirmed(self.study, searched)
        if recipes:
            self.say.note(f"Confirmed  {searched}, the best of {len(candidates)} over {seeds} new seeds")
        return {LABELS: LABELS_ONLY, PLAIN: PLAIN_KD, TUNED: tuned, SEARCHED: searched}

    def _run_trials(self, after: float) -> None:
        """Run the missing trials; `after` are the epochs still to come afterwards, which a budget has to hold."""
        finished = count_finished(self.study)
        total = 0 if self.plan.trials is None else max(self.plan.trials, finished)
        self.say.phase("Search", total, finished)
        self._given = self._order = finished
        failed_in_a_row = 0
        for outcome in self._trial_outcomes(after):
            if outcome.error is not None:
                self._given -= 1
                failed_in_a_row += 1
                self.say.note(f"A trial failed: {type(outcome.error).__name__}: {outcome.error}")
                if failed_in_a_row >= FAILURES:
                    raise outcome.error
                continue
            failed_in_a_row = 0
            self.run.advance(outcome.result["epochs"] * self.objective.proxy.subset, self._best_so_far())

    def _trial_outcomes(self, after: float) -> Iterator[Outcome]:
        while self._is_missing_trials(after):  # again if one of the last to end has failed
            yield from self.run.workers.run(self._trial_jobs(after))

    def _trial_jobs(self, after: float) -> Iterator[Job]:
        """One job per missing trial, drawn one by one: a budget may end them, and a failed trial frees its place."""
        while self._is_missing_trials(after):
            self._given += 1
            self._order += 1  # never falls: two trials must not draw alike
            yield Job(f"trial {self._order}", run_trial, (self._order,))

    def _is_missing_trials(self, after: float) -> bool:
        if self.plan.budget is not None and self._given and self._out_of_time(after):
            return False
        return self.plan.trials is None or self._given < self.plan.trials

    def _out_of_time(self, after: float) -> bool:
        assert self.plan.budget is not None
        return self.run.clock.elapsed() + after * (self.run.clock.seconds_per_epoch or 0.0) > self.plan.budget

    def _require_complete(self) -> None:
        if count_complete(self.study):
            return
        trials = self.study.get_trials(deepcopy=False)
        reasons = Counter(trial.user_attrs[REJECTED] for trial in trials if REJECTED in trial.user_attrs)
        common = f" The commonest reason: {reasons.most_common(1)[0][0]}." if reasons else ""
        raise ValueError(
            f"None of the {len(trials)} trials ran to its end; {reasons.total()} were rejected.{common} Try a lower "
            "learning rate, or more trials."
        )

    def _best_so_far(self) -> str:
        try:
            best = self.study.best_trial
        except ValueError:
            return "no complete trial yet"
        return f"best {best.value:.4f}  {best.user_attrs.get('recipe', '')}"

    def _train_in_full(self, methods: Mapping[str, Recipe]) -> dict[str, list[dict[str, Any]]]:
        """Train every method with every seed, side by side; the searched students are kept on disk."""
        jobs: dict[str, Job] = {}
        for index in range(self.plan.seeds):
            for method, recipe in methods.items():
                file = str(self._student_file(recipe, index).resolve()) if method == SEARCHED else None
                key = self._full_key(recipe, index)
                if file or key not in jobs:
                    jobs[key] = Job(key, run_full, (recipe, self.plan.epochs, index, file))
        missing = [
            job
            for key, job in jobs.items()
            if (record := self.full.get(key)) is None
            or (job.arguments[3] and "reject_reason" not in record and not Path(job.arguments[3]).exists())
        ]
        self.run.clock.planned = self.run.clock.done + self.plan.epochs * len(missing)
        self.say.phase("Full training", len(jobs), len(jobs) - len(missing))
        for key, found in self.run.results(missing):
            if self.full.get(key) is None:
                point = {"seed": found["seed"]}
                self.full.put(key, found["val_accuracy"], found, params=point, distributions=SEED_SPACE)
            self.run.advance(self.plan.epochs)
        return {
            method: [self.full.get(self._full_key(recipe, index)) or {} for index in range(self.plan.seeds)]
            for method, recipe in methods.items()
        }

    def _compare_with_teacher(self, labels: list[dict[str, Any]]) -> None:
        student = fmean(run["val_accuracy"] for run in labels)
        if student > self.teacher:
            self.say.note(
                f"Warning: students that never saw the teacher score {100 * student:.2f} % on the validation data, "
                f"the teacher {100 * self.teacher:.2f} %. A better teacher would have more to teach."
            )

    def _full_key(self, recipe: Recipe, index: int) -> str:
        return f"{recipe.digest}/{self.plan.epochs}/{index}"

    def _student_file(self, recipe: Recipe, index: int) -> Path:
        return self.folder / "students" / f"{recipe.digest}-{self.plan.epochs}-{index}.pt"

    def _retry_running(self) -> None:
        """Queue the trials again that this run left open; others may belong to a run beside this one."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            session = trial.user_attrs.get(SESSION)
            # A worker that was killed between creating its trial and signing it leaves one without a session.
            unsigned = session is None and trial.datetime_start is not None and trial.datetime_start >= self.began
            if session == self.session or unsigned:
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # told by its worker just now
                    retry_interrupted(self.study, trial)
