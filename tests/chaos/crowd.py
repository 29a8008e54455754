"""Workers that are killed all the time, and how long it takes until nothing of it is to be seen any more."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from statistics import median
from typing import Any

import digits_worker
import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.storages import OWNER, create_storage, original_number

WORKERS, TOTAL, KILLS = 4, 60, 20
SPARED = 10  # trials at the end during which nobody is killed any more
LIMIT = 900.0  # seconds in which all is over
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Kill:
    """A process that was killed, and what became of its trial.

    Args:
        process: Its number.
        at: When, in seconds of `time.monotonic`, as all times here.
        attempt: The trial that it was running; None as long as that is not known.
        noticed: When the trial was seen to be closed.
        recovered: When one that runs it again was seen beyond the last rung that the killed one had reported.
    """

    process: int
    at: float
    attempt: FrozenTrial | None = None
    noticed: float | None = None
    recovered: float | None = None

    def look(self, trials: Sequence[FrozenTrial], now: float) -> None:
        """See how far it has come."""
        if self.noticed is None:
            lost = [trial for trial in trials if owner_of(trial) == self.process]
            lost = [trial for trial in lost if trial.state in (TrialState.RUNNING, TrialState.FAIL)]
            if lost:
                (self.attempt,) = lost
                self.noticed = now if self.attempt.state == TrialState.FAIL else None
        elif self.recovered is None:
            assert self.attempt is not None
            number, rung = original_number(self.attempt), _last_rung(self.attempt)
            if any(
                original_number(trial) == number and (trial.state in FINISHED or _last_rung(trial) > rung)
                for trial in trials[self.attempt.number + 1 :]
            ):
                self.recovered = now


def owner_of(trial: FrozenTrial) -> int:
    """Give the number of the process that runs a trial, or ran it last; 0 for none."""
    return int(str(trial.system_attrs.get(OWNER, "//")).split("/")[1] or 0)


def _last_rung(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


@cache
def forking() -> ForkServerContext:
    """Give what forks processes from one that has imported everything; importing torch takes longer than a trial."""
    # For that process: no threads before a fork, and where it finds the module.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digits_worker", "torch._dynamo", "pytest"])  # optimizers and children import them
    return context


@dataclass
class Crowd:
    """Worker processes that are started again whenever one was killed.

    Args:
        url: Of the database.
        folder: For checkpoints and logs.
    """

    url: str
    folder: Path
    processes: list[Any] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def start(self) -> None:
        """Start one more."""
        log = self.folder / f"worker-{len(self.processes)}.log"
        arguments = (self.url, self.folder / "checkpoints", TOTAL, log)
        self.processes.append(forking().Process(target=digits_worker.work, args=arguments))
        self.processes[-1].start()

    def kill_one(self, trials: Sequence[FrozenTrial], chance: random.Random) -> bool:
        """Kill one that runs a trial, and start another in its place; give whether there was one."""
        owners = {owner_of(trial) for trial in trials if trial.state == TrialState.RUNNING}
        busy = [process for process in self.processes if process.exitcode is None and process.pid in owners]
        if busy:
            victim = chance.choice(busy)
            victim.kill()
            self.kills.append(Kill(victim.pid, time.monotonic()))
            victim.join()
            self.start()
        return bool(busy)

    def stop(self) -> None:
        """End all."""
        for process in self.processes:
            process.kill()
            process.join()

    def logs(self) -> str:
        """Give what they wrote."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("worker-*.log")))


def disturb(
    crowd: Crowd, study: optuna.Study, beside: Callable[[int], None] = lambda kill: None
) -> dict[int, FrozenTrial]:
    """Kill workers while they run, and wait until the study is complete; give the finished trials as first seen.

    Kills keep step with the trials that are finished, so that a fast machine is disturbed as often as a slow one.

    Args:
        crowd: The workers.
        study: What they work at.
        beside: Called after each kill, with its number.
    """
    chance = random.Random(0)
    first_seen: dict[int, FrozenTrial] = {}
    started = time.monotonic()
    while True:
        assert time.monotonic() - started < LIMIT, crowd.logs()
        is_over = all(process.exitcode is not None for process in crowd.processes)  # asked first: then nothing changes
        trials: Sequence[FrozenTrial] = ()
        with contextlib.suppress(Exception):  # the database may be away
            trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state in FINISHED:
                first_seen.setdefault(trial.number, trial)
        for kill in crowd.kills:
            kill.look(trials, time.monotonic())
        if is_over and trials:
            break
        is_due = len(first_seen) > (TOTAL - SPARED) / KILLS * len(crowd.kills)
        if len(crowd.kills) < KILLS and is_due and crowd.kill_one(trials, chance):
            beside(len(crowd.kills))
        time.sleep(0.1)
    assert len(crowd.kills) == KILLS, f"all was over after {len(crowd.kills)} kills"
    assert {process.exitcode for process in crowd.processes} == {0, -signal.SIGKILL}, crowd.logs()
    return first_seen


def begin(crowd: Crowd) -> optuna.Study:
    """Start all workers at once in an empty database, and wait until one of them has created the study."""
    for _ in range(WORKERS):
        crowd.start()
    end = time.monotonic() + 120
    while True:
        assert time.monotonic() < end, crowd.logs()
        with contextlib.suppress(Exception):
            return optuna.load_study(study_name=digits_worker.NAME, storage=create_storage(crowd.url))
        time.sleep(0.2)


def recovery_of(kills: Sequence[Kill]) -> dict[str, Any]:
    """Summarise how long it took: median and longest, in seconds."""
    hit = [kill for kill in kills if kill.attempt is not None]
    noticed = [kill.noticed - kill.at for kill in hit if kill.noticed is not None]
    recovered = [kill.recovered - kill.at for kill in hit if kill.recovered is not None]
    return {
        "kills": len(kills),
        "of_a_running_trial": len(hit),
        "noticed_s": {"n": len(noticed), "median": round(median(noticed), 2), "worst": round(max(noticed), 2)},
        "recovered_s": {"n": len(recovered), "median": round(median(recovered), 2), "worst": round(max(recovered), 2)},
    }
