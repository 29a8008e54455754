"""Batches read ahead of their use by the worker processes of a `DataLoader`, where reading them here takes long."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)

Order = tuple[Tensor, int | None]
"""Which images of a batch are read, [M], and the seed of their view."""

START_COST = 5.0  # seconds: what it takes to start worker processes, which have to import torch
MOST_WORKERS = 8
AHEAD = 2  # batches of each worker
_SHARED_MEMORY = "/dev/shm"


class ReadAhead:
    """Reads batches in order, here or in worker processes that stay for the next time; the images are the same.

    Workers are fresh processes, started without fork: that is safe beside the threads of torch, and inside other
    workers. They end with this object or with this process.

    Args:
        read: Reads the images of one order; sent to the workers.
    """

    def __init__(self, read: Callable[[Order], Tensor]) -> None:
        self._read = read
        self._orders: list[Order] = []
        self._loader: DataLoader | None = None
        self._busy = threading.Lock()
        self._is_off = False
        self._spent = 0.0

    def __call__(self, orders: Sequence[Order], workers: int | None = None) -> Iterator[Tensor]:
        """Give the images of every order [M, C, H, W].

        Args:
            orders: What to read.
            workers: Processes; 0 reads here. None takes the cores that are free, and starts when reading here has
                taken as long as starting workers takes, so that small data never wait for them.

        Raises:
            RuntimeError: If a worker process is killed.
            Exception: What `read` raises, with the same message.
        """
        wanted = spare_cores() if workers is None else workers
        done = 0
        while done < len(orders):
            pays = wanted > 0 and (workers is not None or self._loader is not None or self._spent > START_COST)
            # Another training may be using the workers: then this one reads for itself.
            if pays and not self._is_off and self._busy.acquire(blocking=False):
                try:
                    for images in self._by_workers(orders[done:], wanted):
                        done += 1
                        yield images
                finally:
                    self._busy.release()
            else:
                start = time.perf_counter()
                images = self._read(orders[done])
                self._spent += time.perf_counter() - start
                done += 1
                yield images

    def _by_workers(self, orders: Sequence[Order], workers: int) -> Iterator[Tensor]:
        """Give the images of every order, or none at all where there can be no workers."""
        self._orders[:] = orders
        if self._loader is not None and self._loader.num_workers != workers:
            self._loader = None
        started = self._loader is not None
        batches: Iterator[Tensor | Exception] | None = None
        for _ in orders:
            failure = ""
            try:
                if self._loader is None:
                    self._loader = _create_loader(self._read, self._orders, workers)
                batches = batches or _iterate(self._loader)
                images = next(batches)
            except Exception as error:  # of the processes; what `read` raises comes as a value
                failure = (str(error).strip() or type(error).__name__).splitlines()[0]
            if failure:  # handled here, where the error does not hold the processes any more
                batches = self._loader = None
                if started:
                    raise RuntimeError(
                        f"A process that reads images ahead has ended: {failure}. Was it killed, because memory was "
                        "short? Read with fewer of them (workers=1), or in this process (workers=0)."
                    )
                self._is_off = True
                logger.warning("Images are read in this process, worker processes cannot be used: %s", failure)
                return
            if isinstance(images, Exception):
                raise images
            started = True
            yield images


def spare_cores() -> int:
    """Cores that this process may use beside the one on which it trains, at most 8.

    A process with fewer torch threads than there are cores shares them with others, so the threads are its share.
    """
    # As the runner does: where a thread count is set, it is what this process may take.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(MOST_WORKERS, cores - 1, torch.get_num_threads() - 1))


def _create_loader(read: Callable[[Order], Tensor], orders: list[Order], workers: int) -> DataLoader:
    # Inside: loky takes a while to import, and most data are resident.
    from loky.backend import get_context

    return DataLoader(
        _Reading(read),
        sampler=orders,  # read again in every iteration, so its content may change between two
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        # loky starts fresh processes and sends any data set to them, also one from a notebook or a script without
        # a main guard; fork is not safe beside the threads of torch.
        multiprocessing_context=get_context("loky"),
        persistent_workers=True,
        prefetch_factor=AHEAD,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # else each iteration would draw from the global one
    )


def _iterate(loader: DataLoader) -> Iterator[Any]:
    # From the main thread torch would install a handler that raises wherever that thread is when a worker dies, in the
    # middle of a step or of a commit. Without it the death is found by who waits for the worker.
    with ThreadPoolExecutor(1) as thread, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got pickle error")  # it advises fork
        return thread.submit(iter, loader).result()


class _Reading(Dataset):
    """What a worker does: an order becomes images, or the error of reading them."""

    def __init__(self, read: Callable[[Order], Tensor]) -> None:
        self._read = read

    def __getitem__(self, order: Order) -> Any:
        try:
            images = self._read(order)
        except Exception as error:
            return _portable(error)
        free = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else 0
        # A worker that fills up the shared memory (64 MB in many containers) would be killed by it.
        return _Parcel(images) if images.nbytes * AHEAD * MOST_WORKERS < free else images


class _Parcel:
    """A tensor on its way: in shared memory, where pickling it would copy it twice."""

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __reduce__(self) -> tuple[Any, ...]:
        # Of all picklers only this one knows how torch passes on memory. The bytes come by a pipe from a process that
        # this one has started; nothing pickled is read from a disk, a storage or a network.
        return pickle.loads, (bytes(ForkingPickler.dumps(self._images)),)


def _portable(error: Exception) -> Exception:
    """Give an error that arrives: one that cannot be pickled, or not be made again, becomes its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _as_it_is(item: Any) -> Any:
    return item


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches the whole process group; the parent decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
