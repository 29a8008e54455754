"""GPUs shared out among worker processes; there is none here, so what decides is tested, and what carries it out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from optuna_kd.runner.gpus import VISIBLE, gpu_of, share_gpus, shared_out, visible_gpus
from optuna_kd.runner.workers import Job, Workers


@pytest.mark.parametrize(
    ("device", "gpus", "given"),
    [
        ("cuda", ["0", "1", "2"], ["0", "1", "2", "0", "1", "2", "0"]),
        ("cuda", ["GPU-7f", "GPU-a1"], ["GPU-7f", "GPU-a1"] * 2),
        ("cuda", ["3", "1"], ["3", "1", "3"]),
        ("cuda", ["0"], [None, None]),
        ("cuda", [], [None, None]),
        ("cuda:1", ["0", "1"], [None, None]),
        ("cpu", ["0", "1"], [None, None]),
    ],
)
def test_worker_i_has_gpu_i_mod_count(device: str, gpus: list[str], given: list[str | None]) -> None:
    assert [gpu_of(device, worker, gpus) for worker in range(len(given))] == given


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [
        (None, 3, ["0", "1", "2"]),
        ("", 2, ["0", "1"]),
        ("2,5", 2, ["2", "5"]),
        (" GPU-7f , MIG-a1/2/0 ", 2, ["GPU-7f", "MIG-a1/2/0"]),
        ("0,7,1", 1, ["0"]),  # CUDA stops reading at the first that is not there
        ("0", 0, []),
    ],
)
def test_gpus_go_by_the_names_that_cuda_knows(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv(VISIBLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VISIBLE, variable)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("workers", "gpus", "each"),
    [(8, 4, "2 on each"), (4, 4, "1 on each"), (5, 4, "2 on 1 of them, 1 on the others"), (2, 4, "1 on 2 of them")],
)
def test_one_line_says_how_they_are_shared_out(workers: int, gpus: int, each: str) -> None:
    assert shared_out(workers, gpus) == f"GPUs       {workers} workers share {gpus} GPUs: {each}"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


class Context:
    """A context that knows what was visible when it was unpacked, as a tensor on a GPU would."""

    def __init__(self) -> None:
        self.visible: str | None = None

    def __setstate__(self, state: dict[str, str]) -> None:
        self.visible = os.environ.get(VISIBLE)

    def __getstate__(self) -> dict[str, str]:
        return {"not": "empty"}

    def __call__(self) -> Context:
        return self


def see(context: Context, folder: Path, name: str) -> tuple[str | None, str | None]:
    """Meet the other worker, so that each has one of the jobs."""
    (folder / f"{name}.met").touch()
    end = time.monotonic() + 60
    while len(list(folder.glob("*.met"))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    return context.visible, os.environ.get(VISIBLE)


def test_each_process_sees_its_gpu_before_its_context_arrives(two_gpus: None, tmp_path: Path) -> None:
    notes: list[str] = []
    create = share_gpus(Context(), "cuda", 2, tmp_path, notes.append)
    assert notes == ["GPUs       2 workers share 2 GPUs: 1 on each"]
    with Workers(2, create, threads=1) as workers:
        seen = [outcome.result for outcome in workers.run([Job(name, see, (tmp_path, name)) for name in "ab"])]
    assert sorted(seen) == [("0", "0"), ("1", "1")]
    assert VISIBLE not in os.environ


@pytest.mark.parametrize(
    ("device", "workers", "current"), [("cpu", 2, 0), ("cuda:0", 2, 0), ("cuda", 1, 0), ("cuda", 2, 1)]
)
def test_nothing_is_shared_out_where_the_gpu_is_given(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, workers: int, current: int
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    context = Context()
    assert share_gpus(context, device, workers, tmp_path, lambda line: pytest.fail(line)) is context


def test_one_gpu_is_no_news(two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    context = Context()
    assert share_gpus(context, "cuda", 4, tmp_path, lambda line: pytest.fail(line)) is context
