"""Signs of life where a storage keeps none: each worker counts, and others see whether its number still moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.storages._compat import BaseHeartbeat
from optuna_kd.storages.processes import this_process
from optuna_kd.storages.retries import OWNER, requeue
from optuna_kd.storages.watch import Watch

INTERVAL = 30  # seconds between two signs of a worker


class Pulsing(BaseHeartbeat):
    """Heartbeats for a storage that has none, as a mixin: the owner of a trial (`OWNER`) ends in a number that counts.

    A worker writes about once in half a minute, however many trials it runs, over what it wrote before. Clocks of
    different machines are not compared: whoever looks waits by its own for the number to move (`Watch`).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pulse, self.watch = Pulse(), Watch()

    def record_heartbeat(self, trial_id: int) -> None:
        """Show that this process is alive, on one of the trials that it runs."""
        storage: Any = super()  # Optuna's own, which does not wait while it is away: the next sign will do
        try:
            sign = self.pulse.next(trial_id, lambda: storage.get_trial_system_attrs(trial_id).get(OWNER))
            if sign is not None:
                storage.set_trial_system_attr(trial_id, OWNER, sign)
        except (KeyError, UpdateFinishedTrialError):  # it was deleted, or taken for lost; another one shows it
            self.pulse.rush()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """List the running trials whose process has ended on this machine, or gives no sign on another one."""
        storage: Any = self
        running = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        owners = {trial._trial_id: str(trial.system_attrs.get(OWNER, "")) for trial in running}
        return self.watch.lost(study_id, owners)

    def get_heartbeat_interval(self) -> int:
        """Give the seconds between two signs."""
        return self.pulse.interval

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        """Give what `Study.optimize` does with a lost trial."""
        return requeue


class Pulse:
    """The number of this process, and when it is written next."""

    def __init__(self) -> None:
        self.interval = INTERVAL
        self._count, self._due = 0, 0.0
        self._signed: set[int] = set()

    def __reduce__(self) -> tuple[type[Pulse], tuple[()]]:
        return Pulse, ()  # another process counts for itself

    def first(self) -> str:
        """Sign a trial that this process starts."""
        return f"{this_process()}/0"

    def next(self, trial_id: int, owner: Callable[[], str | None]) -> str | None:
        """Sign a trial of this process, or give None where nothing needs to be written.

        Args:
            trial_id: The trial.
            owner: Reads who has signed it; `Study.optimize` starts trials that nobody has.
        """
        is_new, now = trial_id not in self._signed, time.monotonic()
        if is_new:
            self._signed.add(trial_id)
            is_new = not str(owner()).startswith(f"{this_process()}/")
        # Each trial has a thread that calls this every interval. Two at once write twice, which does no harm.
        if now < self._due and not is_new:
            return None
        self._due = now + self.interval / 2
        self._count += 1
        return f"{this_process()}/{self._count}"

    def rush(self) -> None:
        """Write at the next opportunity: the last sign was lost."""
        self._due = 0.0
