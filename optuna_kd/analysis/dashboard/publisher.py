"""Publishing now and then while a study grows: hardly any time, never a failure that ends a search."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from optuna.storages import InMemoryStorage, JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_kd.storages.transient import reason_of
from optuna_kd.storages.urls import backend_of
from optuna_kd.study.findings import count_finished

logger = logging.getLogger(__name__)

SHARE = 0.02  # of the time since a publisher began, at most
LAST = 0.05  # of it, for the last time alone
GROWTH = 1.05  # of the number of finished trials, between two times: 5,000 trials are published 150 times
FIRST = {False: 0.5, True: 5.0}  # seconds that it may take the first time, without and with what needs a fit


@dataclass
class _Account:
    """What one kind of publishing has taken, and is going to take the next time; seconds."""

    coming: float
    spent: float = 0.0

    def affords(self, elapsed: float) -> bool:
        return self.spent + self.coming <= SHARE / len(FIRST) * elapsed

    def affords_last(self, elapsed: float) -> bool:
        return self.coming <= LAST * elapsed

    def pay(self, seconds: float) -> None:
        self.spent, self.coming = self.spent + seconds, seconds


class Publisher:
    """Publishes a study (see `publish`) now and then, as a callback of Optuna or by hand.

    It takes at most 2 % of the time: after each time it waits a hundred times as long as that took, and until there are
    5 % more finished trials; figures that need a fit, which is slower, have an account of their own. Worker processes
    publish nothing, nor do storages in memory, which nobody else can open. A journal file, which keeps everything that
    was ever written, gets the last state only.

    Args:
        say: Told, once, why publishing failed; the search goes on.
        clock: Gives the time in seconds.

    Example:
        >>> study.optimize(objective, n_trials=100, callbacks=[Publisher()])
    """

    def __init__(
        self, say: Callable[[str], object] = logger.warning, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock, self._began = say, clock, clock()
        self._accounts = {whole: _Account(coming) for whole, coming in FIRST.items()}
        self._published = 0  # finished trials at the last time, by whoever published
        self._has_said = False
        self._lock = threading.Lock()

    def __call__(self, study: Study, trial: FrozenTrial | None = None) -> None:
        """Publish, if it is time."""
        if not self._lock.acquire(blocking=False):  # another thread of the same study is at it
            return
        try:
            elapsed = self._clock() - self._began
            affordable = [whole for whole in (True, False) if self._accounts[whole].affords(elapsed)]
            if affordable and _is_welcome(study) and not isinstance(backend_of(study._storage), JournalStorage):
                self._publish(study, whole=affordable[0])
        finally:
            self._lock.release()

    def finish(self, study: Study, before: Callable[[], object] | None = None) -> None:
        """Publish the last state, unless another process has; what needs a fit only if that is 5 % of the time at most.

        Args:
            study: The study.
            before: Done first, such as uploading results; then there is always something new.
        """
        with self._lock:
            if not _is_welcome(study):
                return
            if before is not None:
                self._try(before)
            whole = self._accounts[True].affords_last(self._clock() - self._began)
            self._try(lambda: self._publish_news(study, whole=whole, is_last=True, is_news=before is not None))

    def catch_up(self, study: Study) -> None:
        """Publish everything that was not published yet, whatever it takes."""
        with self._lock:
            if _is_welcome(study):
                self._try(lambda: self._publish_news(study, whole=True, is_last=True))

    def _publish(self, study: Study, *, whole: bool) -> None:
        began = self._clock()
        if self._try(lambda: self._publish_news(study, whole=whole)):
            self._accounts[whole].pay(self._clock() - began)

    def _publish_news(self, study: Study, *, whole: bool, is_last: bool = False, is_news: bool = False) -> bool:
        """Publish if there is something new; give whether it was looked at."""
        finished = count_finished(study)
        if not is_last and finished < self._next:
            return False
        from optuna_kd.analysis.dashboard.publishing import publish, published

        self._published = published(study, whole=whole)  # by another process, perhaps
        if is_news or (finished > self._published if is_last else finished >= self._next):
            publish(study, whole=whole)
            self._published = finished
        return True

    @property
    def _next(self) -> float:
        return max(GROWTH * self._published, self._published + 1)

    def _try(self, work: Callable[[], object]) -> bool:
        """Do some work; give whether it did some, as it says, or failed, which takes time as well."""
        try:
            return bool(work())
        except Exception as error:
            if not self._has_said:
                self._has_said = True
                self._say(f"The dashboard shows nothing new: {reason_of(error).rstrip('.')}.")
            logger.debug("Publishing failed", exc_info=True)
            return True


def _is_welcome(study: Study) -> bool:
    is_worker = multiprocessing.parent_process() is not None
    return not is_worker and not isinstance(backend_of(study._storage), InMemoryStorage)
