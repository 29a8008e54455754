"""The trials of a search: given to workers until there are enough, by whomever, or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optuna_kd import stopping
from optuna_kd.recipe import Recipe
from optuna_kd.runner.jobs import Measured, measure_step, run_trials
from optuna_kd.runner.plan import Plan
from optuna_kd.runner.run import Run
from optuna_kd.runner.workers import Job, Outcome
from optuna_kd.study import count_finished, recipe_of

STEP = "a step"  # the job that measures one
POLL = 1.0  # seconds between two looks at trials that other processes are running
FAILURES = 3  # trials that fail one after another, after which a search gives up
ENDED = ("COMPLETE", "PRUNED")


class TrialPhase:
    """One phase of a run: trials, until the study has as many as are planned.

    Other processes may run trials of the same study, from this machine or another: all together run no more.

    Args:
        run: The study, its workers, and who is told.
        plan: How many trials, or for how long.
        best_so_far: Says what is best by now.
        after_trial: Called after every trial that is told about.
        profile: File for a profile of a training step; None for one line about it.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        *,
        best_so_far: Callable[[], str],
        after_trial: Callable[[], None] = lambda: None,
        profile: Path | None = None,
    ) -> None:
        self.run, self.plan, self.profile = run, plan, profile
        self._best_so_far, self._after_trial = best_so_far, after_trial
        self._jobs = 0  # given to workers so far
        self._flying: dict[str, int] = {}  # trials that they are running, by job
        self._seen = 0  # finished trials that were told about
        self._is_full = False  # whether other processes run all that is missing
        self._to_measure: Recipe | None = None  # of the first trial that trained
        self._is_measured = False

    def __call__(self, after: float) -> None:
        """Run the missing trials.

        Args:
            after: Epochs still to come afterwards, which a budget has to hold.
        """
        finished = self._seen = count_finished(self.run.study)
        total = 0 if self.plan.trials is None else max(self.plan.trials, finished)
        self.run.say.phase("Search", total, finished)
        failed_in_a_row = 0
        for outcome in self._outcomes(after):
            if outcome.error is not None:
                failed_in_a_row += 1
                self.run.say.note(f"A trial failed: {type(outcome.error).__name__}: {outcome.error}")
                if failed_in_a_row >= FAILURES:
                    raise outcome.error
                continue
            failed_in_a_row = 0
            if isinstance(outcome.result, Measured):
                self._tell_what_binds(outcome.result)
            elif outcome.result["state"] in ENDED:  # else it was interrupted, and runs again
                self._count(outcome.result)

    def _count(self, result: dict[str, Any]) -> None:
        study = self.run.study
        if result["epochs"] and self._to_measure is None:
            self._to_measure = recipe_of(study, study.trials[result["number"]])
        self._seen += 1
        self.run.advance(result["epochs"] * self.run.objective.proxy.subset, self._best_so_far())
        self._count_others()
        self._after_trial()

    def _count_others(self) -> None:
        """Show the trials that other processes have finished meanwhile."""
        for _ in range(count_finished(self.run.study) - self._seen - sum(self._flying.values())):
            self._seen += 1
            self.run.say.advance(self._best_so_far(), left=self.run.clock.left())

    def _tell_what_binds(self, measured: Measured) -> None:
        """Say what takes the time of a step, and write the whole profile if it is asked for."""
        self.run.say.note(f"A step     {measured.summary}")
        if self.profile is not None:
            self.profile.parent.mkdir(parents=True, exist_ok=True)
            self.profile.write_text(f"{self._to_measure}\n{measured.details}\n", encoding="utf-8")
            self.run.say.note(f"Profile    {self.profile}")

    def _outcomes(self, after: float) -> Iterator[Outcome]:
        while self._is_missing(after):  # again if one of the last to end has failed
            self._flying, self._is_full = {}, False
            for outcome in self.run.workers.run(self._jobs_of(after)):
                if isinstance(outcome.result, Measured):
                    yield outcome
                    continue
                self._flying.pop(outcome.key, None)
                if outcome.error is not None:
                    yield outcome
                    continue
                self._is_full = not outcome.result
                for one in outcome.result:
                    is_error = isinstance(one, Exception)
                    yield Outcome(outcome.key, None if is_error else one, one if is_error else None)
            stopping.check()
            if self._is_full:  # other processes run the last ones, and one of them may fail
                time.sleep(POLL)
                self._count_others()
        yield from self.run.workers.run(self._measuring())  # where it was the only trial

    def _jobs_of(self, after: float) -> Iterator[Job]:
        """Give jobs while trials are missing: a budget may end them, and a failed trial frees its place."""
        while self._is_missing(after) and not self._is_full and not stopping.is_asked():
            yield from self._measuring()
            self._jobs += 1
            key, count = f"trials {self._jobs}", self._count_of_job()
            self._flying[key] = count
            yield Job(key, run_trials, (self.plan.trials, count, self.plan.together))

    def _count_of_job(self) -> int:
        """Say how many trials the next job runs: more than side by side, so that places of pruned ones are taken."""
        together, trials = self.plan.together, self.plan.trials
        # The first job shows soon what binds, and a budget is looked at between two jobs.
        if together == 1 or self._jobs == 1 or trials is None or self.plan.budget is not None:
            return together
        missing = trials - count_finished(self.run.study) - sum(self._flying.values())
        # Every worker is to have some of the last ones.
        return max(together, min(2 * together, -(-missing // self.plan.workers)))

    def _measuring(self) -> Iterator[Job]:
        if self._to_measure is not None and not self._is_measured:
            self._is_measured = True
            yield Job(STEP, measure_step, (self._to_measure, self.plan.together, self.profile is not None))

    def _is_missing(self, after: float) -> bool:
        given = count_finished(self.run.study) + sum(self._flying.values())
        if self.plan.budget is not None and given and self._is_out_of_time(after):
            return False
        return self.plan.trials is None or given < self.plan.trials

    def _is_out_of_time(self, after: float) -> bool:
        assert self.plan.budget is not None
        clock = self.run.clock
        return clock.elapsed() + after * (clock.seconds_per_epoch or 0.0) > self.plan.budget
