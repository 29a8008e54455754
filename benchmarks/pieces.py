"""What benchmarks share that run in pieces: fresh processes, and what a result file says of machine and source."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

import torch
from loky import ProcessPoolExecutor

import optuna_kd
from optuna_kd.runner.workers import environment

ENGINE = ("data", "distillers", "models", "training")  # rooms of optuna_kd that the figures depend on


class InThisProcess:
    """A pool without processes, for tests."""

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Call a function at once."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, kill_workers: bool = True) -> None:
        """Do nothing."""


def open_pool(workers: int, threads: int, *, is_here: bool = False) -> Any:
    """Start fresh processes of so many torch threads each, which keep their memory as the workers of a search do."""
    if is_here:
        return InThisProcess()
    return ProcessPoolExecutor(
        workers, env=environment(threads), initializer=torch.set_num_threads, initargs=(threads,)
    )


def gather(futures: Sequence[Future[Any]]) -> list[Any]:
    """Wait for all; the first error ends it."""
    for future in as_completed(futures):
        future.result()
    return [future.result() for future in futures]


def source_of_engine() -> str:
    """Hash the rooms of the package that train."""
    root, content = Path(optuna_kd.__file__).parent, hashlib.sha256()
    for path in sorted(path for room in ENGINE for path in (root / room).rglob("*.py")):
        content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


def machine_of(kind: str, processes: int) -> str:
    """Say what computes, and in what a CPU multiplies bfloat16, on which most depends."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    bfloat16 = "tiles" if has.get("amx_bf16") else "vectors" if has.get("avx512_bf16") else "nothing"
    cpu = f"{platform.system()} {has.get('cpu_name', platform.machine())} (bfloat16 in {bfloat16})"
    gpu = f", {torch.cuda.get_device_name()}" if kind == "cuda" else ""
    return f"{cpu}, {os.cpu_count()} cores of which {processes} are used{gpu}"


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
