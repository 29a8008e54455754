"""The engine "ray": workers on a Ray cluster, on one machine or many."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from optuna.storages import BaseStorage
from sqlalchemy.exc import ArgumentError

from optuna_kd.runner.jobs import WorkerSpec
from optuna_kd.runner.progress import Reporter
from optuna_kd.runner.ray_cluster import address_of, require_ray
from optuna_kd.runner.ray_workers import RayWorkers, Share
from optuna_kd.runner.workers import share_of_cores
from optuna_kd.storages import LOOPBACK, is_local, is_shareable, show_storage

SMALLEST = 10_000  # parts of a GPU that Ray can tell apart


@dataclass(frozen=True)
class RayEngine:
    """Workers on a Ray cluster.

    Args:
        address: Of the cluster, "host:port" or "auto"; None takes RAY_ADDRESS, and without it starts a Ray of this
            machine alone for the time of the search.
        cpus_per_worker: Processors that a worker is given, and as many torch threads; below 1 several workers share
            one. None is 1, and on this machine alone its share of the cores.
        gpus_per_worker: GPUs, or a part of one: 0.25 puts four workers on each. None is 1 where the task is on a GPU,
            on this machine alone what gives all workers room, else 0.

    Raises:
        ValueError: For numbers that Ray cannot give.
    """

    address: str | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_worker is not None and not self.cpus_per_worker > 0:
            raise ValueError(f"cpus_per_worker (--cpus-per-worker) must be > 0; got {self.cpus_per_worker!r}.")
        gpus = self.gpus_per_worker
        if gpus is not None and (not gpus >= 0 or (gpus > 1 and gpus != int(gpus))):
            raise ValueError(
                f"gpus_per_worker (--gpus-per-worker) is a part of a GPU, 0.25 say, or a whole number; got {gpus!r}."
            )

    def check(self, storage: str | BaseStorage | None, workers: int, device: str = "auto") -> None:
        """Refuse a storage that workers could not open where they are, and a device that is not theirs to choose."""
        require_ray()
        kind, _, index = device.partition(":")
        if index:
            raise ValueError(f"Ray says which GPU a worker has: use --device {kind} instead of {device}.")
        if kind == "cuda" and self.gpus_per_worker == 0:
            raise ValueError("Workers without a GPU cannot train on one: use --device cpu, or --gpus-per-worker 1.")
        with contextlib.suppress(ArgumentError):
            if not is_shareable(storage):
                raise ValueError("Workers on Ray need a storage with a URL, because they are processes.")
            address = self._elsewhere()
            if address is not None and is_local(str(storage)):
                raise ValueError(
                    f"{show_storage(str(storage))} is on this machine, and workers on Ray at {address} may be on "
                    "others: use PostgreSQL or MySQL by the name of its machine, or `optuna-kd serve` "
                    "(grpc://HOST:13000). For workers of this machine alone leave the address (--ray-address, "
                    "RAY_ADDRESS) out."
                )

    def team(
        self, spec: WorkerSpec, workers: int, *, scratch: Path, folder: Path,
        requeue: Callable[[str | None], None], say: Reporter,
    ) -> RayWorkers:  # fmt: skip
        """Give the actors."""
        share = self.share(spec.task.device.type, workers)
        where = "of this machine" if share.address is None else f"at {share.address}"
        each = f"{share.cpus:g} CPU" + (f" and {share.gpus:g} GPU" if share.gpus else "")
        say.note(f"Starting   {workers} workers on Ray {where}, each with {each}")
        return RayWorkers(spec, workers, share, folder=folder, requeue=requeue, say=say)

    def share(self, device: str, workers: int) -> Share:
        """Say what each worker is given.

        Args:
            device: The kind of device that the task is on, "cpu" or "cuda".
            workers: How many.
        """
        address = address_of(self.address)
        threads = share_of_cores(workers) if address is None else 1
        if self.cpus_per_worker is not None:
            threads = max(1, int(self.cpus_per_worker))
        gpus = self.gpus_per_worker
        if gpus is None:
            gpus = (
                0.0 if device == "cpu" else 1.0 if address is not None else part_of(torch.cuda.device_count(), workers)
            )
        placed = "cuda" if gpus and device == "cpu" else None
        return Share(address, self.cpus_per_worker or 1.0, gpus, threads, placed)

    def _elsewhere(self) -> str | None:
        """Give the address of a cluster that may have other machines."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            address = ray.get_runtime_context().gcs_address
            return address if sum(node["Alive"] for node in ray.nodes()) > 1 else None
        address = address_of(self.address)
        return None if address is None or address.rpartition(":")[0].strip("[]") in LOOPBACK else address


def part_of(gpus: int, workers: int) -> float:
    """Give the largest part of a GPU with which so many workers fit on so many GPUs.

    A worker is on one GPU, so three on two GPUs get half of one each.
    """
    return math.floor(SMALLEST / math.ceil(workers / max(1, gpus))) / SMALLEST
