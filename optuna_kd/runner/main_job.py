"""The main job of a search: controls, trials, confirmation, full trainings, and an honest table."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import TrialState

from optuna_kd.analysis.dashboard import ARTIFACTS, Publisher, upload_results
from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.recipe import Recipe, canonical
from optuna_kd.runner.confirmation import confirm
from optuna_kd.runner.controls import LABELS_ONLY, PLAIN_KD, best_of_grid, control_recipes, run_controls
from optuna_kd.runner.crew import Setup, crew
from optuna_kd.runner.jobs import run_full
from optuna_kd.runner.ledger import SEED_SPACE, Ledger
from optuna_kd.runner.plan import METHODS, PRUNED_SHARE
from optuna_kd.runner.progress import format_seconds
from optuna_kd.runner.result import SearchResult, conclude
from optuna_kd.runner.trials import TrialPhase
from optuna_kd.runner.workers import Job
from optuna_kd.storages import show_storage
from optuna_kd.study import count_complete, count_finished, recipe_of, record_confirmed, top_recipes


class MainJob:
    """One run of the main job; its methods are its phases, in order."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.objective, self.study, self.plan = setup, setup.objective, setup.study, setup.plan
        self.say = setup.say
        self.publisher = Publisher(setup.say.note)
        self.controls, self.confirmation, self.full = (
            Ledger(setup.storage, f"{self.study.study_name}/{name}", metric=metric)
            for name, metric in (("controls", "reward"), ("confirmation", "reward"), ("full", "accuracy"))
        )

    def __call__(self) -> SearchResult:
        """Run all phases; what is finished already is kept."""
        with crew(self.setup) as self.run:
            methods = self._find_recipes()
            records = self._train_in_full(methods)
            self._compare_with_teacher(records[LABELS])
        result = self._conclude(methods, records)
        shutil.rmtree(self.setup.checkpoints, ignore_errors=True)
        self._report()
        self.publisher.finish(self.study, before=lambda: self._upload(result))
        self.say.note(f"Done in {format_seconds(self.run.clock.elapsed())}.")
        return result

    def _report(self) -> None:
        from optuna_kd.reporting import report_of_search  # plotly and all, which a search needs at its end only

        self.say.note(report_of_search(self.study, self.setup.folder))

    def _conclude(self, methods: Mapping[str, Recipe], records: Mapping[str, list[dict[str, Any]]]) -> SearchResult:
        return conclude(
            self.study,
            self.objective.task_of(methods[SEARCHED]),
            methods,
            records,
            self.setup.folder,
            student_file=lambda index: self._student_file(methods[SEARCHED], index),
            teacher=self.setup.teacher,
            epochs=self.plan.epochs,
            student_config=methods[SEARCHED].student or self.setup.student_config,
            storage=show_storage(self.setup.storage),
        )

    def _upload(self, result: SearchResult) -> None:
        """Hang the results on the study, and each student that was trained in full on the trial of its recipe."""
        students = self._students(result)
        upload_results(self.study, result.directory, self.setup.folder.parent / ARTIFACTS, students)

    def _students(self, result: SearchResult) -> dict[int, Path]:
        """Give the files of students by the trials of their recipes: here, the best trial of the recipe."""
        wanted = canonical(replace(result.recipe, student=None))
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        own = [trial for trial in trials if canonical(recipe_of(self.study, trial)) == wanted]
        best = max(own, key=lambda trial: trial.values[0], default=None)
        return {} if best is None else {best.number: result.directory / "student.pt"}

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
        profile = self.setup.folder / "profile.txt" if self.setup.profile else None
        TrialPhase(
            self.run,
            self.plan,
            best_so_far=self._best_so_far,
            after_trial=lambda: self.publisher(self.study),
            profile=profile,
        )(after)

    def _require_complete(self) -> None:
        if count_complete(self.study):
            return
        trials = self.study.get_trials(deepcopy=False)
        reasons = Counter(trial.user_attrs[REJECT_REASON] for trial in trials if REJECT_REASON in trial.user_attrs)
        common = reasons.most_common(1)[0][0] if reasons else ""
        advice = "fewer workers, or a smaller student" if "out of memory" in common else "a lower learning rate"
        raise ValueError(
            f"None of the {len(trials)} trials ran to its end; {reasons.total()} were rejected."
            f"{f' The commonest reason: {common}.' if common else ''} Try {advice}, or more trials."
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
