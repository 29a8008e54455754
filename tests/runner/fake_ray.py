"""A Ray without processes: actors that answer at once, never, or die, as a job says."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from optuna_kd.runner.ray_actor import Answer, Sight


class RayActorError(Exception):
    pass


class OtherDeath(Exception):
    pass


class ObjectStoreFullError(Exception):
    pass


@dataclasses.dataclass(eq=False)
class Reference:
    """The answer of an actor: there, not there yet, or an error."""

    answer: Any = None
    error: Exception | None = None
    is_there: bool = True


class Actor:
    """What stands for a worker: it has a process, sees what the test says, and runs jobs in place."""

    def __init__(self, ray: FakeRay, number: int) -> None:
        self.ray, self.number = ray, number
        self.is_killed = False
        self.begun: tuple[Any, ...] | None = None
        self.stops = 0
        self.unfinished: list[Reference] = []

    def call(self, name: str, *arguments: Any) -> Reference:
        reference = Reference()
        try:
            reference.answer = getattr(self, f"do_{name}")(*arguments)
        except Unfinished:
            reference.is_there = False
            self.unfinished.append(reference)
        except Exception as error:
            reference.error = error
        return reference

    def do_look(self, mark: Any, session: str, knowledge: Any, content: str) -> Sight:
        if self.number in self.ray.without_room:
            raise Unfinished
        if self.number in self.ray.dead_at_start:
            raise RayActorError("it never began")
        return Sight(f"machine/{self.number}", self.ray.sees, self.ray.sees or knowledge is None)

    def do_begin(self, *arguments: Any) -> None:
        if self.ray.cannot_begin is not None:
            raise self.ray.cannot_begin
        self.begun = arguments

    def do_run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
        self.ray.ran.append(self.number)
        try:
            result = function(self, *arguments)
        except (RayActorError, OtherDeath, Unfinished):
            raise
        except Exception as error:
            return Answer(error=error)
        if result is self.ray.cannot_travel:
            raise TypeError("cannot pickle it")
        return result if isinstance(result, Answer) else Answer(result)

    def do_stop(self) -> None:
        self.stops += 1
        for reference in self.unfinished:
            reference.answer, reference.is_there = Answer("stopped"), True

    def __getattr__(self, name: str) -> Any:
        if name not in ("look", "begin", "run", "stop"):
            raise AttributeError(name)
        method = SimpleNamespace(remote=lambda *arguments: self.call(name, *arguments))
        method.options = lambda **_: method
        return method


class Unfinished(Exception):
    """Raised by a job that goes on until its worker is told to stop."""


class FakeRay:
    """What `ray_workers` uses of the module `ray`."""

    exceptions = SimpleNamespace(
        RayActorError=RayActorError, OutOfMemoryError=OtherDeath, NodeDiedError=OtherDeath,
        WorkerCrashedError=OtherDeath, ObjectStoreFullError=ObjectStoreFullError,
    )  # fmt: skip

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.options: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.ran: list[int] = []  # numbers of actors
        self.waits = 0
        self.sees = True  # whether workers see the files of this machine
        self.dead_at_start: Any = ()
        self.without_room: Any = ()
        self.cannot_begin: Exception | None = None
        self.cannot_travel: Any = object()  # a result
        self.is_full = False
        self.resources = {"CPU": 8.0}
        self.connections: list[tuple[Any, float]] = []

    @contextlib.contextmanager
    def connected(self, address: str | None, cpus: float) -> Iterator[FakeRay]:
        self.connections.append((address, cpus))
        yield self
        self.connections.pop()

    def remote(self, **_: Any) -> Any:
        def options(**given: Any) -> Any:
            self.options = given
            return SimpleNamespace(remote=self._start)

        return lambda kind: SimpleNamespace(options=options)

    def _start(self) -> Actor:
        self.actors.append(Actor(self, len(self.actors)))
        return self.actors[-1]

    def put(self, thing: Any) -> Any:
        if self.is_full and not dataclasses.is_dataclass(thing):
            raise ObjectStoreFullError
        self.sent.append(thing)
        return thing

    def wait(self, references: list[Reference], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.waits += 1
        assert references, "nothing was asked"
        assert self.waits < 10_000
        there = [reference for reference in references if reference.is_there][:num_returns]
        return there, [reference for reference in references if reference not in there]

    def get(self, reference: Reference) -> Any:
        if reference.error is not None:
            raise reference.error
        return reference.answer

    def kill(self, actor: Actor) -> None:
        actor.is_killed = True

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.5}
