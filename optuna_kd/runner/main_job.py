"""The main job of a search: controls, trials, confirmation, full trainings, and an honest table."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.objective import DistillationObjective
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.recipe import Recipe, StudentConfig
from optuna_kd.runner.confirmation import confirm
from optuna_kd.runner.controls import LABELS_ONLY, PLAIN_KD, best_of_grid, control_recipes, run_controls
from optuna_kd.runner.jobs import SESSION, Measured, WorkerSpec, measure_step, run_full, run_trial, run_trials
from optuna_kd.runner.ledger import SEED_SPACE, Ledger
from optuna_kd.runner.plan import METHODS, PRUNED_SHARE, Plan
from optuna_kd.runner.progress import Reporter, format_seconds
from optuna_kd.runner.result import LABELS, PLAIN, SEARCHED, TUNED, SearchResult, conclude
from optuna_kd.runner.run import Clock, Run
from optuna_kd.runner.storing import Storing
from optuna_kd.runner.workers import Job, Outcome, Workers
from optuna_kd.storages import quietly, retry_interrupted, show_storage
from optuna_kd.study import count_complete, count_finished, recipe_of, record_confirmed, top_recipes
from optuna_kd.training.task import ImageClassification

FAILURES = 3  # trials that fail one after another, after which a search gives up


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


class MainJob:
    """One run of the main job; its methods are its phases, in order."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.objective, self.study, self.plan = setup, setup.objective, setup.study, setup.plan
        self.say = setup.say
        self.began = datetime.now()  # as Optuna stamps its trials: local time
        self._to_measure: Recipe | None = None  # of the first trial that trained
        self._told = False
        self.session = f"{os.getpid()}-{time.time_ns():x}"
        self.controls, self.confirmation, self.full = (
            Ledger(setup.storage, f"{self.study.study_name}/{name}", metric=metric)
            for name, metric in (("controls", "reward"), ("confirmation", "reward"), ("full", "accuracy"))
        )

    def __call__(self) -> SearchResult:
        """Run all phases; what is finished already is kept."""
        clock = Clock()
        scratch = Path(tempfile.mkdtemp(prefix="optuna_kd-"))
        try:
            self.objective.bind(self.study)
            self.say.note(f"Study      {self.study.study_name}")
            self.say.note(f"Layers     {self.setup.task.layers()}")
            self.say.note(f"Teacher    {100 * self.setup.teacher:.2f} % validation accuracy")
            self.objective.use(self.setup.storing.prepare(self.setup.task, self.objective.proxy, self.say))
            with quietly():
                optuna.storages.fail_stale_trials(self.study)
            if self.plan.workers > 1:
                self.say.note(f"Starting   {self.plan.workers} worker processes")
            with Workers(self.plan.workers, self._spec(scratch), on_crash=self._retry_running) as workers:
                seed, together = self.setup.seed, self.plan.together
                self.run = Run(self.study, self.objective, workers, self.say, clock, seed, together)
                try:
                    methods = self._find_recipes()
                    records = self._train_in_full(methods)
                    self._compare_with_teacher(records[LABELS])
                except BaseException:
                    workers.stop()
                    self._retry_running()
                    raise
            result = self._conclude(methods, records)
            self.say.note(f"Done in {format_seconds(clock.elapsed())}.")
            return result
        finally:
            if self.objective.knowledge is not None:
                self.objective.knowledge.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _conclude(self, methods: Mapping[str, Recipe], records: Mapping[str, list[dict[str, Any]]]) -> SearchResult:
        return conclude(
            self.study,
            self.objective.task_of(methods[SEARCHED]),
            methods,
            records,
            self.setup.folder,
            student_file=lambda index: self._student_file(methods[SEARCHED], index),
            student_config=methods[SEARCHED].student or self.setup.student_config,
            storage=show_storage(self.setup.storage),
        )

    def _spec(self, scratch: Path) -> WorkerSpec:
        """Describe the context of the workers; the teacher is asked once, and they map its answers from a file."""
        stored = self.objective.knowledge
        file = stored.file if stored is not None else None
        if stored is not None and file is None:
            file = scratch / "knowledge.bin"
            try:
                stored.save(file)
            except OSError as error:
                self.say.note(f"Knowledge  {error}: the workers ask the teacher in every step, about the same views")
                stored.unstored().save(file)
        return WorkerSpec(
            task=self.setup.task,
            objective=type(self.objective),
            options=self.objective.options(),
            knowledge=str(file) if file else None,
            storage=self.setup.shared,
            study_name=self.study.study_name,
            sampler=self.setup.sampler,
            pruner=self.study.pruner,
            seed=self.setup.seed,
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
            if isinstance(outcome.result, Measured):
                self._tell_what_binds(outcome.result)
                continue
            if outcome.result["epochs"] and self._to_measure is None:
                self._to_measure = recipe_of(self.study, self.study.trials[outcome.result["number"]])
            self.run.advance(outcome.result["epochs"] * self.objective.proxy.subset, self._best_so_far())

    def _tell_what_binds(self, measured: Measured) -> None:
        """Say what takes the time of a step, and write the whole profile if it is asked for."""
        self.say.note(f"A step     {measured.summary}")
        if measured.details:
            self.setup.folder.mkdir(parents=True, exist_ok=True)
            file = self.setup.folder / "profile.txt"
            file.write_text(f"{self._to_measure}\n{measured.details}\n", encoding="utf-8")
            self.say.note(f"Profile    {file}")

    def _trial_outcomes(self, after: float) -> Iterator[Outcome]:
        while self._is_missing_trials(after):  # again if one of the last to end has failed
            for outcome in self.run.workers.run(self._trial_jobs(after)):
                if not isinstance(outcome.result, list):
                    yield outcome
                    continue
                for one in outcome.result:
                    is_error = isinstance(one, Exception)
                    yield Outcome(outcome.key, None if is_error else one, one if is_error else None)
        yield from self.run.workers.run(self._measuring())  # where it was the only trial

    def _trial_jobs(self, after: float) -> Iterator[Job]:
        """One job per missing trial, drawn one by one: a budget may end them, and a failed trial frees its place.

        Several at once are one job, of twice as many, so that the places of those that are pruned are taken.
        """
        together = self.plan.together
        while self._is_missing_trials(after):
            yield from self._measuring()
            if together == 1:
                yield Job(f"trial {self._next_order()}", run_trial, (self._order,))
                continue
            orders = [self._next_order()]
            while len(orders) < 2 * together and self._is_missing_trials(after):
                orders.append(self._next_order())
            yield Job(f"trials {orders[0]} to {orders[-1]}", run_trials, (orders, together))

    def _measuring(self) -> Iterator[Job]:
        if self._to_measure is not None and not self._told:
            self._told = True
            yield Job("a step", measure_step, (self._to_measure, self.setup.profile))

    def _next_order(self) -> int:
        self._given += 1
        self._order += 1  # never falls: two trials must not draw alike
        return self._order

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
        reasons = Counter(trial.user_attrs[REJECT_REASON] for trial in trials if REJECT_REASON in trial.user_attrs)
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
        missing = [job for job in jobs.values() if not self._is_trained(job)]
        self.run.clock.planned = self.run.clock.done + self.plan.epochs * len(missing)
        self.say.phase("Full training", len(jobs), len(jobs) - len(missing))
        self._run_full(missing)
        return {
            method: [self.full.get(self._full_key(recipe, index)) or {} for index in range(self.plan.seeds)]
            for method, recipe in methods.items()
        }

    def _run_full(self, jobs: list[Job]) -> None:
        """Run full trainings and keep what they scored."""
        for key, found in self.run.results(jobs):
            if self.full.get(key) is None:
                point = {"seed": found["seed"]}
                self.full.put(key, found["val_accuracy"], found, params=point, distributions=SEED_SPACE)
            self.run.advance(self.plan.epochs)

    def _is_trained(self, job: Job) -> bool:
        """Whether a full training is in the ledger, and its student, if it is to be kept, on disk."""
        record, file = self.full.get(job.key), job.arguments[3]
        return record is not None and (file is None or "reject_reason" in record or Path(file).exists())

    def _compare_with_teacher(self, labels: list[dict[str, Any]]) -> None:
        student = fmean(run["val_accuracy"] for run in labels)
        if student > self.setup.teacher:
            self.say.note(
                f"Warning: students that never saw the teacher score {100 * student:.2f} % on the validation data, "
                f"the teacher {100 * self.setup.teacher:.2f} %. A better teacher would have more to teach."
            )

    def _full_key(self, recipe: Recipe, index: int) -> str:
        return f"{recipe.digest}/{self.plan.epochs}/{index}"

    def _student_file(self, recipe: Recipe, index: int) -> Path:
        return self.setup.folder / "students" / f"{recipe.digest}-{self.plan.epochs}-{index}.pt"

    def _retry_running(self) -> None:
        """Queue the trials again that this run left open; others may belong to a run beside this one."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            session = trial.user_attrs.get(SESSION)
            # A worker that was killed between creating its trial and signing it leaves one without a session.
            unsigned = session is None and trial.datetime_start is not None and trial.datetime_start >= self.began
            if session == self.session or unsigned:
                with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # told by its worker just now
                    retry_interrupted(self.study, trial)
