"""Memory returns to its level between trials: after 200 a process holds what it held after 20."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import pytest
import torch
from small_searches import Task
from torch import nn

from optuna_kd.objective import DistillationObjective
from optuna_kd.recipe import ProxyConfig
from optuna_kd.runner.jobs import Worker, WorkerSpec, run_trials
from optuna_kd.runner.workers import Job, Workers
from optuna_kd.storages import create_storage
from optuna_kd.study import create_study
from optuna_kd.training import store_knowledge

EARLY, LATE = 20, 200  # trials
BOUND = 16.0  # MB; the study remembers its trials, which is 4 to 9

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident() -> float:
    """Give the memory of this process in MB, after all that is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def alive() -> tuple[int, int]:
    """Count the tensors and the modules of this process: a leak of a small student hardly shows in megabytes."""
    kinds = [type(thing) for thing in gc.get_objects()]
    return sum(issubclass(kind, torch.Tensor) for kind in kinds), sum(issubclass(kind, nn.Module) for kind in kinds)


def measure(worker: Worker, together: int) -> list[tuple[float, tuple[int, int]]]:
    """Run all trials in this process; give its memory, and what is alive, after the early and the late ones."""
    levels = []
    for order in range(together, LATE + 1, together):
        run_trials(worker, None, together, together)
        if order in (EARLY, LATE):
            levels.append((resident(), alive()))
    return levels


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_optuna")
@pytest.mark.parametrize(("processes", "together"), [(1, 1), (2, 1), (1, 4)])
def test_memory_returns_to_its_level(task: Task, tmp_path: Path, processes: int, together: int) -> None:
    """In this process, in one of two worker processes, and of students that are trained as one network."""
    url, file = f"sqlite:///{tmp_path / 'kd.db'}", tmp_path / "knowledge.bin"
    store_knowledge(task).save(file)
    objective = DistillationObjective(task, proxy=ProxyConfig(epochs=1, rungs=(1,)), knowledge=file)
    study = create_study(storage=create_storage(url), study_name="memory", seed=0)
    objective.bind(study)
    spec = WorkerSpec(
        task=task,
        objective=DistillationObjective,
        options=objective.options(),
        knowledge=str(file),
        storage=url,
        study_name="memory",
        sampler="mcts",
        pruner=study.pruner,
        seed=0,
        session="memory",
        checkpoints=tmp_path / "checkpoints",
    )
    with Workers(processes, spec, threads=1) as workers:
        (outcome,) = workers.run([Job("measure", measure, (together,))])
    assert outcome.error is None
    (early, alive_early), (late, alive_late) = outcome.result
    assert len(study.trials) == LATE
    assert alive_late == alive_early
    assert late - early < BOUND
