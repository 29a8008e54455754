"""A Ray cluster: one that is there, or one of this machine alone for the time of a search."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

from optuna_kd.storages import is_gone, this_process

MISSING = 'The engine "ray" needs Ray. Install it: pip install "optuna-kd[ray]".'
SHORT = "/tmp"  # Ray's socket names have about 100 characters, 65 of which are its own
LOCAL = "local"
PREFIX, OWNER = "optuna_kd-ray-", "owner"  # of the folder of a Ray, and the file in it that says whose it is
SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}  # nobody is told that Ray is used, and how


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        ValueError: With the command that installs it.
    """
    if "ray" not in sys.modules and importlib.util.find_spec("ray") is None:
        raise ValueError(MISSING)


def address_of(given: str | None) -> str | None:
    """Give the address of the cluster: as given, else that of RAY_ADDRESS; None for a Ray of this machine alone."""
    address = given or os.environ.get("RAY_ADDRESS") or LOCAL
    return None if address == LOCAL else address


@contextlib.contextmanager
def connected(address: str | None, cpus: float) -> Iterator[ModuleType]:
    """Give Ray, connected to a cluster; what was started for it ends afterwards.

    A program that has called `ray.init` itself keeps its connection.

    Args:
        address: Of the cluster; None starts one on this machine, which listens to this machine alone, has no dashboard
            and leaves no files.
        cpus: That such a one gives out; all workers are to find room.

    Raises:
        ValueError: If there is none at that address.
    """
    require_ray()
    import ray

    if ray.is_initialized():
        yield ray
        return
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
        surroundings: AbstractContextManager[None] = _environment(SILENT)
        if address is None:
            folder = stack.enter_context(_folder())
            options |= {"address": LOCAL, "num_cpus": math.ceil(cpus), "include_dashboard": False, "_temp_dir": folder}
            surroundings = _alone()
        stack.callback(ray.shutdown)
        with _signals_kept(), surroundings:
            try:
                ray.init(**options)
            except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                where = "on this machine" if address is None else f"at {address!r}"
                raise ValueError(f"There is no Ray {where}: {reason}") from None
        yield ray


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """Give a folder for the files of a Ray, and remove it afterwards, with those of runs that were killed."""
    place = Path(SHORT if Path(SHORT).is_dir() else tempfile.gettempdir())
    for stale in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if is_gone((stale / OWNER).read_text(encoding="utf-8")):
                shutil.rmtree(stale, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=place)
    (Path(folder) / OWNER).write_text(this_process(), encoding="utf-8")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let a Ray that is started listen to this machine alone, and to those who know a password that is only its own.

    Whoever reaches one of its ports can run any code. Ray's own default are the ports of the network, and a password
    in a file that is left behind.
    """
    from ray._private import ray_constants

    token = os.environ.get("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Its address is that of this machine in the network, unless clusters are switched off, as they are outside Linux.
    # One process reads the variable, others the constant.
    switch, before = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({**SILENT, "RAY_AUTH_TOKEN": token, switch: "0"}, "RAY_AUTH_MODE"):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Give the handlers of signals back, which Ray replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def _environment(changes: Mapping[str, str], *others: str) -> Iterator[None]:
    """Change variables for a while; `others` are changed by whoever is called."""
    before = {name: os.environ.get(name) for name in (*changes, *others)}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
