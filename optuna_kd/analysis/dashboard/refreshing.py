"""Figures that keep up with their studies while a dashboard is open, whoever runs the trials."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from optuna_kd.analysis.dashboard.publisher import Publisher
from optuna_kd.cards import printable
from optuna_kd.storages.reading import UNREADABLE
from optuna_kd.storages.transient import reason_of
from optuna_kd.study.settings import SETTINGS

PERIOD = 30.0  # seconds between two looks at the studies


class Refresher:
    """Publishes studies of ours, and others by name: all of them at once, and again as they grow.

    The companions of searches (`<name>/controls` and others) are left out.

    Args:
        storage: Where they are.
        names: Of studies that optuna_kd did not make.
        say: Told, once for each study, why publishing failed.
        period: Seconds between two looks.
    """

    def __init__(
        self,
        storage: BaseStorage,
        names: Sequence[str] = (),
        say: Callable[[str], object] = lambda line: None,
        *,
        period: float = PERIOD,
    ) -> None:
        self._storage, self._names, self._say, self._period = storage, set(names), say, period
        self._publishers: dict[str, tuple[Study, Publisher]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)
        self._said: set[str] = set()

    def __enter__(self) -> Refresher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()  # what is being written is one transaction: it is there, or it is not

    def look(self) -> None:
        """Publish what is new."""
        studies = self._storage.get_all_studies()
        names = {study.study_name for study in studies}
        for study in studies:
            if self._ending.is_set():
                return
            name = study.study_name
            if name.rpartition("/")[0] in names or not (SETTINGS in study.user_attrs or name in self._names):
                continue
            if name not in self._publishers:
                loaded = optuna.load_study(study_name=name, storage=self._storage)
                self._publishers[name] = loaded, Publisher(self._say_once)
                self._publishers[name][1].catch_up(loaded)
            else:
                loaded, publisher = self._publishers[name]
                publisher(loaded)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self.look()
            except (KeyError, *UNREADABLE) as error:  # a study was deleted meanwhile; or the storage is away
                if not isinstance(error, KeyError):
                    self._say_once(f"The studies cannot be read: {reason_of(error)}.")
            self._ending.wait(self._period)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(printable(line))
