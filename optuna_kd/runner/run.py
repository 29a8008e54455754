"""One run of the main job: what its phases share."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from optuna.study import Study

from optuna_kd import stopping
from optuna_kd.objective import DistillationObjective
from optuna_kd.runner.engines import Team
from optuna_kd.runner.jobs import train_all
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.workers import Job
from optuna_kd.stopping import TrainingInterrupted


@dataclass
class Clock:
    """Time left, from the cost of the epochs trained so far; epochs are of the whole training data.

    Args:
        planned: Epochs that the run will train.
    """

    planned: float = 0.0
    done: float = 0.0
    started: float = field(default_factory=time.monotonic)
    _since: float | None = None
    _done_before: float = 0.0

    def advance(self, epochs: float) -> None:
        """Count epochs as done. The first call only starts the measurement: workers were starting until then."""
        self.done += epochs
        if self._since is None:
            self._since, self._done_before = time.monotonic(), self.done

    @property
    def seconds_per_epoch(self) -> float | None:
        """Wall-clock seconds per epoch, all workers together; None before there are two measurements."""
        measured = self.done - self._done_before
        return (time.monotonic() - self._since) / measured if self._since is not None and measured > 0 else None

    def left(self) -> float | None:
        """Seconds left of everything planned; None before anything was measured."""
        cost = self.seconds_per_epoch
        return None if cost is None else max(0.0, self.planned - self.done) * cost

    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.started


@dataclass
class Run:
    """The study, the workers and the clock of one run, and how its jobs are followed."""

    study: Study
    objective: DistillationObjective
    workers: Team
    say: Reporter
    clock: Clock
    seed: int
    together: int = 1

    def results(self, trainings: Iterable[Job]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run trainings outside the study; yield key and result of each as it comes, and raise what one raised.

        Args:
            trainings: Jobs of `run_proxy` or `run_full`; a worker gets as many of them as it trains at a time.
        """
        keys: dict[str, list[str]] = {}

        def bundles() -> Iterator[Job]:
            coming = iter(trainings)
            while not stopping.is_asked() and (bundle := list(itertools.islice(coming, self.together))):
                keys[bundle[0].key] = [job.key for job in bundle]
                yield Job(bundle[0].key, train_all, ([(job.function, job.arguments) for job in bundle],))

        for outcome in self.workers.run(bundles()):
            if isinstance(outcome.error, TrainingInterrupted):
                continue  # those of other workers may have ended
            if outcome.error is not None:
                raise outcome.error
            yield from zip(keys[outcome.key], outcome.result, strict=True)
        stopping.check()

    def advance(self, epochs: float, text: str = "") -> None:
        """Count one finished piece of work and its epochs."""
        self.clock.advance(epochs)
        self.say.advance(text, left=self.clock.left())

    @property
    def proxy_cost(self) -> float:
        """Epochs of the whole training data that an unpruned proxy costs."""
        return self.objective.proxy.epochs * self.objective.proxy.subset
