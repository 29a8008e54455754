"""Workers on a Ray cluster: actors, anywhere in it, each with its share of the processors and GPUs of a machine.

Of a local worker they differ in three things. One that is killed, or whose machine is gone, takes no other along: its
trials are queued again, and another is started in its place. They hear of a wish to stop by a call, because they do not
see the files of this machine. And what they need is sent to them, once for each machine: the task with its pixels, and
the teacher's knowledge, as it is in the file here, so that all learn from the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from optuna_kd import stopping
from optuna_kd.files import write_whole
from optuna_kd.runner.jobs import WorkerSpec
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.ray_actor import Answer, RayWorker, Sight
from optuna_kd.runner.ray_cluster import connected
from optuna_kd.runner.workers import RESTARTS, Job, Outcome, WorkersDiedError, environment
from optuna_kd.storages import is_gone, this_process
from optuna_kd.training.knowledge_file import fingerprint

POLL = 0.5  # seconds between two looks at whether to stop
PATIENCE = 60.0  # seconds after which workers that may have no room are told about
ENDING = 5.0  # seconds in which a killed worker has ended
MARK = ".run"  # in the folder of the results: who reads it and finds this run sees that folder
BESIDE = "beside"  # the thread of an actor that hears while the other one trains
START = ""  # stands for a job in the count of crashes while workers start


class RayWorkerError(RuntimeError):
    """What a worker needs cannot be had where it runs."""


@dataclass(frozen=True)
class Share:
    """What each worker is given.

    Args:
        address: Of the cluster; None for a Ray of this machine alone.
        cpus: Processors.
        gpus: GPUs, or a fraction of one.
        threads: Of torch.
        device: Where trainings run; None leaves that to the task.
    """

    address: str | None
    cpus: float
    gpus: float
    threads: int
    device: str | None


@dataclass(eq=False)
class _Hand:
    """One worker, and what it was asked last."""

    actor: Any
    asked: Any  # a reference to the answer; None once it was taken
    started: float
    process: str = ""
    is_ready: bool = False
    job: Job | None = None


class RayWorkers:
    """Runs jobs in actors.

    Args:
        spec: How each creates what its jobs work with.
        count: Actors.
        share: What each is given.
        folder: Of the results.
        requeue: Queues the trials of a worker that is gone again; it is named as `this_process` does.
        say: Told what happens.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        count: int,
        share: Share,
        *,
        folder: Path,
        requeue: Callable[[str], None],
        say: Reporter,
    ) -> None:
        self.count, self.share = count, share
        self._spec, self._requeue, self._say = spec, requeue, say
        self._mark = folder.absolute() / MARK
        self._open = contextlib.ExitStack()
        self._hands: list[_Hand] = []
        self._crashes: Counter[str] = Counter()  # by job: one that kills its worker each time must not go on for ever
        self._is_told = False  # the actors, to stop
        self._is_waiting = False  # and that was said
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._open.close()

    def stop(self) -> None:
        """End the actors at once."""
        hands, self._hands = self._hands, []
        for hand in hands:
            self._ray.kill(hand.actor)
        # Waited for where that can be seen, so that no worker still writes to the storage when this returns.
        machine, end = _machine(this_process()), time.monotonic() + ENDING
        here = [hand.process for hand in hands if hand.process and _machine(hand.process) == machine]
        while not all(map(is_gone, here)) and time.monotonic() < end:
            time.sleep(0.02)

    def run(self, jobs: Sequence[Job] | Iterator[Job]) -> Iterator[Outcome]:
        """Run jobs, never more in flight than there are workers; yield each outcome as it comes.

        `jobs` is read lazily, so that a caller can stop a stream of jobs by ending it.

        Raises:
            WorkersDiedError: If workers die again and again.
        """
        coming, waiting = iter(jobs), list[Job]()
        self._crashes.clear()
        while True:
            if stopping.is_asked():
                self._tell_to_stop()
                waiting.clear()  # whoever goes on with the study does them
            for hand in self._idle():
                job = waiting.pop() if waiting else next(coming, None)
                if job is None:
                    break
                hand.asked, hand.job = hand.actor.run.remote(job.function, job.arguments), job
            if not waiting and not any(hand.job for hand in self._hands):
                waiting.extend(job for job in (next(coming, None),) if job is not None)
                if not waiting:
                    return
            self._hire()
            yield from self._look(waiting)

    def _idle(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.is_ready and hand.job is None]

    def _look(self, waiting: list[Job]) -> Iterator[Outcome]:
        """Wait for an answer, for a moment, and go on from it."""
        asked = {hand.asked: hand for hand in self._hands if hand.asked is not None}
        answered, _ = self._ray.wait(list(asked), num_returns=1, timeout=POLL)
        if answered:  # all of them, so that a busy worker does not keep others from being heard
            answered, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        self._tell_who_waits()
        for reference in answered:
            hand = asked[reference]
            hand.asked = None
            try:
                answer = self._ray.get(reference)
            except self._deaths as error:
                self._replace(hand, waiting, error)
            except Exception as error:  # what was to be sent, or what was to come back, could not be read there
                if hand.job is None:
                    reason = _last_line(getattr(error, "cause", None) or error)
                    raise RayWorkerError(f"A worker cannot begin on its machine: {reason}") from error
                yield self._outcome(hand, Answer(error=error))
            else:
                if hand.job is not None:
                    yield self._outcome(hand, answer)
                elif hand.process:
                    hand.is_ready = True
                    self._crashes[START] = 0
                else:
                    self._begin(hand, answer)

    def _outcome(self, hand: _Hand, answer: Answer) -> Outcome:
        job, hand.job = hand.job, None
        assert job is not None
        for line in answer.said:
            self._say_once(line)
        for file, content in answer.files.items():
            write_whole(Path(file), content)
        return Outcome(job.key, answer.result, answer.error)

    def _replace(self, hand: _Hand, waiting: list[Job], error: Exception) -> None:
        """Queue what a worker that is gone was doing; another is started when there is something to do."""
        self._hands.remove(hand)
        with contextlib.suppress(Exception):
            self._ray.kill(hand.actor)  # it may only be out of reach
        if hand.process:
            self._requeue(hand.process)
        if hand.job is not None:
            waiting.append(hand.job)
        key = hand.job.key if hand.job is not None else START
        self._crashes[key] += 1
        if self._crashes[key] > RESTARTS * (self.count if key == START else 1):
            what = "as they started" if key == START else "during the same piece of work"
            raise WorkersDiedError(
                f"Ray workers were killed {self._crashes[key]} times {what}, usually for lack of memory. Use fewer "
                "workers or smaller batches, or give each more of a machine (--cpus-per-worker, --gpus-per-worker). "
                f"Ray says: {_last_line(error)}"
            )

    # Starting

    @functools.cached_property
    def _ray(self) -> Any:
        share = self.share
        ray = self._open.enter_context(connected(share.address, share.cpus * self.count))
        has = ray.cluster_resources()
        if share.address is None and has.get("GPU", 0) < share.gpus:
            raise ValueError(f"A worker needs {share.gpus:g} GPUs; Ray finds {has.get('GPU', 0):g} on this machine.")
        self._mark.parent.mkdir(parents=True, exist_ok=True)
        self._mark.write_text(self._spec.session, encoding="utf-8")
        self._open.callback(self._mark.unlink, missing_ok=True)
        return ray

    @functools.cached_property
    def _deaths(self) -> tuple[type[Exception], ...]:
        known = self._ray.exceptions
        return (known.RayActorError, known.OutOfMemoryError, known.NodeDiedError, known.WorkerCrashedError)

    @functools.cached_property
    def _actor(self) -> Any:
        kind = self._ray.remote(concurrency_groups={BESIDE: 1})(RayWorker)
        return kind.options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,  # a worker that is gone has to be seen, for its trials
            runtime_env={"env_vars": environment(self.share.threads)},
        )

    def _hire(self) -> None:
        """Start actors until there are enough; each is first asked what it sees."""
        while len(self._hands) < self.count and not stopping.is_asked():
            actor = self._actor.remote()
            file, content = self._knowledge
            self._hands.append(
                _Hand(actor, actor.look.remote(self._mark, self._spec.session, file, content), time.monotonic())
            )

    def _begin(self, hand: _Hand, sight: Sight) -> None:
        """Send a worker what it does not see."""
        hand.process = sight.process
        if not sight.results:
            self._say_once(
                f"Folder     {self._mark.parent} is not seen by workers on other machines: their students are sent "
                "here, and trainings that are interrupted there start over"
            )
        knowledge = self._spec.knowledge if sight.knowledge else self._sent_knowledge
        share = self.share
        hand.asked = hand.actor.begin.remote(self._sent, share.threads, share.device, sight.results, knowledge)

    @functools.cached_property
    def _knowledge(self) -> tuple[Path | None, str]:
        """The file with the teacher's knowledge, and its fingerprint."""
        file = self._spec.knowledge
        assert not isinstance(file, np.ndarray)
        return (None, "") if file is None else (Path(file), fingerprint(Path(file)))

    @functools.cached_property
    def _sent(self) -> Any:
        """What all workers need, which travels once to each machine."""
        return self._ray.put(dataclasses.replace(self._spec, knowledge=None))

    @functools.cached_property
    def _sent_knowledge(self) -> Any:
        file, _ = self._knowledge
        assert file is not None
        try:
            return self._ray.put(np.fromfile(file, np.uint8))
        except self._ray.exceptions.ObjectStoreFullError:
            raise ValueError(
                "The teacher's knowledge does not fit into the memory that Ray's machines share. Keep it in a folder "
                "that all of them see (--knowledge-dir), or store less of it (--knowledge-limit)."
            ) from None

    # Telling

    def _tell_to_stop(self) -> None:
        if not self._is_told:
            self._is_told = True
            for hand in self._hands:
                hand.actor.stop.options(concurrency_group=BESIDE).remote()

    def _tell_who_waits(self) -> None:
        """Say so where workers do not begin, and the cluster may have no room for them."""
        now = time.monotonic()
        late = sum(not hand.process and now - hand.started > PATIENCE for hand in self._hands)
        if not late or self._is_waiting:
            return
        share, free = self.share, self._ray.available_resources()
        cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
        if cpus < share.cpus or gpus < share.gpus:
            self._is_waiting = True
            self._say.note(
                f"Waiting    {late} of {self.count} workers have not begun after {PATIENCE:.0f} s. Each takes "
                f"{share.cpus:g} CPU and {share.gpus:g} GPU; {cpus:g} and {gpus:g} are free in the Ray cluster"
            )

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say.note(line)


def _last_line(error: BaseException) -> str:
    """Give the end of a traceback, which is what Ray's errors hold."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()


def _machine(process: str) -> str:
    return process.partition("/")[0]
