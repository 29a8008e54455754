"""Reading ahead: the images that reading here gives, whatever happens to the processes that read them."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from optuna_kd.data import ImageSet, StreamingSet, read_ahead
from optuna_kd.data.read_ahead import ReadAhead, spare_cores

BATCHES = [[0, 3], [5, 1, 2], [4], [3, 0], [6, 7]]
SEEDS = [11, 12, 13, 14, None]


def make_set(n: int = 20) -> StreamingSet:
    """Random images that draw from all three generators; items from 16 on cannot be read, each in its way."""

    class OddError(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"odd {first} {second}")

    class Noise:  # inside a function: no other process could import it
        def __len__(self) -> int:
            return n

        def __getitem__(self, i: int) -> tuple[Any, int]:
            if i == 16:
                raise OSError("image file is truncated")
            if i == 17:
                return torch.zeros(3, 2, 2), 0
            if i == 18:
                raise OddError(1, 2)
            if i == 19:
                os.kill(os.getpid(), signal.SIGKILL)
            pixels = torch.rand(3, 4, 4) + random.random() + float(np.random.rand()) + i
            return pixels, i % 3

    return StreamingSet(Noise(), torch.arange(n) % 3)


@pytest.fixture(scope="module")
def streaming() -> StreamingSet:
    """One set for all tests: workers take seconds to start."""
    data = make_set()
    assert len(list(data.read_ahead(BATCHES, SEEDS, workers=1))) == len(BATCHES)
    return data


def processes(data: StreamingSet) -> list[Any]:
    loader = data._ahead._loader
    return [] if loader is None else list(loader._iterator._workers)  # type: ignore[union-attr]


def same(got: Any, data: StreamingSet) -> bool:
    expected = [data.batch(batch, seed) for batch, seed in zip(BATCHES, SEEDS, strict=True)]
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(got, expected, strict=True))


def test_workers_read_what_is_read_here(streaming: StreamingSet) -> None:
    state = torch.get_rng_state()
    for _ in range(2):
        assert same(streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(streaming.read_ahead(BATCHES, SEEDS, workers=0), streaming)


def test_workers_stay_for_the_next_epoch_also_after_one_that_was_left(streaming: StreamingSet) -> None:
    before = [worker.pid for worker in processes(streaming)]
    assert before
    left = streaming.read_ahead(BATCHES, SEEDS, workers=1)
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert same(streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming)
    assert [worker.pid for worker in processes(streaming)] == before


def test_a_second_training_reads_for_itself_meanwhile(streaming: StreamingSet) -> None:
    pairs = zip(
        streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming.read_ahead(BATCHES, SEEDS, workers=1), strict=True
    )
    first, second = zip(*pairs, strict=True)
    assert same(first, streaming)
    assert same(second, streaming)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([1, 16], ValueError, "Cannot read item 16 of the data set: image file is truncated. Replace or remove it."),
        ([1, 17], ValueError, r"item 1 is \(3, 4, 4\), item 17 is \(3, 2, 2\)"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(
    streaming: StreamingSet, batch: list[int], error: type[Exception], message: str
) -> None:
    for workers in (0, 1):
        with pytest.raises(error, match=message):
            list(streaming.read_ahead([[0], batch, [2]], workers=workers))
    assert same(streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming)


def test_an_error_that_no_other_process_knows_arrives_as_its_text(streaming: StreamingSet) -> None:
    with pytest.raises(RuntimeError, match="OddError: odd 1 2"):
        list(streaming.read_ahead([[18]], workers=1))


def test_a_killed_worker_is_an_error_with_a_reason_and_the_next_epoch_has_new_ones(streaming: StreamingSet) -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"reads images ahead has ended: .*killed.*workers=1.*workers=0"):
        list(streaming.read_ahead([[0], [19], [1]], workers=1))
    assert time.monotonic() - start < 30
    assert same(streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming)
    assert processes(streaming)


def test_workers_end_with_who_started_them(streaming: StreamingSet) -> None:
    assert same(streaming.read_ahead(BATCHES, SEEDS, workers=1), streaming)
    (worker,) = processes(streaming)
    assert worker.is_alive()
    del streaming.__dict__["_ahead"]
    gc.collect()  # tracebacks of the errors above hold frames, and these hold everything
    worker.join(20)
    assert not worker.is_alive()


def test_a_set_with_workers_can_be_pickled() -> None:
    data = StreamingSet(Plain(), torch.arange(8) % 3)
    list(data.read_ahead([[0]], workers=0))
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again.batch([1])[0], data.batch([1])[0])


class Plain:
    """Eight grey images of bytes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return Image.new("L", (4, 4), i), i % 3


class Anchored(Plain):
    """Cannot be sent anywhere."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a database handle")


def test_what_cannot_be_sent_to_a_worker_is_read_here(caplog: pytest.LogCaptureFixture) -> None:
    data = StreamingSet(Anchored(), torch.arange(8) % 3)
    for _ in range(2):
        assert same(data.read_ahead(BATCHES, SEEDS, workers=1), data)
    assert caplog.text.count("cannot pickle a database handle") == 1
    assert "read in this process" in caplog.text


def test_workers_start_when_reading_here_has_taken_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def by_workers(self: ReadAhead, orders: Any, workers: int) -> Iterator[Tensor]:
        asked.append(len(orders))
        return (torch.ones(1) for _ in orders)

    monkeypatch.setattr(ReadAhead, "_by_workers", by_workers)
    monkeypatch.setattr(read_ahead, "spare_cores", lambda: 1)
    monkeypatch.setattr(read_ahead, "START_COST", 0.05)

    def read(order: Any) -> Tensor:
        time.sleep(0.02)
        return torch.zeros(1)

    images = list(ReadAhead(read)([(torch.tensor([0]), None)] * 10))
    here = [float(image) for image in images].index(1.0)
    assert 1 <= here <= 3
    assert asked == [10 - here]


@pytest.mark.parametrize(("threads", "cores", "expected"), [(1, 8, 0), (8, 8, 7), (4, 8, 3), (32, 64, 8), (4, 1, 0)])
def test_workers_take_the_cores_that_are_free(
    threads: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert spare_cores() == expected


def test_resident_images_need_no_workers() -> None:
    data = ImageSet(torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2), torch.tensor([0, 1, 1]))
    got = list(data.read_ahead([[2], [0, 1]], [3, 4], workers=2))
    assert [labels.tolist() for _, labels in got] == [[1], [0, 1]]
    assert torch.equal(got[1][0], data.images[:2])


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3, 4, 5, 6]])
def test_every_batch_needs_a_seed(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        list(StreamingSet(Plain(), torch.arange(8) % 3).read_ahead(BATCHES, seeds, workers=0))


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="optuna_kd")
