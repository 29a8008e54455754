"""The main job of a joint search: trials, a front of students, and an honest table for its knee."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.analysis.verdict import LABELS, PLAIN, SEARCHED, TUNED
from optuna_kd.cards import save_card
from optuna_kd.files import write_whole
from optuna_kd.goals import GOALS
from optuna_kd.joint_objective import JointDistillationObjective, goals_of
from optuna_kd.recipe import Recipe
from optuna_kd.runner.confirmation import confirm
from optuna_kd.runner.controls import LABELS_ONLY, PLAIN_KD, best_of_grid, control_recipes, run_controls
from optuna_kd.runner.jobs import run_full
from optuna_kd.runner.main_job import MainJob
from optuna_kd.runner.plan import METHODS, PRUNED_SHARE
from optuna_kd.runner.result import FrontRow, OptionRow, SearchResult
from optuna_kd.runner.search_card import card_of_search
from optuna_kd.runner.workers import Job
from optuna_kd.samplers import UniADSSampler
from optuna_kd.study import count_complete, count_finished, front, recipe_of, record_confirmed
from optuna_kd.training.full import student_card

FRONT = 5  # students that a front is expected to have, for estimates of the time left


class JointJob(MainJob):
    """One run of a joint search; its methods are its phases, in order."""

    objective: JointDistillationObjective

    def _find_recipes(self) -> dict[str, Recipe]:
        """Run trials, take the knee of their front, and score controls for its student."""
        run, plan = self.run, self.plan
        recipes, seeds = plan.confirm
        controls = len(control_recipes(self.study))
        after = run.proxy_cost * (controls + recipes * seeds) + plan.epochs * (plan.seeds * METHODS + FRONT)
        trials = max(0, (plan.trials or 0) - count_finished(self.study))
        run.clock.planned = run.proxy_cost * PRUNED_SHARE * trials + after
        self._run_trials(after)
        self._require_complete()
        self._front = front(self.study)
        tried, complete = count_finished(self.study), count_complete(self.study)
        self.say.note(f"Tried      {tried} students and recipes, {complete} to the end, the others pruned")
        self._train_front()
        knee = recipe_of(self.study, self._front[0])
        run_controls(run, self.controls, knee.student)
        grid = best_of_grid(self.study, self.controls, max(1, recipes), knee.student)
        (tuned,) = confirm(run, self.confirmation, (grid,), seeds if recipes else 0)
        record_confirmed(self.study, knee)
        labels, plain = (dataclasses.replace(recipe, student=knee.student) for recipe in (LABELS_ONLY, PLAIN_KD))
        return {LABELS: labels, PLAIN: plain, TUNED: tuned, SEARCHED: knee}

    def _train_front(self) -> None:
        """Train the students of the front in full, with one seed each; a budget may only hold those near the knee."""
        jobs = {}
        for trial in self._front[: self._affordable()]:
            recipe = recipe_of(self.study, trial)
            key = self._full_key(recipe, 0)
            jobs[key] = Job(key, run_full, (recipe, self.plan.epochs, 0, str(self._student_file(recipe, 0).resolve())))
        missing = [job for key, job in jobs.items() if not self._is_trained(job)]
        self.say.phase("Front", len(jobs), len(jobs) - len(missing))
        self._run_full(missing)

    def _affordable(self) -> int:
        """Count the students of the front that the budget has time for; the knee is trained in any case."""
        budget, cost = self.plan.budget, self.run.clock.seconds_per_epoch
        if budget is None or cost is None:
            return len(self._front)
        left = budget - self.run.clock.elapsed() - cost * self.plan.epochs * self.plan.seeds * METHODS
        count = max(1, min(len(self._front), int(left / (cost * self.plan.epochs))))
        if count < len(self._front):
            self.say.note(
                f"The budget has time for {count} of the {len(self._front)} students of the front: those nearest to "
                "the knee. Run it again with a larger one to train the others."
            )
        return count

    def _conclude(self, methods: Mapping[str, Recipe], records: Mapping[str, list[dict[str, Any]]]) -> SearchResult:
        result = super()._conclude(methods, records)
        stale = {path.name for path in (self.setup.folder / "front").glob("trial-*")}
        for name in stale - {f"trial-{trial.number}" for trial in self._front}:
            shutil.rmtree(self.setup.folder / "front" / name)
        rows = sorted((self._front_row(trial) for trial in self._front), key=lambda row: row.costs["parameters"])
        sentence = knee_sentence(rows, methods[SEARCHED], goals_of(self.study))
        options = shrunken_options(self.study)
        result = dataclasses.replace(result, front=tuple(rows), knee=sentence, options=tuple(options))
        summary = self.setup.folder / "summary.json"
        content = json.loads(summary.read_text(encoding="utf-8"))
        content["front"] = [_as_json(row) for row in rows]
        content["knee"] = sentence
        content["options"] = [dataclasses.asdict(option) for option in options]
        write_whole(summary, json.dumps(content, indent=2) + "\n")
        return result

    def _students(self, result: SearchResult) -> dict[int, Path]:
        """Give the file of each student of the front by its trial."""
        return {row.trial: row.folder / "student.pt" for row in result.front if row.folder is not None}

    def _front_row(self, trial: FrozenTrial) -> FrontRow:
        recipe = recipe_of(self.study, trial)
        values = dict(zip(goals_of(self.study), trial.values, strict=True))
        costs = {name: float(trial.user_attrs[name]) for name in ("parameters", "flops", "latency_ms")}
        record, file = self.full.get(self._full_key(recipe, 0)), self._student_file(recipe, 0)
        if record is None or not file.exists():
            return FrontRow(trial.number, recipe, values, costs)
        folder = self.setup.folder / "front" / f"trial-{trial.number}"
        write_whole(folder / "student.pt", file.read_bytes())
        recipe.save(folder / "recipe.json")
        task = self.objective.task_of(recipe)
        summary = {**student_card(task), "recipe": str(recipe), "runs": [record]}
        write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        runs = {SEARCHED: (recipe, [record])}
        card = card_of_search(
            self.study, task, recipe, runs, SEARCHED, teacher=self.setup.teacher, epochs=self.plan.epochs
        )
        save_card(card, folder)
        return FrontRow(trial.number, recipe, values, costs, record["val_accuracy"], record["test_accuracy"], folder)

    def _best_so_far(self) -> str:
        try:
            trials = front(self.study)
        except ValueError:
            return "no complete, feasible trial yet"
        knee = trials[0]
        return f"front of {len(trials)}, knee {', '.join(f'{value:.4g}' for value in knee.values)}"

    def _require_complete(self) -> None:
        if not count_complete(self.study) and (infeasible := self.objective.infeasible(self.study)):
            raise ValueError(f"No student that was tried keeps the limits: {infeasible}. Relax them, or search others.")
        super()._require_complete()


def shrunken_options(study: Study) -> list[OptionRow]:
    """List what became of every option of a study's space, those that failed most often first.

    `UniADSSampler.shrinkage` counts them, whichever sampler made the trials.
    """
    counted = UniADSSampler.shrinkage(study)
    rows = [OptionRow(parameter=name, **option) for name, options in counted.items() for option in options]
    return sorted(rows, key=lambda row: (row.weight, -row.visits))


def knee_sentence(rows: Sequence[FrontRow], knee: Recipe, goals: Sequence[str]) -> str:
    """Say which row is recommended, and what its neighbours on the front would cost or gain.

    Args:
        rows: The front, the smallest student first.
        knee: The recommended recipe.
        goals: Names of the objectives.
    """
    place = next(index for index, row in enumerate(rows) if row.recipe == knee)
    goal, own = next(name for name in goals if GOALS[name].kind == "quality"), rows[place]
    parts = [
        f"The knee of the front is the student of {own.costs['parameters']:,.0f} parameters (trial {own.trial}), "
        f"nearest to the best of every objective"
    ]
    for step, word in ((-1, "smaller"), (1, "larger")):
        if 0 <= place + step < len(rows):
            other = rows[place + step]
            change = other.values[goal] - own.values[goal]
            parts.append(f"the next {word} one ({other.costs['parameters']:,.0f}) changes its {goal} by {change:+.3g}")
    return "; ".join(parts) + "."


def _as_json(row: FrontRow) -> dict[str, Any]:
    return {
        "trial": row.trial,
        "student": str(row.recipe.student),
        "recipe": row.recipe.to_dict(),
        "values": dict(row.values),
        "costs": dict(row.costs),
        "val_accuracy": row.val_accuracy,
        "test_accuracy": row.test_accuracy,
        "folder": str(Path("front") / row.folder.name) if row.folder else None,
    }
